"""Alert rules and dashboard ask for what there is, and say of a component what `isa proofs` says."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml

from archive.evidence.verdicts import Evidence, Proof
from config.loading import ROOT
from config.sections.backups import VerifySettings
from config.sections.objectives import Objective
from operations.health.freshness import FAILING, FRESH, NEVER, STALE, Freshness, Limits, metrics
from tests.promql import Vector, evaluate, samples, selectors

NOW = datetime(2026, 11, 24, tzinfo=UTC)
MONITORING = ROOT / "deployments" / "monitoring"
(GROUP,) = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"]
RULES: dict[str, dict[str, Any]] = {rule["alert"]: rule for rule in GROUP["rules"]}
BOARD: dict[str, Any] = json.loads((MONITORING / "grafana-dashboard.json").read_text())
PANELS: list[dict[str, Any]] = BOARD["panels"]
TARGETS = [(panel["title"], one["expr"]) for panel in PANELS for one in panel["targets"]]
LIMITS = Limits(VerifySettings().stale_days * 86400)
SLOW = Limits(LIMITS.stale_seconds, Objective(rpo_seconds=11 * 3600, rto_seconds=12))
LABELS = {"environment", "component"}


def component(
    name: str, state: str, backup: float | None, passed: float | None, limits: Limits = LIMITS
) -> Freshness:
    """One with the ages of its last whole backup in hours and of its last passing proof in days."""
    at = NOW - timedelta(days=passed) if passed is not None else None
    evidence = at and Evidence(
        set=f"{name}-20261101T010000Z-0a1b2c", component=name, environment="test", manifest_sha256="",
        verdict="pass", level="L4", begun=at, seconds=12.5,
    )  # fmt: skip
    return Freshness(
        name,
        state,
        NOW - timedelta(hours=backup) if backup is not None else None,
        1000,
        Proof(at, "pass", "key") if at else None,
        at,
        evidence or None,
        limits,
    )


FOUND = [
    component("redis", FRESH, backup=10, passed=1),
    component("nats", STALE, backup=10, passed=9),
    component("neo4j", FRESH, backup=10, passed=1, limits=SLOW),
    component("minio", FAILING, backup=40, passed=2),
    component("emqx", NEVER, backup=10, passed=None),
    component("qdrant", NEVER, backup=None, passed=None),
]
THERE = samples(metrics(FOUND, "test"))


def named(vector: float | Vector) -> dict[str, float]:
    assert isinstance(vector, dict)
    return {dict(labels).get("component", ""): value for labels, value in vector.items()}


def resolved(expression: str) -> str:
    """With Grafana's variables at `All`."""
    return re.sub(r"\$\w+", ".*", expression)


@pytest.mark.parametrize(
    ("where", "expression"), [*((name, rule["expr"]) for name, rule in RULES.items()), *TARGETS]
)
def test_only_metrics_and_labels_that_are_written_are_asked_for(
    where: str, expression: str
) -> None:
    asked = selectors(resolved(expression))
    assert asked
    for name, labels in asked:
        assert name in THERE, where
        assert labels <= LABELS, where


@pytest.mark.parametrize(
    ("alert", "whom"),
    [
        ("BackupTooOld", {"minio"}),
        ("BackupNever", {"qdrant"}),
        ("RestoreProofFails", {"minio"}),
        ("RestoreProofStale", {"nats"}),
        ("RestoreTooSlow", {"neo4j"}),
        ("RestoreNeverProven", {"emqx", "qdrant"}),
        ("BackupMetricsAbsent", set()),
    ],
)
def test_an_alert_is_about_whom_it_should(alert: str, whom: set[str]) -> None:
    assert set(named(evaluate(RULES[alert]["expr"], THERE, NOW.timestamp()))) == whom


def test_every_rule_is_tried_and_silence_is_told() -> None:
    assert len(RULES) == 7
    assert evaluate(RULES["BackupMetricsAbsent"]["expr"], {}, NOW.timestamp())


def test_the_board_says_of_each_component_what_isa_proofs_says() -> None:
    (panel,) = [one for one in PANELS if one["type"] == "state-timeline"]
    (mapping,) = panel["fieldConfig"]["defaults"]["mappings"]
    words = {float(value): text["text"] for value, text in mapping["options"].items()}
    (target,) = panel["targets"]
    said = named(evaluate(resolved(target["expr"]), THERE, NOW.timestamp()))
    assert {name: words[value] for name, value in said.items()} == {
        one.component: one.state for one in FOUND
    }


def test_limits_are_the_settings_and_stand_in_no_rule() -> None:
    for name, rule in RULES.items():
        assert not re.search(r"\d{2}", rule["expr"]), name
    aged = [one for one in PANELS if "time() -" in one["targets"][0]["expr"]]
    for panel in (one for one in aged if one["type"] != "state-timeline"):
        steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        assert (steps[-1]["value"], steps[-1]["color"]) == (1, "red"), panel["title"]
        found = named(evaluate(resolved(panel["targets"][0]["expr"]), THERE, NOW.timestamp()))
        late = {"minio"} if "success_backup" in panel["targets"][0]["expr"] else {"nats"}
        assert {name for name, share in found.items() if share > 1} in (late, {""}), panel["title"]


def test_every_panel_can_be_drawn_and_says_what_it_is() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        assert len(panel["description"]) > 40, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        for one in (panel, *panel["targets"]):
            assert one["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        grid = panel["gridPos"]
        place = {
            (x, y)
            for x in range(grid["x"], grid["x"] + grid["w"])
            for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert not place & taken and max(x for x, _ in place) < 24, panel["title"]
        taken |= place
    variables = {one["name"]: one["type"] for one in BOARD["templating"]["list"]}
    assert variables == {"datasource": "datasource", "environment": "query", "component": "query"}
