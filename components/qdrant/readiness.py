"""Qdrant: three peers under Raft, shards with two replicas.

What a real cluster says of itself is not enough: with a peer killed `/readyz` stays 200, its replicas stay `Active` and
a leader is still named; only `message_send_failures` of `/cluster` shows it at once, and the first *write* turns its
replicas `Dead` (measured; the answers are in tests/integration/doubles). So the gate asks every peer, counts who can
send to whom, writes points to every shard of a collection of its own, and reads the states of replicas afterwards: as
every peer sees them, for one whose consensus has ended knows nothing of a change.
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
    """What must run for this component, as Kubernetes sees it."""
    return (Workload("StatefulSet", STATEFULSET, settings.components.qdrant.members),)


def ask(access: Access) -> Report:
    """Ask for peers that reach one another, points that travel at replication 2, and collections that are whole."""
    wanted = access.settings.components.qdrant.members
    endpoints = access.endpoints(STATEFULSET, wanted, PORT)
    questions = Round()
    answers = ask_members(endpoints, lambda peer: get(access, peer, "/cluster"))
    questions.checks.append(answers.check("peers answer"))
    alive = [peer for peer in endpoints if peer.member in answers.good]
    quorum = wanted // 2 + 1
    hint = f"{len(alive)} of {wanted} peers" + (
        "" if len(alive) >= quorum else f", {quorum} are needed for any change"
    )
    questions.note("peers have a quorum", len(alive) >= quorum, hint)
    if not alive:
        return Report(tuple(questions.checks))
    names_of = {str(said["peer_id"]): name for name, said in answers.good.items()}
    unreached = _unreached(answers.good, names_of)
    questions.note("peers reach one another", not unreached, words(unreached), critical=False)
    absent = {
        n: f"knows {len(s['peers'])} of {wanted} peers"
        for n, s in answers.good.items()
        if len(s["peers"]) != wanted
    }
    questions.note("one cluster", not absent, words(absent), critical=False)
    stopped = without_consensus(answers.good)
    without = len(alive) - len(stopped) < quorum
    questions.note("peers take part in consensus", not stopped, words(stopped), critical=without)
    with questions.check("points written and read through another peer") as answer:
        answer.settle(True, transact(access, alive[0], alive[-1], wanted, names_of))
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


def _collections(
    access: Access, alive: list[Endpoint], names_of: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Collections that are broken, and replicas that are missing or not active, as any of the peers sees them.

    Clients make and drop collections all the time, and one that is on its way in or out has no state yet: so what is
    wrong is looked at twice, and what is wrong both times is told.
    """
    first = _look(access, alive, names_of)
    if not any(first):
        return first
    CANCELLATION.sleep(SECOND_LOOK_SECONDS)
    broken, inactive = _look(access, alive, names_of)
    return (
        {what: why for what, why in broken.items() if what in first[0]},
        {what: why for what, why in inactive.items() if what in first[1]},
    )


def _look(
    access: Access, alive: list[Endpoint], names_of: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    broken: dict[str, str] = {}
    inactive: dict[str, str] = {}
    answers = ask_members(alive, lambda peer: _view(access, peer, names_of))
    for name, (collections, replicas_found) in answers.good.items():
        broken |= {what: f"{why} ({name} reports)" for what, why in collections.items()}
        for what, why in replicas_found.items():
            inactive.setdefault(what, why)
    # one that was asked for its own view and refuses: another collection may be the reason each time
    broken |= {f"collections on {name}": why for name, why in answers.bad.items()}
    return broken, inactive


def _view(
    access: Access, peer: Endpoint, names_of: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """What one peer says of all collections."""
    broken: dict[str, str] = {}
    inactive: dict[str, str] = {}
    for collection in names(access, peer):
        try:
            described = get(access, peer, path_of(collection))
            copies = replicas(access, peer, collection)
        except Gone:
            continue
        except Refused as exc:  # 500 for one that is being dropped
            broken[f"collection {collection}"] = f"does not answer: {exc}"
            continue
        if described["status"] == "red":
            error = described.get("optimizer_status")
            error = error.get("error") if isinstance(error, dict) else error
            broken[f"collection {collection}"] = f"is red: {error}"
        wanted = int(described["config"]["params"]["replication_factor"])
        inactive |= _inactive(collection, copies, wanted, names_of)
    return broken, inactive


def _inactive(
    collection: str, copies: list[dict[str, Any]], wanted: int, names_of: Mapping[str, str]
) -> dict[str, str]:
    """Replicas of a collection that are not active, and shards that have too few."""
    trouble: dict[str, str] = {}
    by_shard: dict[int, list[str]] = {}
    for copy in copies:
        number, state, peer = int(copy["shard_id"]), str(copy["state"]), str(copy["peer_id"])
        by_shard.setdefault(number, []).append(state)
        if state != "Active":
            where = f"{collection}, shard {number} on {names_of.get(peer, f'peer {peer}')}"
            trouble[where] = f"is {state}: it catches up when its peer is back"
    for number, states in by_shard.items():
        active = states.count("Active")
        if not active:
            trouble[f"{collection}, shard {number}"] = (
                "has no active replica: its points cannot be read"
            )
        elif active < wanted and active == len(states):
            trouble[f"{collection}, shard {number}"] = (
                f"has {active} of {wanted} replicas: add one (replicate_shard, POST …/cluster)"
            )
    return trouble
