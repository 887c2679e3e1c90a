from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml

from archive.catalogue.listing import Catalogue
from archive.evidence.verdicts import Evidence, Proof
from operations.health.freshness import Freshness, judge, metrics

NOW = datetime(2026, 11, 24, tzinfo=UTC)
SET = "redis-20261101T010000Z-0a1b2c"
RULES = Path(__file__).parents[3] / "deployments/monitoring/alerts.yaml"


def document(proof: Proof) -> Evidence:
    return Evidence(
        set=SET, component="redis", environment="test", manifest_sha256="", verdict="pass",
        level="L4", begun=proof.at, seconds=12.5,
    )  # fmt: skip


def judged(*proofs: tuple[float, str], believed: bool = True) -> Freshness:
    """Days ago and verdict of each proof."""
    found = tuple(Proof(NOW - timedelta(days=days), verdict, "key") for days, verdict in proofs)
    catalogue = Catalogue((), {}, (), {SET: found})
    read = document if believed else lambda proof: None
    return judge(catalogue, "redis", timedelta(days=8), NOW, read)


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
