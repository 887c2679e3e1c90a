"""The gate of Qdrant: three peers under Raft, shards with two replicas.

The cluster's own status is not enough. After a peer is killed, `/readyz` stays 200, its replicas stay `Active`, and a
leader is still named. Only `message_send_failures` of `/cluster` shows it at once. The first *write* turns its replicas
`Dead` (measured; the answers are in tests/integration/doubles).

So the gate asks every peer, checks which peers reach each other, writes points to every shard of its own collection,
and then reads the states of replicas. It asks every peer for them: a peer whose consensus has ended reports old states.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cluster.command import CANCELLATION
from components.access import Access, Endpoint
from components.base import Report, Role, Workload
from components.qdrant.client import (
    PORT,
    STATEFULSET,
    Gone,
    Refused,
    get,
    names,
    path_of,
    replicas,
)
from components.qdrant.peers import without_consensus
from components.qdrant.probe import transact
from components.questions import Round, ask_members, words
from config.models import Settings

SECOND_LOOK_SECONDS = 1.0


def workloads(settings: Settings) -> tuple[Workload, ...]:
    """The workloads of this component in Kubernetes."""
    return (Workload("StatefulSet", STATEFULSET, settings.components.qdrant.members),)


def ask(access: Access) -> Report:
    """Check that peers reach one another, points through two peers, and all collections with their replicas."""
    members = access.settings.components.qdrant.members
    endpoints = access.endpoints(STATEFULSET, members, PORT)
    questions = Round()
    answers = ask_members(endpoints, lambda peer: get(access, peer, "/cluster"))
    questions.checks.append(answers.check("peers answer"))
    alive = [peer for peer in endpoints if peer.member in answers.good]
    quorum = members // 2 + 1
    hint = f"{len(alive)} of {members} peers" + (
        "" if len(alive) >= quorum else f", {quorum} are needed for any change"
    )
    questions.note("peers have a quorum", len(alive) >= quorum, hint)
    if not alive:
        return Report(tuple(questions.checks))
    names_of = {str(view["peer_id"]): name for name, view in answers.good.items()}
    unreached = _unreached(answers.good, names_of)
    questions.note("peers reach one another", not unreached, words(unreached), critical=False)
    absent = {
        n: f"knows {len(s['peers'])} of {members} peers"
        for n, s in answers.good.items()
        if len(s["peers"]) != members
    }
    questions.note("one cluster", not absent, words(absent), critical=False)
    stopped = without_consensus(answers.good)
    no_quorum = len(alive) - len(stopped) < quorum
    questions.note("peers take part in consensus", not stopped, words(stopped), critical=no_quorum)
    with questions.check("points written and read through another peer") as answer:
        answer.settle(True, transact(access, alive[0], alive[-1], members, names_of))
    with questions.check("collections and replicas asked", critical=False) as answer:
        broken, inactive = _collections(access, alive, names_of)
        answer.settle(True)
        questions.note("collections are in order", not broken, words(broken), critical=False)
        questions.note("replicas are active", not inactive, words(inactive), critical=False)
    leader = str(next(iter(answers.good.values()))["raft_info"]["leader"])
    roles = [
        Role(name, "leader" if identity == leader else "follower")
        for identity, name in sorted(names_of.items(), key=lambda item: item[1])
    ]
    return Report(tuple(questions.checks), tuple(roles))


def _unreached(
    answers: Mapping[str, Mapping[str, Any]], names: Mapping[str, str]
) -> dict[str, str]:
    """Peers that others cannot send messages to: name (or address) → problem."""
    senders: dict[str, list[str]] = {}
    for sender, answer in answers.items():
        by_uri = {peer["uri"]: identity for identity, peer in answer["peers"].items()}
        for uri in answer["message_send_failures"]:
            identity = by_uri.get(uri, "")
            senders.setdefault(names.get(identity, uri), []).append(sender)
    return {
        peer: f"messages from {', '.join(sorted(names))} do not arrive"
        for peer, names in sorted(senders.items())
    }


def _collections(
    access: Access, alive: list[Endpoint], names_of: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Broken collections, and replicas that are missing or not active, as reported by any peer.

    Clients create and drop collections all the time, and such a collection has no state yet. So only problems that two
    looks in a row report are returned.
    """
    first_look = _look(access, alive, names_of)
    if not any(first_look):
        return first_look
    CANCELLATION.sleep(SECOND_LOOK_SECONDS)
    broken, inactive = _look(access, alive, names_of)
    return (
        {name: why for name, why in broken.items() if name in first_look[0]},
        {name: why for name, why in inactive.items() if name in first_look[1]},
    )


def _look(
    access: Access, alive: list[Endpoint], names_of: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    broken: dict[str, str] = {}
    inactive: dict[str, str] = {}
    answers = ask_members(alive, lambda peer: _view(access, peer, names_of))
    for name, (collections, replicas_found) in answers.good.items():
        broken |= {item: f"{why} ({name} reports)" for item, why in collections.items()}
        for item, why in replicas_found.items():
            inactive.setdefault(item, why)
    # a peer that refuses the request; the collection that causes it may differ between two looks
    broken |= {f"collections on {name}": why for name, why in answers.bad.items()}
    return broken, inactive


def _view(
    access: Access, peer: Endpoint, names_of: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """One peer's report on all collections."""
    broken: dict[str, str] = {}
    inactive: dict[str, str] = {}
    for collection in names(access, peer):
        try:
            described = get(access, peer, path_of(collection))
            copies = replicas(access, peer, collection)
        except Gone:
            continue
        except Refused as exc:  # 500 while a collection is being dropped
            broken[f"collection {collection}"] = f"does not answer: {exc}"
            continue
        if described["status"] == "red":
            error = described.get("optimizer_status")
            error = error.get("error") if isinstance(error, dict) else error
            broken[f"collection {collection}"] = f"is red: {error}"
        replication = int(described["config"]["params"]["replication_factor"])
        inactive |= _inactive(collection, copies, replication, names_of)
    return broken, inactive


def _inactive(
    collection: str, copies: list[dict[str, Any]], replication: int, names_of: Mapping[str, str]
) -> dict[str, str]:
    """Replicas of a collection that are not active, and shards with too few replicas."""
    trouble: dict[str, str] = {}
    by_shard: dict[int, list[str]] = {}
    for copy in copies:
        number, state, peer = int(copy["shard_id"]), str(copy["state"]), str(copy["peer_id"])
        by_shard.setdefault(number, []).append(state)
        if state != "Active":
            replica = f"{collection}, shard {number} on {names_of.get(peer, f'peer {peer}')}"
            trouble[replica] = f"is {state}: it catches up when its peer is back"
    for number, states in by_shard.items():
        active = states.count("Active")
        if not active:
            trouble[f"{collection}, shard {number}"] = (
                "has no active replica: its points cannot be read"
            )
        elif active < replication and active == len(states):
            trouble[f"{collection}, shard {number}"] = (
                f"has {active} of {replication} replicas: add one (replicate_shard, POST …/cluster)"
            )
    return trouble
