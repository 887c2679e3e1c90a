"""An engine that is restored by hand is named before anything begins, and is not what keeps the others back."""

from __future__ import annotations

from base64 import b64encode
from types import SimpleNamespace
from typing import cast

import pyrage
import pytest

from components import COMPONENTS
from errors import ArgumentError
from operations.environment.environment import Environment
from operations.restore import restore as restoring
from operations.restore.plan import RestorePlan, plan_restore, plans_of
from operations.restore.report import BY_HAND, RESTORED, RestoreReport, document
from operations.restore.restore import run_restores
from operations.runner.context import RunContext
from operations.runner.progress import NodeProgress
from operations.runner.threads import threads
from tests.environments import environment_with

from ..archive.test_retention import KEY, SIGNERS, a_set
from ..buckets import Bucket
from ..stored import Stored, settings_of

STAMP = "20250101T010000Z-000000"
SETS = {name: f"{name}-{STAMP}" for name in COMPONENTS}
WHERE = "docs/restore-by-hand.md, Neo4j"
POOL = str(pyrage.x25519.Identity.generate())


def environment_of(edition: str, *components: str) -> Environment:
    """With a backup of some components, and the private key of the verify pool."""
    settings = settings_of(
        environment="test",
        backup=SimpleNamespace(signers=SIGNERS),
        components=SimpleNamespace(neo4j=SimpleNamespace(edition=edition)),
        verify=SimpleNamespace(max_parallel=2, signers=(), identity_secret="verify-identity"),
    )
    bucket, kube = Bucket(), Stored()
    for name in components:
        made = a_set(0, id=SETS[name], component=name, topology={"buckets": {}})
        bucket.put(made.own_key, made.signed(KEY))
    identity = {"identity": b64encode(POOL.encode()).decode()}
    kube.objects["Secret", "verify-identity"] = {"metadata": {}, "data": identity}
    return environment_with(settings, kube=kube, store=bucket, cluster_uid="uid")


def plans(edition: str) -> list[RestorePlan]:
    names = ("postgresql", "neo4j")
    environment = environment_of(edition, *names)
    return [plan_restore(environment, environment.catalogue(names), SETS[name]) for name in names]


def test_a_set_of_an_engine_that_is_restored_by_hand_is_refused_before_it_is_looked_at() -> None:
    assert plans_of(environment_of("community", "neo4j"), SETS["neo4j"], (), other_cluster=False)
    without_backups = environment_of("enterprise")
    with pytest.raises(ArgumentError, match=WHERE):
        plans_of(without_backups, SETS["neo4j"], (), other_cluster=False)


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
            environment_of(edition), RunContext("t", publish=publish), plans(edition), start=start
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
