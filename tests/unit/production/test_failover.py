"""PostgreSQL's failover: repmgr and Pgpool decide at the same time, and the old primary stops."""

from __future__ import annotations

from typing import Any

import pytest

# Seconds. repmgrd looks at the primary every 2 s: REPMGR_MONITOR_INTERVAL_SECS of Bitnami's image.
MONITOR_INTERVAL = 2
# PostgreSQL's default of wal_retrieve_retry_interval: a standby connects again that often.
STANDBY_RECONNECTS = 5
GOAL = 15


@pytest.fixture
def postgresql(values: dict[str, dict[str, Any]]) -> dict[str, Any]:
    part: dict[str, Any] = values["postgresql-ha"]["postgresql"]
    return part


@pytest.fixture
def pgpool(values: dict[str, dict[str, Any]]) -> dict[str, int]:
    """Pgpool's settings by the names of its variables."""
    variables = values["postgresql-ha"]["pgpool"]["extraEnvVars"]
    return {one["name"].removeprefix("PGPOOL_"): int(one["value"]) for one in variables}


def promotion(postgresql: dict[str, Any], unanswered: float) -> tuple[float, float]:
    """When repmgr promotes a standby after a fault, at the earliest and at the latest.

    Args:
        postgresql: the chart's values.
        unanswered: what one attempt to connect takes.
    """
    attempts = postgresql["repmgrReconnectAttempts"]
    # repmgrd's look, its attempts, and one of `repmgr standby promote` (repmgr 5.5: do_standby_promote)
    connects = (1 + attempts + 1) * unanswered
    earliest = connects + (attempts - 1) * postgresql["repmgrReconnectInterval"]
    return earliest, earliest + MONITOR_INTERVAL


def detection(pgpool: dict[str, int], unanswered: float) -> tuple[float, float]:
    """When Pgpool gives a node up after a fault, at the earliest and at the latest."""
    retries = pgpool["HEALTH_CHECK_MAX_RETRIES"]
    earliest = (retries + 1) * unanswered + retries * pgpool["HEALTH_CHECK_RETRY_DELAY"]
    return earliest, earliest + pgpool["HEALTH_CHECK_PERIOD"]


def configuration(text: str) -> dict[str, str]:
    """Settings of a configuration file's lines."""
    lines = (line.partition("#")[0].partition("=") for line in text.splitlines())
    return {name.strip(): value.strip() for name, equals, value in lines if equals}


def test_pgpool_gives_a_primary_up_when_repmgr_replaces_it(
    postgresql: dict[str, Any], pgpool: dict[str, int]
) -> None:
    assert detection(pgpool, 0) == promotion(postgresql, 0), "its server was killed"
    assert detection(pgpool, pgpool["HEALTH_CHECK_TIMEOUT"]) == promotion(
        postgresql, postgresql["repmgrConnectTimeout"]
    ), "its node was cut off: nothing answers"
    assert pgpool["CONNECT_TIMEOUT"] == 1000 * pgpool["HEALTH_CHECK_TIMEOUT"]


def test_a_standby_is_promoted_in_time_for_clients_and_not_by_a_hiccup(
    postgresql: dict[str, Any],
) -> None:
    earliest, latest = promotion(postgresql, postgresql["repmgrConnectTimeout"])
    assert latest < GOAL, "Pgpool and the client need a moment too"
    assert earliest > 10, "a shorter interruption is no reason to lose commits"


def test_a_primary_without_standbys_stops_unless_they_only_reconnect(
    postgresql: dict[str, Any],
) -> None:
    timeout = configuration(postgresql["extendedConf"])["wal_sender_timeout"]
    assert postgresql["repmgrFenceOldPrimary"]
    assert postgresql["repmgrChildNodesDisconnectTimeout"] > STANDBY_RECONNECTS
    seconds = int(timeout.removesuffix("s")) + postgresql["repmgrChildNodesDisconnectTimeout"]
    assert seconds <= 20, "until then, its clients lose what they write"


def test_a_promoted_standby_takes_writes_at_once(postgresql: dict[str, Any]) -> None:
    settings = configuration(postgresql["extendedConf"])
    # with both on, it first waits for the WAL summarizer: PostgreSQL 17, CleanupAfterArchiveRecovery in xlog.c
    assert not (settings["summarize_wal"] == "on" and settings["archive_mode"] != "off")


def test_pgpool_leaves_a_primary_that_no_standby_streams_from(
    values: dict[str, dict[str, Any]], postgresql: dict[str, Any]
) -> None:
    added = configuration(values["postgresql-ha"]["pgpool"]["configuration"])
    assert added == {"detach_false_primary": "on"}
    # it sees where a standby streams from with this right only: monitoring-stats of PostgreSQL's manual
    scripts = "\n".join(postgresql["initdbScripts"].values())
    assert "GRANT pg_read_all_stats TO sr_check_user;" in scripts
