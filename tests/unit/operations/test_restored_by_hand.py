"""An engine that is restored by hand is named before anything begins, and is not what keeps the others back."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from components import COMPONENTS
from errors import ConfigurationError
from operations.restore import plan as restore_plan
from operations.restore import restore as restoring
from operations.restore.plan import RestorePlan, plan_restore, plans_of
from operations.restore.restore import BY_HAND, RESTORED, RestoreReport, as_json, run_restores
from operations.runner.progress import NodeProgress
from operations.runner.threads import threads

from ..stored import Stored, platform_of

AT = datetime(2026, 1, 1, tzinfo=UTC)
STAMP = "20260101T023000Z-abcdef"
SETS = {name: f"{name}-{STAMP}" for name in COMPONENTS}
WHERE = "docs/restore-by-hand.md, Neo4j"


def vault_of(edition: str) -> Any:
    settings = platform_of(
        Stored(),
        environment="test",
        components=SimpleNamespace(neo4j=SimpleNamespace(edition=edition)),
        verify=SimpleNamespace(max_parallel=2),
    ).settings
    catalogue = SimpleNamespace(
        of=lambda name: (SimpleNamespace(id=SETS[name], outcome="complete"),),
        proven=set(SETS.values()),
        verdict=lambda name: "pass",
        latest=lambda name: SimpleNamespace(id=SETS[name], begun=AT, seconds=0.0),
        last=lambda name: None,
        refused=lambda _: "",
    )
    return SimpleNamespace(
        settings=settings,
        kube=Stored(),
        store=None,
        cluster="c",
        trust=None,
        catalogue=lambda names: catalogue,
    )


@pytest.fixture(autouse=True)
def sets(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_chain(store: object, environment: str, backup: str, trust: object) -> Any:
        component = backup.removesuffix(f"-{STAMP}")
        manifest = SimpleNamespace(
            id=backup,
            component=component,
            environment="test",
            cluster="c",
            missing=(),
            artefacts=(),
            begun=None,
        )
        return manifest, ()

    reader = SimpleNamespace(manifest=SimpleNamespace(artefacts=()), names=lambda *_: ())
    monkeypatch.setattr(restore_plan, "find_chain", find_chain)
    monkeypatch.setattr(restore_plan, "look", lambda *_: ())
    monkeypatch.setattr(restore_plan, "SetReader", lambda *_: reader)
    monkeypatch.setattr(restoring, "read_identity", lambda vault: "")


def plans(edition: str) -> list[RestorePlan]:
    vault = vault_of(edition)
    names = ("postgresql", "neo4j")
    return [plan_restore(vault, vault.catalogue(names), SETS[name]) for name in names]


def test_a_set_of_an_engine_that_is_restored_by_hand_is_refused_before_it_is_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert plans_of(vault_of("community"), SETS["neo4j"], (), other_cluster=False)
    monkeypatch.setattr(restore_plan, "find_chain", None)
    with pytest.raises(ConfigurationError, match=WHERE):
        plans_of(vault_of("enterprise"), SETS["neo4j"], (), other_cluster=False)


def test_the_plan_of_all_says_which_is_left_and_why() -> None:
    postgresql, neo4j = plans("enterprise")
    assert WHERE in neo4j.as_json()["by_hand"]
    assert postgresql.by_hand == ""
    assert [plan.by_hand for plan in plans("community")] == ["", ""]


@pytest.mark.parametrize(
    ("edition", "outcome", "state"),
    [("enterprise", BY_HAND, "failed"), ("community", RESTORED, "completed")],
)
def test_the_others_are_restored_and_what_is_left_is_named_and_not_claimed(
    edition: str, outcome: str, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_restore(vault: object, identity: str, plan: RestorePlan, **_: object) -> RestoreReport:
        return RestoreReport(plan.manifest.id, plan.manifest.component, RESTORED)

    monkeypatch.setattr(restoring, "run_restore", run_restore)
    shown: list[dict[str, str]] = []

    def publish(lines: list[NodeProgress]) -> None:
        shown.append({line.name: line.outcome for line in lines})

    with threads(2, 1) as start:
        reports = run_restores(
            vault_of(edition), plans(edition), run="t", start=start, publish=publish
        )
    found = as_json(reports, 1.0)
    assert {r.component: r.outcome for r in reports} == {"postgresql": RESTORED, "neo4j": outcome}
    assert found["state"] == state
    if outcome == BY_HAND:
        assert shown[0]["neo4j"] == BY_HAND
        assert (
            f"1 of 2 restored; neo4j is still to be restored, from {SETS['neo4j']}"
            in found["message"]
        )
        assert WHERE in cast(str, found["message"])
    else:
        assert found["message"] == ""
