"""The cluster's state. Changes from all peers are applied one after another.

The state is a register kept by a majority of the peers, as in CASPaxos (https://arxiv.org/abs/1802.07000). A change
asks a majority for a promise and for their states, edits the newest one, and is complete when a majority has accepted
it. Any two majorities share a peer, so later changes see it. There is no leader, and a cluster of one peer is its own
majority. The real server runs Raft; clients see no difference.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from sandbox.doubles.qdrant.errors import NoConsensus, Refused
from sandbox.doubles.qdrant.peers.network import Network
from sandbox.machine.paths import write_atomic

State = dict[str, Any]
Edit = Callable[[State], None]
PATIENCE_SECONDS = 10.0
# Number of changes that the state records: a proposer must recognise its change after another one completed it.
REMEMBERED = 64


class Acceptor:
    """The promises and accepted states of this peer, on disk.

    Args:
        file: the file.
        start: a state that is known to be accepted, if the file does not exist.
    """

    def __init__(self, file: Path, start: State) -> None:
        self._file = file
        self._lock = threading.Lock()
        # without a file the known state counts as accepted: a peer that lost its disk must not outvote it
        self.promised: list[Any] = start.get("ballot", [0, ""])
        self.taken: list[Any] = self.promised
        self.state = start
        if file.exists():
            kept = json.loads(file.read_text(encoding="utf-8"))
            self.promised, self.taken, self.state = (
                kept["promised"],
                kept["taken"],
                kept["state"],
            )

    def prepare(self, ballot: list[Any]) -> dict[str, Any]:
        """Promise a ballot, unless a later one was promised."""
        with self._lock:
            good = ballot > self.promised
            if good:
                self.promised = ballot
                self._keep()
            return {
                "good": good,
                "promised": self.promised,
                "taken": self.taken,
                "state": self.state,
            }

    def accept(self, ballot: list[Any], state: State) -> dict[str, Any]:
        """Accept a ballot's state, unless a later ballot was promised."""
        with self._lock:
            good = ballot >= self.promised
            if good:
                self.promised, self.taken, self.state = ballot, ballot, state
                self._keep()
            return {"good": good, "promised": self.promised}

    def _keep(self) -> None:
        kept = {"promised": self.promised, "taken": self.taken, "state": self.state}
        write_atomic(self._file, json.dumps(kept))


class Consensus:
    """Changes of the state.

    Args:
        network: the other peers.
        acceptor: this peer's acceptor.
        learned: called with an accepted state.
    """

    def __init__(
        self, network: Network, acceptor: Acceptor, learned: Callable[[State], None]
    ) -> None:
        self.acceptor = acceptor
        self._network = network
        self._learned = learned
        self._turn = threading.Lock()  # changes of this peer do not compete
        self._highest = 0

    def change(self, edit: Edit | None = None) -> None:
        """Change the state. Without an edit, make sure that the newest state is accepted.

        Args:
            edit: changes the given state; called again if another change was first. It may refuse.

        Raises:
            NoConsensus: no majority can be reached.
            Refused: what `edit` raised.
        """
        name = uuid4().hex
        deadline = time.monotonic() + PATIENCE_SECONDS
        with self._turn:
            while not self._attempt(name, edit):
                if time.monotonic() > deadline:
                    raise NoConsensus
                # after a conflict wait longer than a round takes, for a random time
                time.sleep(random.uniform(0.005, 0.06))

    def _attempt(self, name: str, edit: Edit | None) -> bool:
        self._highest = max(self._highest, self.acceptor.promised[0]) + 1
        ballot = [self._highest, self._network.me.name]
        promises = self._everyone("prepare", {"ballot": ballot})
        if not self._agreed(promises):
            return False
        newest = max(promises, key=lambda p: (p["good"], p["taken"], p["state"]["version"]))
        state: State = json.loads(json.dumps(newest["state"]))
        refusal: Refused | None = None
        if edit and name not in state.get("changes", ()):
            try:
                edit(state)
            except Refused as refused:
                # the state that caused the refusal may be accepted in part only: complete it before refusing
                refusal, state = refused, dict(newest["state"])
            else:
                state["version"] += 1
                state["changes"] = [*state.get("changes", ()), name][-REMEMBERED:]
        state["ballot"] = ballot
        if not self._agreed(self._everyone("accept", {"ballot": ballot, "state": state})):
            return False
        self._learned(state)
        for other in self._network.others():
            if other.uri not in self._network.failures:
                self._network.call(other, "PUT", "meta", state)
        if refusal:
            raise refusal
        return True

    def _everyone(self, question: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        """Answers of at least a majority.

        Raises:
            NoConsensus: fewer answered.
        """
        mine = self.acceptor.prepare if question == "prepare" else self.acceptor.accept
        answers = [mine(**body)]
        away = self._network.failures
        for other in sorted(self._network.others(), key=lambda o: o.uri in away):
            if other.uri in away and len(answers) >= self._network.quorum:
                continue  # silent peers are asked only if a majority needs them
            said = self._network.call(other, "POST", question, body)
            if said is not None and said.status_code == 200:
                answers.append(said.json())
        if len(answers) < self._network.quorum:
            raise NoConsensus
        return answers

    def _agreed(self, answers: list[dict[str, Any]]) -> bool:
        self._highest = max(self._highest, *(int(a["promised"][0]) for a in answers))
        return sum(bool(a["good"]) for a in answers) >= self._network.quorum
