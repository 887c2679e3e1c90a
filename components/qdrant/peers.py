"""The peers of the cluster: those that answer, and those that are only registered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from components.access import Access, Endpoint
from components.qdrant.client import PORT, STATEFULSET, get
from components.questions import ask_members, words
from errors import TemporaryError


@dataclass(frozen=True)
class Peers:
    """The peers of one cluster.

    Attributes:
        by_id: id → peer, for peers that answer.
        said: name → the peer's answer to `/cluster`.
        silent: name → why the peer does not answer.
    """

    by_id: dict[str, Endpoint]
    said: dict[str, dict[str, Any]]
    silent: dict[str, str]

    @property
    def first(self) -> Endpoint:
        """A peer that answers."""
        return next(iter(self.by_id.values()))

    @property
    def names(self) -> dict[str, str]:
        """Id → name, for peers that answer."""
        return {identity: peer.member for identity, peer in self.by_id.items()}

    @property
    def lost(self) -> dict[str, str]:
        """Id → address of registered peers that are not members. Qdrant still places shards on them
        (lib/storage/src/content_manager/toc/mod.rs: `known_peers`).
        """
        registered = {
            str(identity): str(peer["uri"])
            for answer in self.said.values()
            for identity, peer in answer["peers"].items()
        }
        return {identity: uri for identity, uri in registered.items() if identity not in self.by_id}


def without_consensus(answers: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Name → problem of peers whose consensus thread has ended (lib/storage/src/types.rs: `ConsensusThreadStatus`).

    Such a peer still serves points, but does not learn of changes to the cluster.

    Args:
        answers: name → the peer's answer to `/cluster`.
    """
    stopped = {}
    for name, answer in answers.items():
        thread = answer.get("consensus_thread_status") or {}
        state = str(thread.get("consensus_thread_status") or "working")
        if state != "working":
            why = f" ({thread['err']})" if thread.get("err") else ""
            stopped[name] = f"its consensus is {state}{why}: restart the peer"
    return stopped


def ask_peers(access: Access) -> Peers:
    """Ask all members for their view of the cluster. Those that do not answer are `silent`."""
    members = access.endpoints(STATEFULSET, access.settings.components.qdrant.members, PORT)
    answers = ask_members(members, lambda peer: get(access, peer, "/cluster"))
    by_name = {member.member: member for member in members}
    by_id = {str(answer["peer_id"]): by_name[name] for name, answer in answers.good.items()}
    return Peers(by_id, answers.good, answers.bad)


def some_peers(access: Access) -> Peers:
    """The peers, if at least one answers.

    Raises:
        TemporaryError: no peer answers.
    """
    peers = ask_peers(access)
    if not peers.by_id:
        raise TemporaryError(f"no peer of Qdrant answers: {words(peers.silent)}", delay=15)
    return peers


def all_peers(access: Access) -> Peers:
    """The peers, if all answer.

    Raises:
        TemporaryError: a peer does not answer.
    """
    peers = ask_peers(access)
    if peers.silent:
        raise TemporaryError(f"not every peer of Qdrant answers: {words(peers.silent)}", delay=15)
    return peers
