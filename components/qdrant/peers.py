"""Which peers of the cluster answer, and which it only remembers."""

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
        by_id: those that answer, by their ids.
        said: what each of these says of the cluster, by its name.
        silent: name → why it does not answer.
    """

    by_id: dict[str, Endpoint]
    said: dict[str, dict[str, Any]]
    silent: dict[str, str]

    @property
    def first(self) -> Endpoint:
        """One that answers."""
        return next(iter(self.by_id.values()))

    @property
    def names(self) -> dict[str, str]:
        """Id → name, of those that answer."""
        return {identity: peer.member for identity, peer in self.by_id.items()}

    @property
    def lost(self) -> dict[str, str]:
        """Id → address of peers that the cluster still counts as its own and that are none of the members: it places
        shards on them all the same (lib/storage/src/content_manager/toc/mod.rs: `known_peers`).
        """
        known = {
            str(identity): str(peer["uri"])
            for answer in self.said.values()
            for identity, peer in answer["peers"].items()
        }
        return {identity: uri for identity, uri in known.items() if identity not in self.by_id}


def without_consensus(said: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Name → why a peer takes part in no change of the cluster: its consensus thread has ended
    (lib/storage/src/types.rs: `ConsensusThreadStatus`). It still serves points.

    Args:
        said: what each peer says of the cluster, by its name.
    """
    found = {}
    for name, answer in said.items():
        thread = answer.get("consensus_thread_status") or {}
        state = str(thread.get("consensus_thread_status") or "working")
        if state != "working":
            why = f" ({thread['err']})" if thread.get("err") else ""
            found[name] = f"its consensus is {state}{why}: restart the peer"
    return found


def ask_peers(access: Access) -> Peers:
    """Ask all members for the cluster as they see it; those that do not answer are `silent`."""
    members = access.endpoints(STATEFULSET, access.settings.components.qdrant.members, PORT)
    answers = ask_members(members, lambda peer: get(access, peer, "/cluster"))
    by_name = {member.member: member for member in members}
    by_id = {str(said["peer_id"]): by_name[name] for name, said in answers.good.items()}
    return Peers(by_id, answers.good, answers.bad)


def some_peers(access: Access) -> Peers:
    """The peers, of which at least one answers.

    Raises:
        TemporaryError: none does.
    """
    peers = ask_peers(access)
    if not peers.by_id:
        raise TemporaryError(f"no peer of Qdrant answers: {words(peers.silent)}", delay=15)
    return peers


def all_peers(access: Access) -> Peers:
    """The peers, all of which answer.

    Raises:
        TemporaryError: one does not.
    """
    peers = ask_peers(access)
    if peers.silent:
        raise TemporaryError(f"not every peer of Qdrant answers: {words(peers.silent)}", delay=15)
    return peers
