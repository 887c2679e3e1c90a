"""While a rebuild has not brought its data back, nobody takes the empty engine for the real one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from operations.backup import nightly as backups
from operations.backup.component import COMPLETE, FAILED, BackupResult
from operations.backup.nightly import run_backups
from operations.environment.environment import Environment
from operations.restore.restore import run_restores
from operations.runner.context import RunContext
from operations.runner.threads import threads
from operations.state.rebuild_state import NONE, Policy, RebuildState
from tests.environments import environment_with

from ..stored import Stored, environment_of, settings_of

REBUILD, SET = "rebuild-20260101t000000z-00ab", "nats-20260101T000500Z-0a1b2c"
GONE = ["fence", "backup", "proof", "uninstall", "volumes"]


@pytest.fixture
def kube() -> Stored:
    return Stored()


def stored_environment(kube: Stored) -> Environment:
    settings = settings_of(
        backup=SimpleNamespace(max_parallel=1),
        verify=SimpleNamespace(max_parallel=1),
    )
    return environment_with(settings, kube=kube, verify_identity=str)


@pytest.mark.parametrize(
    ("standing", "outcome"),
    [
        (RebuildState(REBUILD, Policy("nats"), SET, GONE), FAILED),
        (RebuildState(REBUILD, Policy("nats"), SET, [*GONE, "install"]), FAILED),
        # it holds its data, and more: clients have written since
        (RebuildState(REBUILD, Policy("nats"), SET, GONE, replaced=True), COMPLETE),
        # its uninstall did not end: the engine may be in service as before
        (RebuildState(REBUILD, Policy("nats"), SET, GONE[:3]), COMPLETE),
        (RebuildState(REBUILD, Policy("nats", "new", NONE), "", GONE), COMPLETE),
        (RebuildState(REBUILD, Policy("nats", "keep", NONE), "", GONE), COMPLETE),
    ],
)
def test_no_night_stores_a_set_of_an_engine_that_waits_for_its_data(
    standing: RebuildState, outcome: str, kube: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    with environment_of(kube).lease("isa-rebuild-nats", "test") as lease:
        lease.note(standing.text())
    monkeypatch.setattr(backups, "check_store", lambda environment: None)
    monkeypatch.setattr(
        backups,
        "back_up",
        lambda environment, context, name, *_, **__: BackupResult(name, COMPLETE, "a-set"),
    )
    with threads(1, 1) as start:
        report = run_backups(
            stored_environment(kube), RunContext("t"), only=["nats", "redis"], slot="", start=start
        )
    found = {one.component: one for one in report.backups}
    assert found["nats"].outcome == outcome
    assert found["redis"].outcome == COMPLETE
    assert ("rebuild undo" in found["nats"].reason) == (outcome == FAILED)


def test_nothing_is_restored_into_what_is_being_rebuilt(kube: Stored) -> None:
    manifest = SimpleNamespace(id=SET, component="nats")
    plan = cast(Any, SimpleNamespace(manifest=manifest, by_hand=""))
    with environment_of(kube).lease("isa-rebuild-nats", "test"), threads(1, 1) as start:
        (report,) = run_restores(stored_environment(kube), RunContext("t"), [plan], start=start)
    assert "a rebuild of nats is running" in report.reason


def test_where_the_rebuild_cannot_be_read_the_night_is_taken_and_does_not_claim_to_be_whole(
    kube: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    with environment_of(kube).lease("isa-rebuild-nats", "test") as lease:
        lease.note("x")
    doubts: dict[str, list[str]] = {}

    def back_up(
        environment: object, context: object, name: str, *_: object, **more: Any
    ) -> BackupResult:
        doubts[name] = list(more["doubts"])
        return BackupResult(name, COMPLETE, "a-set")

    monkeypatch.setattr(backups, "check_store", lambda environment: None)
    monkeypatch.setattr(backups, "back_up", back_up)
    with threads(1, 1) as start:
        run_backups(
            stored_environment(kube), RunContext("t"), only=["nats", "redis"], slot="", start=start
        )
    assert doubts["redis"] == []
    (words,) = doubts["nats"]
    assert "annotate lease isa-rebuild-nats isa-cloud.io/operation-" in words
