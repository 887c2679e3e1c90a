"""While a rebuild has not brought its data back, nobody takes the empty engine for the real one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from operations import backups, restoring
from operations.backup import COMPLETE, FAILED, BackupResult, Vault
from operations.backups import run_backups
from operations.restoring import run_restores
from operations.run import threads
from operations.standing import NONE, Policy, Standing

from ..stored import Stored, platform_of

GONE = ["fence", "backup", "proof", "uninstall", "volumes"]


@pytest.fixture
def kube() -> Stored:
    return Stored()


def vault_of(kube: Stored) -> Vault:
    settings = platform_of(
        kube,
        backup=SimpleNamespace(max_parallel=1),
        verify=SimpleNamespace(max_parallel=1),
    ).settings
    return cast(Vault, SimpleNamespace(kube=kube, settings=settings, check=lambda: None))


@pytest.mark.parametrize(
    ("standing", "outcome"),
    [
        (Standing("rebuild-1", Policy("nats"), "nats-set", GONE), FAILED),
        (Standing("rebuild-1", Policy("nats"), "nats-set", [*GONE, "install"]), FAILED),
        # it holds its data, and more: clients have written since
        (Standing("rebuild-1", Policy("nats"), "nats-set", GONE, replaced=True), COMPLETE),
        # its uninstall did not end: the engine may be in service as before
        (Standing("rebuild-1", Policy("nats"), "nats-set", GONE[:3]), COMPLETE),
        (Standing("rebuild-1", Policy("nats", "new", NONE), "", GONE), COMPLETE),
        (Standing("rebuild-1", Policy("nats", "keep", NONE), "", GONE), COMPLETE),
    ],
)
def test_no_night_stores_a_set_of_an_engine_that_waits_for_its_data(
    standing: Standing, outcome: str, kube: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    with platform_of(kube).lease("rebuild-nats", "test") as lease:
        lease.note(standing.text())
    monkeypatch.setattr(
        backups, "back_up", lambda vault, name, *_, **__: BackupResult(name, COMPLETE, "a-set")
    )
    with threads(1, 1) as start:
        report = run_backups(vault_of(kube), only=["nats", "redis"], slot="", run="t", start=start)
    found = {one.component: one for one in report.backups}
    assert found["nats"].outcome == outcome
    assert found["redis"].outcome == COMPLETE
    assert ("--undo" in found["nats"].reason) == (outcome == FAILED)


def test_nothing_is_restored_into_what_is_being_rebuilt(
    kube: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restoring, "read_identity", lambda vault: "")
    manifest = SimpleNamespace(id="nats-set", component="nats")
    plan = cast(Any, SimpleNamespace(manifest=manifest, by_hand=""))
    with platform_of(kube).lease("rebuild-nats", "test"), threads(1, 1) as start:
        (report,) = run_restores(vault_of(kube), [plan], run="t", start=start)
    assert "is being rebuilt just now" in report.reason
