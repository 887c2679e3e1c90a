"""One holder at a time: who holds a Lease is known, who is gone does not block, who lost it stops."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from cluster.lease import API_VERSION, KIND, OPERATION, Lease, LeaseHeld, LeaseLost, identity

from .platform_tree import PlatformTree, until

NAME = "isa-nats"
Make = Callable[..., Lease]


@pytest.fixture
def lease(tree: PlatformTree) -> Make:
    """Make a lease of one name for several holders."""
    tree.make_namespaces()

    def make(holder: str | None = None, **options: object) -> Lease:
        arguments: dict[str, object] = {"purpose": "a test", "duration": 30.0, **options}
        return Lease(tree.kube, tree.control, NAME, holder=holder, **arguments)  # type: ignore[arg-type]

    return make


def test_a_second_holder_is_refused_and_told_who_holds_it_and_what_for(lease: Make) -> None:
    with (
        lease("other-host/1/1", purpose="backup nats"),
        pytest.raises(LeaseHeld) as refusal,
        lease("host/2/2"),
    ):
        pass
    assert refusal.value.holder == "other-host/1/1"
    assert "held by other-host/1/1 (backup nats) since 20" in str(refusal.value)


def test_a_released_lease_is_free_for_the_next_one(tree: PlatformTree, lease: Make) -> None:
    with lease("other-host/1/1"):
        assert tree.holder(NAME) == "other-host/1/1"
    assert tree.holder(NAME) == ""
    with lease("host/2/2"):
        assert tree.holder(NAME) == "host/2/2"


def test_a_lease_that_nobody_renews_is_taken_over_with_the_note_of_its_holder(
    tree: PlatformTree, lease: Make
) -> None:
    an_hour_ahead = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    tree.kube.create(
        {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {
                "name": NAME, "namespace": tree.control, "annotations": {OPERATION: "helm nats"},
            },
            "spec": {
                "holderIdentity": "other-host/1/1", "leaseDurationSeconds": 3,
                "acquireTime": an_hour_ahead, "renewTime": an_hour_ahead,
            },
        }
    )  # fmt: skip

    def taken() -> bool:
        try:
            with lease("host/2/2") as ours:
                return ours.previous_operation == "helm nats" and tree.holder(NAME) == "host/2/2"
        except LeaseHeld:
            return False

    until("the dead holder's lease is taken over", taken, seconds=60)


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_holder_whose_clock_is_wrong_keeps_the_lease_that_it_renews(
    lease: Make, hours: int
) -> None:
    alive = lease(
        "other-host/1/1", duration=3.0, now=lambda: datetime.now(UTC) + timedelta(hours=hours)
    )
    with alive:
        for _ in range(3):
            with pytest.raises(LeaseHeld), lease("host/2/2", duration=3.0):
                pass
        alive.ensure()


def test_the_lease_of_a_dead_process_of_this_machine_is_taken_at_once(
    tree: PlatformTree, lease: Make
) -> None:
    code = "from cluster.lease import identity; print(identity())"
    dead = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert dead.startswith(f"{socket.gethostname()}/")
    left = lease(dead)
    left.__enter__()
    with lease():
        assert tree.holder(NAME) == identity()
    left.__exit__(None, None, None)


def test_the_lease_of_a_live_process_of_this_machine_is_not_taken(lease: Make) -> None:
    with (
        subprocess.Popen(
            [sys.executable, "-c", "from cluster.lease import *; print(identity()); input()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
        lease(process.stdout.readline().strip() if process.stdout else ""),
        pytest.raises(LeaseHeld),
        lease(),
    ):
        pass


def test_a_holder_renews_for_as_long_as_it_lives(tree: PlatformTree, lease: Make) -> None:
    def renewed() -> str:
        return str((tree.lease(NAME) or {})["spec"]["renewTime"])

    with lease("other-host/1/1", duration=3.0):
        first = renewed()
        until("renewed", lambda: renewed() > first, seconds=10)


def test_who_lost_its_lease_notices_and_changes_nothing_more(
    tree: PlatformTree, lease: Make
) -> None:
    with lease("other-host/1/1", duration=3.0) as held:
        held.ensure()
        stolen = tree.lease(NAME)
        assert stolen is not None
        tree.kube.patch(stolen, {"spec": {"holderIdentity": "thief/1/1"}})

        def lost() -> bool:
            try:
                held.ensure()
            except LeaseLost as exc:
                return "lost to thief/1/1" in str(exc)
            return False

        until("the loss is noticed by renewing", lost, seconds=10)
        with pytest.raises(LeaseLost):
            held.note("helm nats")
    assert tree.holder(NAME) == "thief/1/1", "leaving does not release what is another's"


def test_a_deploy_whose_lease_is_taken_away_stops_before_its_next_change(
    tree: PlatformTree,
) -> None:
    tree.declare("nats", wait=False, annotations={"isa-cloud.io/never-ready": "true"})
    deploy = tree.start(
        "deploy", "--local", "--json", DEPLOY__LEASE_SECONDS="3", DEPLOY__GATE_TIMEOUT_SECONDS="8"
    )
    until("the gate waits", lambda: tree.status("nats") == "deployed")
    held = tree.lease(NAME)
    assert held is not None
    tree.kube.patch(held, {"spec": {"holderIdentity": "thief/1/1"}})
    ended = tree.end_of(deploy)
    assert ended.code == 1
    assert (
        "was lost to thief/1/1: this run makes no further changes" in ended.node("nats")["reason"]
    )
    assert tree.status("nats") == "deployed", "nothing was undone under somebody else's hands"
