"""The gate of NATS JetStream: a majority of the servers must agree on a meta leader.

The monitoring port shows the leaders of the meta group and of each stream, and which peers are behind
(https://docs.nats.io/running-a-nats-service/nats_admin/monitoring#jetstream-information-jsz).

The probe stores a message through one server and reads it through another, in a stream with a replica on every server.
Each round creates and deletes its own stream. So parallel rounds do not collide, and a client that creates a stream for
all subjects is refused only briefly. Tried on 2.15.
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
from components.nats.resources import is_probe
from components.nats.streams.messages import nanoseconds
from components.questions import PROBE, Answer, Round, ask_members, words
from config.models import Settings

# A round ends after 30 s (`operations.health.gate`), so a much older stream was left by a killed round.
PROBE_AGE_SECONDS, PROBE_BYTES = 300, 1 << 20
# Refusals by the account's own rules do not mean that NATS is broken (codes: server/errors.json).
NOT_OURS = {
    OVERLAP: "another stream takes every subject, and two streams cannot share a subject",
    10027: "the account has reached its limit of streams",
}
HEARD_PAUSE_SECONDS = 0.05
# A stream has its leader within 0.1 s, or after an election of 4 s and more.
LEADER_SECONDS, MAKE_SECONDS = 2.0, 12.0
# A peer this little behind is working normally: the gates' own rounds change the meta group.
LAG_OPERATIONS, CONTACT_NANOSECONDS = 10, 2_000_000_000
NO_PEERS = (10005, 10074)  # fewer servers are online than replicas are asked for


def workloads(settings: Settings) -> tuple[Workload, ...]:
    """The workloads of this component in Kubernetes."""
    return (Workload("StatefulSet", STATEFULSET, settings.components.nats.members),)


def ask(access: Access) -> Report:
    """Check the meta leader, the peers, all streams with their replicas, and a message through two servers."""
    members = access.settings.components.nats.members
    monitors = access.endpoints(STATEFULSET, members, MONITOR_PORT)
    questions = Round()
    answers = ask_members(monitors, lambda server: _jetstream(access, server))
    questions.checks.append(answers.check("servers answer"))
    metas = {
        name: reply["meta_cluster"]
        for name, reply in answers.good.items()
        if "meta_cluster" in reply
    }
    leaders = {str(meta.get("leader") or "") for meta in metas.values()}
    leader = leaders.pop() if len(leaders) == 1 else ""
    if leader:
        hint = leader
    elif not metas:
        hint = "no server has JetStream's meta group"
    else:
        claims = ", ".join(sorted(x or "none" for x in leaders)) or "none"
        hint = f"no agreed leader ({claims}): fewer than {members // 2 + 1} of {members} servers can reach each other"
    questions.note("meta leader", bool(leader), hint)
    behind: dict[str, str] = {}
    roles = [Role(name, "leader" if name == leader else "follower") for name in sorted(metas)]
    if leader in metas:
        peers = {str(p["name"]): p for p in metas[leader].get("replicas") or []}
        behind = {name: trouble for name, p in peers.items() if (trouble := _trouble(p))}
        absent = members - 1 - len(peers)
        if absent > 0:
            behind["the meta group"] = f"has {len(peers) + 1} of {members} servers"
        roles = [_with_lag(role, peers) for role in roles]
    hint = words(behind) or f"{members} servers"
    questions.note("peers are current", bool(leader) and not behind, hint, critical=False)
    _streams(questions, answers.good)
    clients = [
        s for s in access.endpoints(STATEFULSET, members, CLIENT_PORT) if s.member in answers.good
    ]
    if clients and leader:
        with questions.check("message stored and read through another server") as answer:
            asyncio.run(_transaction(access, clients, members, answer))
    return Report(tuple(questions.checks), tuple(roles))


def settings_read(access: Access) -> dict[str, str]:
    """When each server last read its settings. A refused reload does not change the time (server/reload.go)."""
    monitors = access.endpoints(STATEFULSET, access.settings.components.nats.members, MONITOR_PORT)

    def ask_one(server: Endpoint) -> str:
        answer = access.http.get(f"http://{server.url}/varz").raise_for_status()
        return str(answer.json()["config_load_time"])

    return ask_members(monitors, ask_one).good


def _streams(questions: Round, servers: Mapping[str, Mapping[str, Any]]) -> None:
    """Check the streams. Each peer of a stream reports it; its leader also reports the replicas."""
    leaderless: dict[str, str] = {}
    trouble: dict[str, str] = {}
    for jsz in servers.values():
        for account in jsz.get("account_details") or []:
            for stream in account.get("stream_detail") or []:
                if is_probe(str(stream["name"])):  # it exists for a tenth of a second
                    continue
                name, cluster = f"{account['name']}/{stream['name']}", stream.get("cluster") or {}
                if not cluster.get("leader"):
                    leaderless.setdefault(name, "has no leader: a majority of its replicas is away")
                bad = [
                    f"{r['name']} {t}" for r in cluster.get("replicas") or [] if (t := _trouble(r))
                ]
                if bad and cluster.get("leader") == jsz.get("server_name", cluster.get("leader")):
                    trouble[name] = ", ".join(bad)
    # one server may learn of a leader late: a stream has none only if no server knows one
    with_leader = {
        f"{a['name']}/{s['name']}"
        for jsz in servers.values()
        for a in jsz.get("account_details") or []
        for s in a.get("stream_detail") or []
        if (s.get("cluster") or {}).get("leader")
    }
    without_leader = {
        name: problem for name, problem in leaderless.items() if name not in with_leader
    }
    questions.note("every stream has a leader", not without_leader, words(without_leader))
    questions.note("stream replicas are current", not trouble, words(trouble), critical=False)


async def _transaction(
    access: Access, servers: list[Endpoint], members: int, answer: Answer
) -> None:
    """Store a message through one server, read it through another, and remove the stream."""
    seconds, write_server, read_server = access.timeout_seconds, servers[0], servers[-1]
    forbidden: list[str] = []
    writer = await connect(access, [write_server], forbidden=forbidden.append)
    try:
        reader = await connect(access, [read_server])
        try:
            await _remove_old_probes(writer, seconds)
            async with _stream(writer, members, len(servers), forbidden) as name:
                intact = await _message_comes_back(writer, reader, name, seconds)
            hint = f"stored through {write_server.member}, read through {read_server.member}"
            answer.settle(
                intact,
                hint
                if intact
                else f"{read_server.member} returned another message than was stored",
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
    """The account's rule that refused the probe; "" if the failure has another cause."""
    if isinstance(exc, Refused) and exc.code in NOT_OURS:
        return f"{NOT_OURS[exc.code]}: {exc.reason}"
    return f"user {USER} does not have this permission: {forbidden[0]}" if forbidden else ""


