from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml

from archive.catalogue.listing import Catalogue
from archive.evidence.verdicts import Evidence, Proof
from config.sections.objectives import Objective
from operations.health.freshness import Freshness, Limits, judge, metrics, span

from ..archive.test_retention import a_set

NOW = datetime(2026, 11, 24, tzinfo=UTC)
SET = "redis-20261101T010000Z-0a1b2c"
LIMITS = Limits(8 * 86400, Objective(rpo_seconds=36 * 3600, rto_seconds=60))
RULES = Path(__file__).parents[3] / "deployments/monitoring/alerts.yaml"


def document(proof: Proof) -> Evidence:
    return Evidence(
        set=SET, component="redis", environment="test", manifest_sha256="", verdict="pass",
        level="L4", begun=proof.at, seconds=12.5,
    )  # fmt: skip


def judged(
    *proofs: tuple[float, str],
    believed: bool = True,
    backup_hours: float | None = None,
    limits: Limits = LIMITS,
) -> Freshness:
    """Days ago and verdict of each proof; age of the newest complete backup."""
    found = tuple(Proof(NOW - timedelta(days=days), verdict, "key") for days, verdict in proofs)
    begun = NOW - timedelta(hours=backup_hours or 0)
    backups = (a_set(0, begun=begun),) if backup_hours is not None else ()
    catalogue = Catalogue(backups, {}, (), {SET: found})
    read = document if believed else lambda proof: None
    return judge(catalogue, "redis", limits, NOW, read)


def test_without_a_proof_it_was_never_proven() -> None:
    assert judged().state == "never"


def test_an_error_is_no_verdict() -> None:
    assert judged((1, "error")).state == "never"
    assert judged((2, "pass"), (1, "error")).state == "fresh"


def test_a_fail_behind_a_pass_is_failing_and_a_pass_behind_a_fail_is_fresh() -> None:
    assert judged((2, "pass"), (1, "fail")).state == "failing"
    assert judged((2, "fail"), (1, "pass")).state == "fresh"


def test_an_old_pass_is_stale_even_if_errors_are_younger() -> None:
    assert judged((9, "pass"), (1, "error")).state == "stale"


def test_a_pass_that_cannot_be_believed_counts_for_nothing() -> None:
    assert judged((1, "pass"), believed=False).state == "never"


def test_a_partial_proof_is_no_pass() -> None:
    assert judged((1, "partial")).state == "never"


def test_a_backup_older_than_its_objective_is_a_missed_objective() -> None:
    assert judged((1, "pass"), backup_hours=35.9).missed == ()
    assert judged((1, "pass"), backup_hours=37).missed == (
        "the newest complete backup is 1 d 13 h old, its objective is 1 d 12 h",
    )
    assert judged((1, "pass")).missed == ("no complete backup",)


def test_a_restore_that_took_longer_than_its_objective_is_a_missed_objective() -> None:
    slow = Limits(8 * 86400, Objective(rto_seconds=10))
    assert judged((1, "pass"), backup_hours=1, limits=slow).missed == (
        "the last verified restore took 12 s, its objective is 10 s",
    )
    unread = judged((1, "pass"), backup_hours=1, limits=slow, believed=False)
    assert unread.missed == ()


def test_a_length_of_time_is_told_in_its_two_largest_units() -> None:
    assert [span(s) for s in (0, 59.6, 3600, 93784)] == ["0 s", "1 min", "1 h", "1 d 2 h"]


def test_metrics_have_a_line_for_what_is_known_only() -> None:
    text = metrics([judged((2, "pass")), Freshness("nats", "never")], "test")
    passed = (NOW - timedelta(days=2)).timestamp()
    labels = '{environment="test",component="redis"}'
    assert f"isa_cloud_last_passing_verify_timestamp_seconds{labels} {passed:.3f}" in text
    assert 'isa_cloud_verify_seconds{environment="test",component="redis"} 12.500' in text
    assert 'isa_cloud_verify_never{environment="test",component="nats"} 1.000' in text
    assert 'verify_seconds{environment="test",component="nats"}' not in text


def test_the_alert_rules_ask_for_metrics_that_there_are() -> None:
    text = metrics([judged((2, "pass"))], "test")
    families = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    for rule in group["rules"]:
        asked = {word.strip("()") for word in rule["expr"].split() if "isa_cloud" in word}
        asked = {word[word.index("isa_cloud") :] for word in asked}
        assert asked <= families, rule["alert"]
        assert rule["annotations"]["action"]
        assert rule["labels"]["severity"] in ("critical", "warning")
