"""Who renews keeps its lease, and who is dead blocks nobody for long, whatever any clock but the waiting one says."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import pytest

from cluster.kube import Conflict, Manifest
from cluster.lease import Lease, LeaseHeld, LeaseLost, identity, machine

DURATION = 30.0
START = datetime(2026, 1, 1, tzinfo=UTC)
NAME = "isa-nats"


class Server:
    """An API server with one lease and a clock; others do what they do while somebody sleeps.

    As the real one does, it notes the time of each write in `managedFields`, and refuses a stale resourceVersion
    (apimachinery/pkg/util/managedfields, registry/generic/registry/store.go).
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.lease: Manifest | None = None
        self.others: list[Callable[[], None]] = []
        self.writes = 0

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        for other in self.others:
            other()

    def get(self, *_: object) -> Manifest | None:
        return deepcopy(self.lease)

    def apply(self, lease: Manifest, *, manager: str) -> Manifest:
        """Merges: what another manager owns, the holder, stays."""
        assert "spec" not in lease
        return self._written({"spec": {}, **lease} if self.lease is None else self.lease)

    def replace(self, lease: Manifest) -> Manifest:
        assert self.lease is not None
        if lease["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise Conflict("it was changed")
        return self._written(lease)

    def _written(self, lease: Manifest) -> Manifest:
        self.writes += 1
        self.lease = deepcopy(lease)
        self.lease["metadata"]["resourceVersion"] = str(self.writes)
        stamp = self.now().strftime("%Y-%m-%dT%H:%M:%SZ")
        self.lease["metadata"]["managedFields"] = [{"manager": "isa", "time": stamp}]
        return self.lease

    @property
    def holder(self) -> str:
        return str((self.lease or {})["spec"]["holderIdentity"])


@pytest.fixture
def server() -> Server:
    return Server()


def lease(server: Server, holder: str | None = None, ahead: float = 0.0, **more: Any) -> Lease:
    """A lease of a holder whose wall clock is so many seconds ahead of the server's."""
    options: dict[str, Any] = {
        "purpose": "a test",
        "duration": DURATION,
        "holder": holder,
        "now": lambda: server.now() + timedelta(seconds=ahead),
        "clock": lambda: server.seconds,
        "sleep": server.sleep,
        **more,
    }
    return Lease(server, "control", NAME, **options)  # type: ignore[arg-type]


def died(server: Server, holder: str = "elsewhere/1/1", ahead: float = 0.0) -> Lease:
    """A holder that took the lease and never renews it."""
    gone = lease(server, holder, ahead)
    gone.take()
    return gone


def renewing(server: Server, every: float, ahead: float = 0.0) -> Lease:
    """A holder that renews while others sleep."""
    alive = died(server, ahead=ahead)
    last = [server.seconds]

    def renew() -> None:
        if server.seconds - last[0] >= every:
            last[0] = server.seconds
            alive.note("at work")

    server.others.append(renew)
    return alive


@pytest.mark.parametrize(
    "ahead", [-3600.0, -45.0, 0.0, 45.0, 3600.0], ids=lambda s: f"{s:.0f}s ahead"
)
@pytest.mark.parametrize(
    "skew", [-3600.0, 0.0, 45.0, 3600.0], ids=lambda s: f"taker {s:.0f}s ahead"
)
def test_a_lease_that_is_renewed_is_never_taken(server: Server, ahead: float, skew: float) -> None:
    renewing(server, every=DURATION / 3, ahead=ahead)
    for _ in range(5):
        server.sleep(7)
        with pytest.raises(LeaseHeld), lease(server, "here/2/2", skew):
            pass
    assert server.holder == "elsewhere/1/1"


def test_a_holder_that_renews_as_late_as_it_may_keeps_its_lease(server: Server) -> None:
    renewing(server, every=DURATION - 1)
    for _ in range(60):
        server.sleep(1)
        with pytest.raises(LeaseHeld), lease(server, "here/2/2"):
            pass


@pytest.mark.parametrize("ahead", [-3600.0, 0.0, 3600.0], ids=lambda s: f"{s:.0f}s ahead")
def test_a_dead_holder_blocks_nobody_for_more_than_the_duration_of_watching(
    server: Server, ahead: float
) -> None:
    died(server, ahead=ahead)
    server.sleep(DURATION + 1)
    began = server.seconds
    with lease(server, "here/2/2"):
        assert server.holder == "here/2/2"
    assert server.seconds - began <= DURATION + 2


def test_who_asks_again_and_again_gets_a_dead_holders_lease_within_twice_the_duration(
    server: Server,
) -> None:
    died(server, ahead=3600)
    while True:
        try:
            with lease(server, "here/2/2"):
                break
        except LeaseHeld:
            server.sleep(5)
    assert server.seconds <= 2 * DURATION + 10


def test_what_was_renewed_a_moment_ago_is_refused_at_once(server: Server) -> None:
    died(server)
    server.sleep(5)
    began = server.seconds
    with pytest.raises(LeaseHeld, match="held by elsewhere/1/1"), lease(server, "here/2/2"):
        pass
    assert server.seconds == began


def test_a_lease_that_is_released_while_we_watch_is_ours(server: Server) -> None:
    gone = died(server)
    server.sleep(DURATION + 1)
    server.others.append(
        lambda: gone.__exit__(None, None, None) if server.holder == "elsewhere/1/1" else None
    )
    began = server.seconds
    with lease(server, "here/2/2"):
        assert server.holder == "here/2/2"
    assert server.seconds - began < DURATION


def test_an_api_server_that_is_away_is_away_for_the_holder_too(server: Server) -> None:
    alive = died(server)
    server.sleep(DURATION + 1)
    away = [False]

    def outage() -> None:
        if not away[0]:
            away[0] = True
            server.seconds += 2 * DURATION
        elif server.seconds > 3 * DURATION + 9:
            alive.note("at work")

    server.others.append(outage)
    with pytest.raises(LeaseHeld), lease(server, "here/2/2"):
        pass
    assert server.holder == "elsewhere/1/1"


def test_of_two_that_watch_one_gets_it(server: Server) -> None:
    died(server)
    server.sleep(DURATION + 1)

    def faster() -> None:
        if server.seconds > 2 * DURATION and server.holder == "elsewhere/1/1":
            document = server.get("coordination.k8s.io/v1", "Lease", NAME, "control")
            assert document is not None
            document["spec"]["holderIdentity"] = "rival/3/3"
            server.replace(document)

    server.others.append(faster)
    with pytest.raises(LeaseHeld), lease(server, "here/2/2"):
        pass
    assert server.holder == "rival/3/3"


def test_of_two_that_make_it_at_the_same_time_one_gets_it(server: Server) -> None:
    first, second = lease(server, "elsewhere/1/1"), lease(server, "elsewhere/2/2")
    unseen = server.get

    def nothing_there(*_: object) -> None:
        server.get = unseen  # type: ignore[method-assign]

    first.take()
    server.get = nothing_there  # type: ignore[method-assign]
    with pytest.raises(LeaseHeld):
        second.take()
    assert server.holder == "elsewhere/1/1"


def test_the_note_of_a_dead_holder_is_handed_on(server: Server) -> None:
    died(server).note("helm nats")
    server.sleep(DURATION + 1)
    with lease(server, "here/2/2") as taken:
        assert taken.previous_operation == "helm nats"


# ---------------------------------------------------------------------- who is dead here
@cache
def dead_process() -> str:
    """Identity of a process of this machine that has ended."""
    code = "from cluster.lease import identity; print(identity())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_process_of_this_machine_that_has_ended_is_not_waited_for(server: Server) -> None:
    died(server, dead_process())
    with lease(server):
        assert server.holder == identity()
    assert server.seconds == 0


@pytest.mark.parametrize("machine_of_holder", ["another-machine", ""])
def test_a_process_number_of_another_machine_or_container_says_nothing(
    server: Server, machine_of_holder: str
) -> None:
    host, pid, start, _ = dead_process().split("/")
    died(server, f"{host}/{pid}/{start}/{machine_of_holder}")
    with pytest.raises(LeaseHeld), lease(server):
        pass


@pytest.mark.parametrize("pid", ["0", "²", "9" * 5000, "-1"], ids=range(4))
def test_a_process_number_that_is_none_says_nothing(server: Server, pid: str) -> None:
    died(server, f"here/{pid}/1/{machine()}")
    with pytest.raises(LeaseHeld), lease(server):
        pass


def test_what_another_holder_wrote_is_told_in_a_short_sentence(server: Server) -> None:
    died(server, "x" * 100_000)
    with pytest.raises(LeaseHeld) as caught, lease(server):
        pass
    assert len(str(caught.value)) < 1000


def test_a_holder_of_the_format_before_is_waited_for(server: Server) -> None:
    died(server, "/".join(dead_process().split("/")[:3]))
    with pytest.raises(LeaseHeld), lease(server):
        pass


def test_a_live_process_of_this_machine_keeps_its_lease(server: Server) -> None:
    died(server, identity())
    with pytest.raises(LeaseHeld), lease(server, "other/1/1/x"):
        pass


def test_another_users_process_is_not_dead(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, signal: int) -> None:
        raise PermissionError

    host, _, start, where = identity().split("/")
    died(server, f"{host}/999999999/{start}/{where}")
    monkeypatch.setattr(os, "kill", refuse)
    with pytest.raises(LeaseHeld), lease(server):
        pass


def test_every_process_of_this_container_says_the_same_machine() -> None:
    assert machine()
    assert dead_process().endswith(f"/{machine()}")


# ---------------------------------------------------------------------- the holder's own view
def test_a_holder_that_could_not_renew_in_time_asks_before_its_next_change(server: Server) -> None:
    held = died(server)
    server.sleep(DURATION + 1)
    with lease(server, "here/2/2"), pytest.raises(LeaseLost, match="lost to here/2/2"):
        held.ensure()


def test_a_holder_whose_renewal_was_late_but_whose_lease_nobody_took_goes_on(
    server: Server,
) -> None:
    held, before = died(server), server.writes
    server.sleep(DURATION + 1)
    held.ensure()
    assert server.writes == before + 1, "it was renewed"
