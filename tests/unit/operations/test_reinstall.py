"""A rebuild is taken back to where it began, by whatever it was broken off, and no further."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cluster.pods import volumes
from errors import IsaError, PermanentError
from operations.rebuild import reinstall
from operations.runner.context import RunContext
from operations.state.rebuild_state import KEEP, NONE, Policy, RebuildState

from ..stored import NAMESPACE, Stored, environment_of

REBUILD = "rebuild-20260102t000000z-00ab"
CLAIMS = {"data-nats-0": "old-0", "data-nats-1": "old-1"}


class Broken(Exception):
    """What ends a process in the midst."""


@pytest.fixture
def kube() -> Stored:
    made = Stored()
    for claim, volume in CLAIMS.items():
        made.claim(claim, volume)
    return made


@pytest.fixture(autouse=True)
def helm(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What would be done by helm, and with the engine."""
    done: list[str] = []
    for name in ("uninstall", "install", "_open"):
        monkeypatch.setattr(reinstall, name, lambda *_, name=name: done.append(name))
    yield done


def put_aside(kube: Stored, rebuild: str, new: dict[str, str]) -> None:
    """What a rebuild does with the volumes that are in place."""
    volumes.put_aside(kube, kube.list("v1", "PersistentVolumeClaim"), "nats", rebuild)
    for claim, volume in new.items():
        kube.claim(claim, volume)


def undo(kube: Stored) -> tuple[str, ...]:
    return reinstall.undo(environment_of(kube), RunContext("test"), "nats")


def broken_off(kube: Stored, standing: RebuildState) -> None:
    """A rebuild that was killed."""
    with environment_of(kube).lease("isa-rebuild-nats", "test") as lease:
        lease.note(standing.text())


def test_the_old_volumes_are_back_and_the_newer_ones_gone(kube: Stored, helm: list[str]) -> None:
    put_aside(kube, "rebuild-1", {"data-nats-0": "new-0", "data-nats-1": "new-1"})
    assert sorted(undo(kube)) == ["old-0", "old-1"]
    assert kube.claims == CLAIMS
    assert kube.volumes == {"old-0": "Delete", "old-1": "Delete"}  # as they were
    assert volumes.aside(kube, "nats") == []
    assert helm == ["uninstall", "install", "_open"]
    with pytest.raises(PermanentError, match="nothing to undo"):
        undo(kube)


@pytest.mark.parametrize("policy", [Policy("nats"), Policy("nats", KEEP, NONE)])
def test_a_rebuild_that_has_moved_no_volume_is_not_undone_with_those_of_an_earlier_one(
    policy: Policy, kube: Stored, helm: list[str]
) -> None:
    put_aside(kube, "rebuild-1", {"data-nats-0": "new-0", "data-nats-1": "new-1"})
    broken_off(
        kube,
        RebuildState(REBUILD, policy, "nats-20260101T000500Z-0a1b2c", ["fence", "backup", "proof"]),
    )
    assert undo(kube) == ()
    assert kube.claims == {"data-nats-0": "new-0", "data-nats-1": "new-1"}
    assert [one.rebuild for one in volumes.aside(kube, "nats")] == ["rebuild-1"] * 2
    assert helm == ["install", "_open"]  # what runs is not taken down for it
    with environment_of(kube).lease("isa-rebuild-nats", "test") as lease:
        assert lease.previous_operation == ""  # another rebuild may begin


def test_an_undo_that_was_broken_off_goes_on(kube: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    for call in range(20):
        kube = Stored()
        for claim, volume in CLAIMS.items():
            kube.claim(claim, volume)
        put_aside(kube, "rebuild-1", {"data-nats-0": "new-0", "data-nats-1": "new-1"})
        volumes.mark_compared(kube, volumes.aside(kube, "nats"), "2026-01-01T00:00:00+00:00")
        before = len(kube.calls)

        def say(
            verb: str, kind: str, name: str, kube: Stored = kube, last: int = before + call
        ) -> None:
            if len(kube.calls) == last:
                raise Broken
            kube.calls.append(f"{verb} {kind} {name}")

        with monkeypatch.context() as patch:
            patch.setattr(kube, "_say", say)
            try:
                undo(kube)
                break
            except Broken:
                pass
        if call >= 4:  # two Leases, and a mark off each volume: they are not purged from then on
            assert reinstall.purge(environment_of(kube), RunContext("test"), "nats") == ()
        undo(kube)
        assert kube.claims == CLAIMS
        assert kube.volumes == {"old-0": "Delete", "old-1": "Delete"}
        assert volumes.aside(kube, "nats") == []
    else:
        pytest.fail("it never ended")


def test_only_what_was_compared_is_given_up(kube: Stored) -> None:
    put_aside(kube, "rebuild-1", {})
    platform = environment_of(kube)
    assert reinstall.purge(platform, RunContext("test"), "nats") == ()
    with pytest.raises(PermanentError, match="old-0"):
        volumes.release(kube, volumes.aside(kube, "nats"))
    volumes.mark_compared(kube, volumes.aside(kube, "nats"), "2026-01-01T00:00:00+00:00")
    with platform.lease("isa-rebuild-nats", "another") as lease:
        assert lease.name == "isa-rebuild-nats"
    assert [one.name for one in reinstall.purge(platform, RunContext("test"), "nats")] == [
        "old-0",
        "old-1",
    ]
    assert kube.volumes == {"old-0": "Delete", "old-1": "Delete"}


def test_every_volume_is_kept_before_the_first_claim_goes(kube: Stored) -> None:
    kube.claim("data-nats-2", "")  # its pod could never be scheduled
    volumes.put_aside(kube, kube.list("v1", "PersistentVolumeClaim"), "nats", "rebuild-1")
    patched = [n for n, call in enumerate(kube.calls) if call.startswith("patch PersistentVolume ")]
    deleted = [n for n, call in enumerate(kube.calls) if call.startswith("delete")]
    assert max(patched) < min(deleted)
    assert kube.claims == {}
    assert kube.volumes == {"old-0": "Retain", "old-1": "Retain"}


def test_a_run_that_slept_removes_no_claim_of_the_one_that_went_on(kube: Stored) -> None:
    slept = kube.list("v1", "PersistentVolumeClaim")
    put_aside(kube, "rebuild-1", {"data-nats-0": "new-0", "data-nats-1": "new-1"})
    with pytest.raises(IsaError, match="another uid"):
        volumes._delete(kube, slept[0])
    assert kube.claims == {"data-nats-0": "new-0", "data-nats-1": "new-1"}


def test_a_claim_whose_volume_is_gone_stops_it_before_anything_goes(kube: Stored) -> None:
    del kube.objects["PersistentVolume", "old-1"]
    with pytest.raises(IsaError, match=f"kubectl -n {NAMESPACE} delete pvc data-nats-1"):
        volumes.put_aside(kube, kube.list("v1", "PersistentVolumeClaim"), "nats", "rebuild-1")
    assert kube.claims == CLAIMS