@asynccontextmanager
async def _stream(
    client: Client, members: int, answering: int, forbidden: list[str]
) -> AsyncIterator[str]:
    """The stream of this round; it is deleted at the end.

    For 90 seconds after a server died, JetStream may choose it as the first leader of a new stream (`setPreferred`,
    server/jetstream_cluster.go). Such a stream has no leader for some seconds, so another one is created.
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
    """Create a stream on all servers, or on those that answer if JetStream already knows that others are down.

    Raises:
        SlowStream: the stream has no leader yet.
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
    """A stream that was just created has no leader."""


async def _message_comes_back(writer: Client, reader: Client, name: str, seconds: float) -> bool:
    token, subject = secrets.token_hex(8).encode(), f"{PROBE}.{name}"
    deadline = time.monotonic() + seconds
    while True:
        try:
            stored = await writer.jetstream(timeout=seconds).publish(subject, token)
            break
        except NoStreamResponseError:  # this server does not know the new stream yet
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(HEARD_PAUSE_SECONDS)
    request = {"seq": stored.seq}
    message = await call(reader, f"STREAM.MSG.GET.{name}", request, timeout=seconds)
    return b64decode(message["message"]["data"]) == token


async def _remove_old_probes(client: Client, seconds: float) -> None:
    """Delete streams of killed rounds: both their name and JetStream's own clock must say that they are old."""
    names = await listed(client, "STREAM.NAMES", "streams", timeout=seconds, matching=f"{PROBE}.>")
    for name in map(str, names):
        if not is_probe(name) or time.time() - _made_at(name) < PROBE_AGE_SECONDS:
            continue
        with suppress(Refused, Unanswered):  # another round deleted it first, or it has no leader
            stream = await call(client, f"STREAM.INFO.{name}", timeout=1.0)
            age = nanoseconds(stream["ts"]) - nanoseconds(stream["created"])
            if age > PROBE_AGE_SECONDS * 1_000_000_000:
                await call(client, f"STREAM.DELETE.{name}", timeout=seconds)


def _made_at(name: str) -> int:
    """Seconds since 1970, from the name of a round's stream; 0 for the stream that older versions shared."""
    stamp = name.removeprefix(PROBE).removeprefix("-").partition("-")[0]
    return int(stamp) if stamp.isascii() and stamp.isdigit() else 0


def _jetstream(access: Access, server: Endpoint) -> dict[str, Any]:
    query = "accounts=true&streams=true&config=true"
    answer = access.http.get(f"http://{server.url}/jsz?{query}")
    return {"server_name": server.member, **answer.raise_for_status().json()}


def _trouble(peer: Mapping[str, Any]) -> str:
    if peer.get("offline"):
        return "is offline"
    lag, silence = int(peer.get("lag", 0)), int(peer.get("active", 0))
    at_work = lag <= LAG_OPERATIONS and 0 < silence <= CONTACT_NANOSECONDS  # 0: no contact yet
    if not (peer.get("current") or at_work):
        return f"is {lag} operations behind"
    return ""


def _with_lag(role: Role, peers: Mapping[str, Mapping[str, Any]]) -> Role:
    peer = peers.get(role.member)
    return Role(role.member, role.role, f"{peer.get('lag', 0)} op") if peer else role
