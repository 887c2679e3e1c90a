"""An engine that is restored by hand is named before anything begins, and is not what keeps the others back."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from components import COMPONENTS
from errors import ConfigurationError
from operations.environment.environment import Environment
from operations.restore import plan as restore_plan
from operations.restore import restore as restoring
from operations.restore.plan import RestorePlan, plan_restore, plans_of
from operations.restore.restore import BY_HAND, RESTORED, RestoreReport, document, run_restores
from operations.runner.context import RunContext
from operations.runner.progress import NodeProgress
from operations.runner.threads import threads
from tests.environments import environment_with

from ..stored import Stored, settings_of

AT = datetime(2026, 1, 1, tzinfo=UTC)
STAMP = "20260101T023000Z-abcdef"
SETS = {name: f"{name}-{STAMP}" for name in COMPONENTS}
WHERE = "docs/restore-by-hand.md, Neo4j"


def neo4j_of(edition: str) -> Environment:
    settings = settings_of(
        environment="test",
        backup=SimpleNamespace(signers=()),
        components=SimpleNamespace(neo4j=SimpleNamespace(edition=edition)),
        verify=SimpleNamespace(max_parallel=2, signers=()),
    )
    catalogue = SimpleNamespace(
        of=lambda name: (SimpleNamespace(id=SETS[name], outcome="complete"),),
        proven=set(SETS.values()),
        verdict=lambda name: "pass",
        latest=lambda name: SimpleNamespace(id=SETS[name], begun=AT, seconds=0.0),
        last=lambda name: None,
        refused=lambda _: "",
    )
    return environment_with(
        settings, kube=Stored(), store=None, cluster_uid="c", catalogue=lambda names: catalogue
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
    monkeypatch.setattr(restoring, "read_identity", lambda environment: "")


def plans(edition: str) -> list[RestorePlan]:
    environment = neo4j_of(edition)
    names = ("postgresql", "neo4j")
    return [plan_restore(environment, environment.catalogue(names), SETS[name]) for name in names]


def test_a_set_of_an_engine_that_is_restored_by_hand_is_refused_before_it_is_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert plans_of(neo4j_of("community"), SETS["neo4j"], (), other_cluster=False)
    monkeypatch.setattr(restore_plan, "find_chain", None)
    with pytest.raises(ConfigurationError, match=WHERE):
        plans_of(neo4j_of("enterprise"), SETS["neo4j"], (), other_cluster=False)


def test_the_plan_of_all_says_which_is_left_and_why() -> None:
    postgresql, neo4j = plans("enterprise")
    assert WHERE in neo4j.document().by_hand
    assert postgresql.by_hand == ""
    assert [plan.by_hand for plan in plans("community")] == ["", ""]


@pytest.mark.parametrize(
    ("edition", "outcome", "state"),
    [("enterprise", BY_HAND, "failed"), ("community", RESTORED, "completed")],
)
def test_the_others_are_restored_and_what_is_left_is_named_and_not_claimed(
    edition: str, outcome: str, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_restore(
        environment: object, context: RunContext, identity: str, plan: RestorePlan, **_: object
    ) -> RestoreReport:
        return RestoreReport(plan.manifest.id, plan.manifest.component, RESTORED)

    monkeypatch.setattr(restoring, "run_restore", run_restore)
    shown: list[dict[str, str]] = []

    def publish(lines: list[NodeProgress]) -> None:
        shown.append({line.name: line.outcome for line in lines})

    with threads(2, 1) as start:
        reports = run_restores(
            neo4j_of(edition), RunContext("t", publish=publish), plans(edition), start=start
        )
    found = document(reports, 1.0).plain()
    assert {r.component: r.outcome for r in reports} == {"postgresql": RESTORED, "neo4j": outcome}
    assert found["state"] == state
    if outcome == BY_HAND:
        assert shown[0]["neo4j"] == BY_HAND
        assert (
            f"1 of 2 restored; neo4j still has to be restored, from {SETS['neo4j']}"
            in found["message"]
        )
        assert WHERE in cast(str, found["message"])
    else:
        assert found["message"] == "2 restored in 1.0 s"
