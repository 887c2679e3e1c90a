"""Qdrant: three peers under Raft, shards with two replicas.

What a real cluster of 1.16.3 says is not enough: with a peer killed `/readyz` stays 200, its replicas stay `Active` and
a leader is still named; only `message_send_failures` of `/cluster` shows it at once, and the first *write* turns its
replicas `Dead` (measured; the answers are in tests/integration/doubles). So the gate asks every peer, counts who can
send to whom, writes points to every shard of a collection of its own, and reads the states of replicas afterwards.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from components.access import Access, Endpoint
from components.base import Report, Role, Workload
from components.qdrant.client import PORT, STATEFULSET, call, get, replicas
from components.questions import PROBE, Round, ask_members, words
from config.models import Settings

REPLICATION = 2
# Enough that none of the shards gets none: with 3 shards the odds against it are 1 : 10^10.
POINTS = 64
SIZE = 4


def workloads(settings: Settings) -> tuple[Workload, ...]:
    """What must run for this component, as Kubernetes sees it."""
    return (Workload("StatefulSet", STATEFULSET, settings.components.qdrant.members),)


def ask(access: Access) -> Report:
    """Ask for peers that reach one another, points that travel at replication 2, and replicas that are active."""
    wanted = access.settings.components.qdrant.members
    peers = access.endpoints(STATEFULSET, wanted, PORT)
    questions = Round()
    answers = ask_members(peers, lambda peer: get(access, peer, "/cluster"))
    questions.checks.append(answers.check("peers answer"))
    alive = [peer for peer in peers if peer.member in answers.good]
    quorum = wanted // 2 + 1
    hint = f"{len(alive)} of {wanted} peers" + (
        "" if len(alive) >= quorum else f", {quorum} are needed to change anything"
    )
    questions.note("peers have a quorum", len(alive) >= quorum, hint)
    if not alive:
        return Report(tuple(questions.checks))
    names = {str(said["peer_id"]): name for name, said in answers.good.items()}
    unreached = _unreached(answers.good, names)
    questions.note("peers reach one another", not unreached, words(unreached), critical=False)
    absent = {
        n: f"knows {len(s['peers'])} of {wanted} peers"
        for n, s in answers.good.items()
        if len(s["peers"]) != wanted
    }
    questions.note("one cluster", not absent, words(absent), critical=False)
    with questions.check("points written and read through another peer") as answer:
        answer.settle(True, _transaction(access, alive[0], alive[-1], wanted))
    with questions.check("replicas are active", critical=False) as answer:
        trouble = _replicas(access, alive, names)
        answer.settle(not trouble, words(trouble))
    leader = str(next(iter(answers.good.values()))["raft_info"]["leader"])
    roles = [
        Role(name, "leader" if identity == leader else "follower")
        for identity, name in sorted(names.items(), key=lambda item: item[1])
    ]
    return Report(tuple(questions.checks), tuple(roles))


def _unreached(said: Mapping[str, Mapping[str, Any]], names: Mapping[str, str]) -> dict[str, str]:
    """Peers that others cannot send to, by name where one of the answers tells it."""
    found: dict[str, list[str]] = {}
    for sender, answer in said.items():
        by_uri = {peer["uri"]: identity for identity, peer in answer["peers"].items()}
        for uri in answer["message_send_failures"]:
            identity = by_uri.get(uri, "")
            found.setdefault(names.get(identity, uri), []).append(sender)
    return {
        peer: f"messages from {', '.join(sorted(by))} do not arrive"
        for peer, by in sorted(found.items())
    }


def _transaction(access: Access, writer: Endpoint, reader: Endpoint, shards: int) -> str:
    """Write points to all shards, read them elsewhere, delete them and what earlier rounds left."""
    base = f"/collections/{PROBE}"
    if not get(access, writer, f"{base}/exists")["exists"]:
        spec = {
            "vectors": {"size": SIZE, "distance": "Dot"},
            "shard_number": shards,
            "replication_factor": min(REPLICATION, shards),
            "write_consistency_factor": 1,
        }
        call(access, writer, "PUT", base, spec)
    token = secrets.token_hex(8)
    points = [
        {"id": number, "vector": [1.0] * SIZE, "payload": {"token": token}}
        for number in range(POINTS)
    ]
    call(access, writer, "PUT", f"{base}/points?wait=true", {"points": points})
    wanted = {"must": [{"key": "token", "match": {"value": token}}]}
    body = {"exact": True, "filter": wanted}
    found = call(access, reader, "POST", f"{base}/points/count", body)["count"]
    call(access, writer, "POST", f"{base}/points/delete?wait=true", {"points": list(range(POINTS))})
    if found != POINTS:
        raise RuntimeError(f"{reader.member} counts {found} of {POINTS} points")
    return f"{POINTS} points written through {writer.member}, read through {reader.member}"


def _replicas(access: Access, alive: list[Endpoint], names: Mapping[str, str]) -> dict[str, str]:
    """Replicas that are not active, and shards that have too few, over all collections."""
    trouble: dict[str, str] = {}
    first = alive[0]
    for entry in get(access, first, "/collections")["collections"]:
        collection = entry["name"]
        params = get(access, first, f"/collections/{collection}")["config"]["params"]
        active: dict[int, int] = {}
        for shard in replicas(access, first, collection):
            number, state = int(shard["shard_id"]), str(shard["state"])
            peer = str(shard["peer_id"])
            active.setdefault(number, 0)
            if state == "Active":
                active[number] += 1
            else:
                where = f"{collection}, shard {number} on {names.get(peer, f'peer {peer}')}"
                trouble[where] = f"is {state}: it catches up when its peer is back"
        copies = int(params["replication_factor"])
        for number, count in active.items():
            if count == 0:
                trouble[f"{collection}, shard {number}"] = (
                    "has no active replica: its points cannot be read"
                )
            elif count < copies and not any(f"{collection}, shard {number} " in t for t in trouble):
                trouble[f"{collection}, shard {number}"] = f"has {count} of {copies} replicas"
    return trouble
