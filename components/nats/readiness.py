"""NATS JetStream: three servers, of which two keep the meta leader.

The servers' monitoring port tells who leads the meta group and each stream, and who is behind
(https://docs.nats.io/running-a-nats-service/nats_admin/monitoring#jetstream-information-jsz). A message is stored in a
stream with as many replicas as there are servers through one of them, and read through another. Each round has a stream
of its own and deletes it: rounds do not meet, and no client is kept for longer from a stream that takes every subject.
Tried on 2.15.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from base64 import b64decode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.errors import NoStreamResponseError

from components.access import Access, Endpoint
from components.base import Report, Role, Workload
from components.nats.client import (
    CLIENT_PORT,
    MONITOR_PORT,
    OVERLAP,
    STATEFULSET,
    USER,
    Refused,
    Unanswered,
    call,
    connect,
    listed,
)
from components.nats.messages import nanoseconds
from components.nats.resources import is_probe
from components.questions import PROBE, Answer, Round, ask_members, words
from config.models import Settings

# A round ends after 30 s (`operations.health.gate`): what is older than that by far was left by a killed one.
PROBE_AGE_SECONDS, PROBE_BYTES = 300, 1 << 20
# What the account's own rules refuse says nothing of NATS: codes in server/errors.json.
NOT_OURS = {
    OVERLAP: "another stream takes every subject, and two streams cannot share a subject",
    10027: "the account has reached its limit of streams",
}
HEARD_PAUSE_SECONDS = 0.05
# A stream has its leader within 0.1 s, or after an election of 4 s and more.
LEADER_SECONDS, MAKE_SECONDS = 2.0, 12.0
# A peer that answers and is so little behind is at work: rounds of gates change the meta group themselves.
LAG_OPERATIONS, CONTACT_NANOSECONDS = 10, 2_000_000_000
NO_PEERS = (10005, 10074)  # fewer servers are online than replicas are asked for


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
        hint = f"no agreed leader ({seen}): fewer than {wanted // 2 + 1} of {wanted} servers can reach each other"
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
    if clients and leader:
        with questions.check("message stored and read through another server") as answer:
            asyncio.run(_transaction(access, clients, wanted, answer))
    return Report(tuple(questions.checks), tuple(roles))


def settings_read(access: Access) -> dict[str, str]:
    """When each server has read its settings: a refused reload leaves the time as it was (server/reload.go)."""
    monitors = access.endpoints(STATEFULSET, access.settings.components.nats.members, MONITOR_PORT)

    def ask_one(server: Endpoint) -> str:
        answer = access.http.get(f"http://{server.url}/varz").raise_for_status()
        return str(answer.json()["config_load_time"])

    return ask_members(monitors, ask_one).good


def _streams(questions: Round, servers: Mapping[str, Mapping[str, Any]]) -> None:
    """A stream is reported by each of its peers; the leader knows its replicas."""
    leaderless: dict[str, str] = {}
    trouble: dict[str, str] = {}
    for said in servers.values():
        for account in said.get("account_details") or []:
            for stream in account.get("stream_detail") or []:
                if is_probe(str(stream["name"])):  # it lives for a tenth of a second
                    continue
                name, cluster = f"{account['name']}/{stream['name']}", stream.get("cluster") or {}
                if not cluster.get("leader"):
                    leaderless.setdefault(name, "has no leader: a majority of its replicas is away")
                bad = [
                    f"{r['name']} {t}" for r in cluster.get("replicas") or [] if (t := _trouble(r))
                ]
                if bad and cluster.get("leader") == said.get("server_name", cluster.get("leader")):
                    trouble[name] = ", ".join(bad)
    # a server without a leader may only be late: it counts if no server knows one
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


async def _transaction(
    access: Access, servers: list[Endpoint], members: int, answer: Answer
) -> None:
    """Store a message through one server, read it through another, and leave nothing."""
    seconds, first, last = access.timeout_seconds, servers[0], servers[-1]
    forbidden: list[str] = []
    writer = await connect(access, [first], forbidden=forbidden.append)
    try:
        reader = await connect(access, [last])
        try:
            await _remove_old_probes(writer, seconds)
            async with _stream(writer, members, len(servers), forbidden) as name:
                same = await _message_comes_back(writer, reader, name, seconds)
            hint = f"stored through {first.member}, read through {last.member}"
            answer.settle(
                same, hint if same else f"{last.member} returned another message than was stored"
            )
        except Exception as exc:
            rule = _own_rule(exc, forbidden)
            if not rule:
                raise
            answer.unknown(rule)
        finally:
            await reader.close()
    finally:
        await writer.close()


def _own_rule(exc: Exception, forbidden: list[str]) -> str:
    """The rule of the account that keeps the gate from asking; "" where it is none."""
    if isinstance(exc, Refused) and exc.code in NOT_OURS:
        return f"{NOT_OURS[exc.code]}: {exc.words}"
    return f"user {USER} does not have this permission: {forbidden[0]}" if forbidden else ""


@asynccontextmanager
async def _stream(
    client: Client, members: int, answering: int, forbidden: list[str]
) -> AsyncIterator[str]:
    """A stream of this round alone, gone on leaving.

    For a minute and a half after a server died JetStream may choose it as the first leader of what is made
    (`setPreferred`, server/jetstream_cluster.go): such a stream is of no use for some seconds, and another is made.
    """
    deadline = time.monotonic() + MAKE_SECONDS
    while True:
        name = f"{PROBE}-{int(time.time())}-{secrets.token_hex(8)}"
        try:
            await _make_stream(client, name, members, answering)
            yield name
            return
        except SlowStream:
            if forbidden or time.monotonic() > deadline:
                raise
        finally:
            with suppress(Refused, Unanswered, NatsError):
                await call(client, f"STREAM.DELETE.{name}", timeout=LEADER_SECONDS)


async def _make_stream(client: Client, name: str, members: int, answering: int) -> None:
    """Make a stream on all servers; on those that answer, where JetStream knows already that others are away.

    Raises:
        SlowStream: it has no leader yet.
    """
    config = {
        "name": name,
        "subjects": [f"{PROBE}.{name}"],
        "storage": "file",
        "max_bytes": PROBE_BYTES,  # an account may demand a limit
        "max_age": PROBE_AGE_SECONDS * 1_000_000_000,
        "description": "written by the readiness gate; not in backups",
    }
    for replicas in dict.fromkeys((members, answering)):
        request = {**config, "num_replicas": replicas}
        try:
            await call(client, f"STREAM.CREATE.{name}", request, timeout=LEADER_SECONDS)
            return
        except Unanswered as exc:
            raise SlowStream(str(exc)) from exc
        except Refused as exc:
            if exc.code not in NO_PEERS or replicas == answering:
                raise


class SlowStream(Unanswered):
    """A stream that was just made has no leader."""


async def _message_comes_back(writer: Client, reader: Client, name: str, seconds: float) -> bool:
    token, subject = secrets.token_hex(8).encode(), f"{PROBE}.{name}"
    deadline = time.monotonic() + seconds
    while True:
        try:
            stored = await writer.jetstream(timeout=seconds).publish(subject, token)
            break
        except (
            NoStreamResponseError
        ):  # its server has not heard yet of a stream that another one leads
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(HEARD_PAUSE_SECONDS)
    asked = {"seq": stored.seq}
    found = await call(reader, f"STREAM.MSG.GET.{name}", asked, timeout=seconds)
    return b64decode(found["message"]["data"]) == token


async def _remove_old_probes(client: Client, seconds: float) -> None:
    """Delete what killed rounds left: what is old by its name, and by JetStream's own clock too."""
    names = await listed(client, "STREAM.NAMES", "streams", timeout=seconds, matching=f"{PROBE}.>")
    for name in map(str, names):
        if not is_probe(name) or time.time() - _made_at(name) < PROBE_AGE_SECONDS:
            continue
        with suppress(Refused, Unanswered):  # another round was faster, or it has no leader
            stream = await call(client, f"STREAM.INFO.{name}", timeout=1.0)
            age = nanoseconds(stream["ts"]) - nanoseconds(stream["created"])
            if age > PROBE_AGE_SECONDS * 1_000_000_000:
                await call(client, f"STREAM.DELETE.{name}", timeout=seconds)


def _made_at(name: str) -> int:
    """Seconds since 1970, from the name of a round's stream; 0 for the one that all rounds once shared."""
    made = name.removeprefix(PROBE).removeprefix("-").partition("-")[0]
    return int(made) if made.isascii() and made.isdigit() else 0


def _jetstream(access: Access, server: Endpoint) -> dict[str, Any]:
    query = "accounts=true&streams=true&config=true"
    answer = access.http.get(f"http://{server.url}/jsz?{query}")
    return {"server_name": server.member, **answer.raise_for_status().json()}


def _trouble(peer: Mapping[str, Any]) -> str:
    if peer.get("offline"):
        return "is offline"
    lag, silence = int(peer.get("lag", 0)), int(peer.get("active", 0))
    at_work = lag <= LAG_OPERATIONS and 0 < silence <= CONTACT_NANOSECONDS  # 0: never heard of
    if not (peer.get("current") or at_work):
        return f"is {lag} operations behind"
    return ""


def _with_lag(role: Role, peers: Mapping[str, Mapping[str, Any]]) -> Role:
    peer = peers.get(role.member)
    return Role(role.member, role.role, f"{peer.get('lag', 0)} op") if peer else role
