"""NATS JetStream: three servers, of which two keep the meta leader.

The servers' monitoring port tells who leads the meta group and each stream, and who is behind
(https://docs.nats.io/running-a-nats-service/nats_admin/monitoring#jetstream-information-jsz). A message is stored in a
stream with as many replicas as there are servers through one of them, and read through another. Tried on 2.15.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from typing import Any

from nats.js.api import StreamConfig

from components.access import Access, Endpoint
from components.base import Report, Role, Workload
from components.nats.client import CLIENT_PORT, MONITOR_PORT, STATEFULSET, connect
from components.questions import PROBE, Round, ask_members, words
from config.models import Settings

SUBJECT = f"{PROBE}.gate"
# What a failed round leaves behind goes by itself.
PROBE_AGE_SECONDS = 3600


def workloads(settings: Settings) -> tuple[Workload, ...]:
    """What must run for this component, as Kubernetes sees it."""
    return (Workload("StatefulSet", STATEFULSET, settings.components.nats.members),)


def ask(access: Access) -> Report:
    """Ask for a meta leader, current peers, streams with all their replicas, and a message that travels."""
    wanted = access.settings.components.nats.members
    monitors = access.endpoints(STATEFULSET, wanted, MONITOR_PORT)
    questions = Round()
    answers = ask_members(monitors, lambda server: _jetstream(access, server))
    questions.checks.append(answers.check("servers answer"))
    metas = {
        name: said["meta_cluster"] for name, said in answers.good.items() if "meta_cluster" in said
    }
    leaders = {str(meta.get("leader") or "") for meta in metas.values()}
    leader = leaders.pop() if len(leaders) == 1 else ""
    if leader:
        hint = leader
    elif not metas:
        hint = "no server has JetStream's meta group"
    else:
        seen = ", ".join(sorted(x or "none" for x in leaders)) or "none"
        hint = f"no agreed leader ({seen}): fewer than {wanted // 2 + 1} of {wanted} servers see each other"
    questions.note("meta leader", bool(leader), hint)
    behind: dict[str, str] = {}
    roles = [Role(name, "leader" if name == leader else "follower") for name in sorted(metas)]
    if leader in metas:
        peers = {str(p["name"]): p for p in metas[leader].get("replicas") or []}
        behind = {name: trouble for name, p in peers.items() if (trouble := _trouble(p))}
        absent = wanted - 1 - len(peers)
        if absent > 0:
            behind["the meta group"] = f"has {len(peers) + 1} of {wanted} servers"
        roles = [_with_lag(role, peers) for role in roles]
    hint = words(behind) or f"{wanted} servers"
    questions.note("peers are current", bool(leader) and not behind, hint, critical=False)
    _streams(questions, answers.good)
    clients = [
        s for s in access.endpoints(STATEFULSET, wanted, CLIENT_PORT) if s.member in answers.good
    ]
    if clients:
        with questions.check("message stored and read through another server") as answer:
            answer.settle(True, asyncio.run(_transaction(access, clients, wanted)))
    return Report(tuple(questions.checks), tuple(roles))


def _streams(questions: Round, servers: Mapping[str, Mapping[str, Any]]) -> None:
    """A stream is reported by each of its peers; the leader knows its replicas."""
    leaderless: dict[str, str] = {}
    trouble: dict[str, str] = {}
    for said in servers.values():
        for account in said.get("account_details") or []:
            for stream in account.get("stream_detail") or []:
                name, cluster = f"{account['name']}/{stream['name']}", stream.get("cluster") or {}
                if not cluster.get("leader"):
                    leaderless.setdefault(name, "has no leader: a majority of its replicas is away")
                bad = [
                    f"{r['name']} {t}" for r in cluster.get("replicas") or [] if (t := _trouble(r))
                ]
                if bad and cluster.get("leader") == said.get("server_name", cluster.get("leader")):
                    trouble[name] = ", ".join(bad)
    # who has lost the leader may only be late: it counts if nobody knows one
    known = {
        f"{a['name']}/{s['name']}"
        for said in servers.values()
        for a in said.get("account_details") or []
        for s in a.get("stream_detail") or []
        if (s.get("cluster") or {}).get("leader")
    }
    lost = {name: words_ for name, words_ in leaderless.items() if name not in known}
    questions.note("every stream has a leader", not lost, words(lost))
    questions.note("stream replicas are current", not trouble, words(trouble), critical=False)


async def _transaction(access: Access, servers: list[Endpoint], replicas: int) -> str:
    """Store a message through one server, read it through another, delete it."""
    token = secrets.token_hex(8).encode()
    first, last = servers[0], servers[-1]
    writer = await connect(access, [first])
    try:
        stream = writer.jetstream(timeout=access.timeout_seconds)
        config = StreamConfig(
            name=PROBE,
            subjects=[f"{PROBE}.>"],
            num_replicas=replicas,
            max_age=PROBE_AGE_SECONDS,
            description="written by readiness gates; left out of backups",
        )
        await stream.add_stream(config)
        stored = await stream.publish(SUBJECT, token, timeout=access.timeout_seconds)
        reader = await connect(access, [last])
        try:
            found = await reader.jetstream(timeout=access.timeout_seconds).get_msg(
                PROBE, stored.seq
            )
        finally:
            await reader.close()
        await stream.delete_msg(PROBE, stored.seq)
    finally:
        await writer.close()
    if found.data != token:
        raise RuntimeError(f"{last.member} returned another message than was stored")
    return f"stored through {first.member}, read through {last.member}"


def _jetstream(access: Access, server: Endpoint) -> dict[str, Any]:
    query = "accounts=true&streams=true&config=true"
    answer = access.http.get(f"http://{server.url}/jsz?{query}")
    return {"server_name": server.member, **answer.raise_for_status().json()}


def _trouble(peer: Mapping[str, Any]) -> str:
    if peer.get("offline"):
        return "is offline"
    if not peer.get("current"):
        return f"is {peer.get('lag', 0)} operations behind"
    return ""


def _with_lag(role: Role, peers: Mapping[str, Mapping[str, Any]]) -> Role:
    peer = peers.get(role.member)
    return Role(role.member, role.role, f"{peer.get('lag', 0)} op") if peer else role
