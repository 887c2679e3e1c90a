"""The gate of PostgreSQL: one primary, standbys that stream, a row that travels, and proxies that know who is who."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import psycopg
import pytest
from psycopg import errors

from components.base import Check, Report, Role, Workload
from components.postgresql.readiness import SLOT_LIMIT_BYTES, ask, workloads
from components.postgresql.wal.slots import SLOT

from .postgresql_double import Cluster

PRIMARY, FIRST, SECOND = (f"postgresql-ha-postgresql-{n}" for n in range(3))


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster()
    monkeypatch.setattr(psycopg, "connect", made.connect)
    return made


def checks(cluster: Cluster, **settings: Any) -> dict[str, Check]:
    return {check.name: check for check in ask(cluster.access(**settings)).checks}


def bad(cluster: Cluster, **settings: Any) -> dict[str, Check]:
    return {name: check for name, check in checks(cluster, **settings).items() if not check.ok}


def the_bad_one(cluster: Cluster, **settings: Any) -> Check:
    (check,) = bad(cluster, **settings).values()
    return check


def test_a_healthy_cluster_answers_every_check(cluster: Cluster) -> None:
    report = ask(cluster.access())
    assert [(one.name, one.ok, one.hint, one.critical) for one in report.checks] == [
        ("nodes answer", True, "3 of 3", False),
        ("one primary", True, f"{PRIMARY}, timeline 3, PostgreSQL 18.1", True),
        ("lag within the limit", True, "at most 0 B, limit 1000 B", False),
        ("standbys stream", True, f"{FIRST}, {SECOND}", False),
        ("replay goes on", True, "", False),
        ("no slot holds back WAL", True, "", False),
        ("settings are in force", True, "", False),
        ("write", True, f"to {PRIMARY}", True),
        ("read back on every standby", True, "2 of 2", False),
        ("clean up", True, "", False),
    ]
    assert report.roles == (
        Role(PRIMARY, "primary"),
        Role(FIRST, "standby", "0 B"),
        Role(SECOND, "standby", "0 B"),
    )
    assert cluster.tokens == set()


def test_nodes_and_proxies_are_wanted() -> None:
    settings = SimpleNamespace(components=SimpleNamespace(postgresql=SimpleNamespace(members=3)))
    assert workloads(cast(Any, settings)) == (
        Workload("StatefulSet", "postgresql-ha-postgresql", 3),
        Workload("Deployment", "postgresql-ha-pgpool", 2),
    )


# ---------------------------------------------------------------------- one primary
def only_the_primary_is_missing(report: Report) -> Check:
    last = report.checks[-1]
    assert (last.name, last.ok, last.critical) == ("one primary", False, True)
    return last


def test_two_nodes_that_take_writes_are_a_split_brain_and_nothing_is_written(
    cluster: Cluster,
) -> None:
    cluster.nodes[2].standby, cluster.nodes[2].timeline = False, 4
    report = ask(cluster.access())
    hint = only_the_primary_is_missing(report).hint
    assert hint.startswith(
        f"split brain: {PRIMARY} (timeline 3), {SECOND} (timeline 4) all accept writes"
    )
    assert not [text for _, text in cluster.said if "probe" in text]
    assert set(report.roles) == {
        Role(PRIMARY, "primary"),
        Role(FIRST, "standby"),
        Role(SECOND, "primary"),
    }


def test_without_a_node_that_takes_writes_there_is_no_primary(cluster: Cluster) -> None:
    cluster.nodes[0].standby = True
    assert "no node accepts writes" in only_the_primary_is_missing(ask(cluster.access())).hint


def test_nodes_of_different_database_clusters_are_strangers(cluster: Cluster) -> None:
    cluster.nodes[1].system = "8"
    assert "different database clusters" in only_the_primary_is_missing(ask(cluster.access())).hint


def test_a_node_that_is_away_is_named_and_the_others_are_asked(cluster: Cluster) -> None:
    cluster.nodes[2].away = True
    del cluster.lag[SECOND]
    found = bad(cluster)
    assert list(found) == ["nodes answer", "standbys stream"]
    assert found["nodes answer"].hint.startswith(f"{SECOND}: nothing listens there")
    assert found["standbys stream"].hint.startswith(f"{SECOND}: not streaming from the primary")
    assert not any(check.critical for check in found.values())


# ---------------------------------------------------------------------- standbys
def test_standbys_are_known_by_their_addresses_too(cluster: Cluster) -> None:
    cluster.names = False
    assert bad(cluster) == {}


def test_who_streams_and_is_no_node_counts_for_nothing(cluster: Cluster) -> None:
    other = {"sync_state": "async", "lag": 10**9}
    cluster.others = [
        {**other, "name": "isa-cloud-backup", "address": None, "state": "streaming"},
        {**other, "name": SECOND, "address": "", "state": "backup"},
    ]
    assert bad(cluster) == {}


def test_a_standby_that_only_catches_up_does_not_stream(cluster: Cluster) -> None:
    del cluster.lag[FIRST]
    catches_up = {"name": FIRST, "address": "", "sync_state": "async", "lag": 5, "state": "catchup"}
    cluster.others = [catches_up]
    assert FIRST in the_bad_one(cluster).hint


def test_an_owner_that_may_not_see_replication_is_told_the_grant(cluster: Cluster) -> None:
    cluster.others = [{"name": None, "address": None, "state": None, "sync_state": "", "lag": None}]
    check = bad(cluster)["standbys stream"]
    assert "GRANT pg_monitor TO isa" in check.hint
    assert not check.critical


@pytest.mark.parametrize(("lag", "within"), [(1000, True), (1001, False)])
def test_a_standby_may_lag_as_far_as_the_limit(lag: int, within: bool, cluster: Cluster) -> None:
    cluster.lag[SECOND] = lag
    check = checks(cluster)["lag within the limit"]
    assert (check.ok, check.critical) == (within, False)
    if within:
        assert check.hint == "at most 1000 B, limit 1000 B"
    else:
        assert check.hint.startswith(f"{SECOND}: 1001 B behind (limit 1000 B): a slow disk")
    assert ask(cluster.access()).roles[2] == Role(SECOND, "standby", f"{lag} B")


def test_a_standby_that_has_replayed_nothing_yet_has_no_lag(cluster: Cluster) -> None:
    cluster.lag[FIRST] = None
    assert bad(cluster) == {}


def test_a_standby_that_a_backup_holds_may_lag_and_is_not_read_from(cluster: Cluster) -> None:
    cluster.nodes[2].paused, cluster.lag[SECOND] = "a backup", 10**9
    cluster.nodes[2].arrives = False
    found = checks(cluster)
    assert [name for name, check in found.items() if not check.ok] == []
    assert found["replay goes on"].hint == f"{SECOND} paused by a backup"
    assert found["read back on every standby"].hint == "1 of 1"


def test_a_replay_that_was_paused_by_hand_is_told_with_its_cure(cluster: Cluster) -> None:
    cluster.nodes[1].paused, cluster.nodes[2].paused = "a backup", "hand"
    check = bad(cluster)["replay goes on"]
    assert check.hint == f"{SECOND}: replay was paused by hand: SELECT pg_wal_replay_resume()"
    assert not check.critical


@pytest.mark.parametrize(("held", "ok"), [(SLOT_LIMIT_BYTES, True), (SLOT_LIMIT_BYTES + 1, False)])
def test_an_unused_slot_may_hold_a_gibibyte(held: int, ok: bool, cluster: Cluster) -> None:
    cluster.slots = {"old": held}
    check = checks(cluster)["no slot holds back WAL"]
    assert (check.ok, check.critical) == (ok, False)
    assert check.hint == (
        "" if ok else "old: 1024 MiB, not in use: drop it or bring its standby back"
    )


@pytest.mark.parametrize("streams", [True, False])
def test_the_slot_of_the_wal_stream_is_the_doctors_while_there_is_a_stream(
    streams: bool, cluster: Cluster
) -> None:
    cluster.slots, cluster.streams = {SLOT: 2 * SLOT_LIMIT_BYTES}, streams
    assert checks(cluster)["no slot holds back WAL"].ok is streams


def test_settings_that_wait_for_a_restart_are_named_and_no_gate_waits(cluster: Cluster) -> None:
    cluster.nodes[1].pending = ("max_connections", "wal_level")
    check = checks(cluster)["settings are in force"]
    assert (check.ok, check.critical) == (True, False)
    assert check.hint == f"changed, but a restart is needed: {FIRST}: max_connections, wal_level"


# ---------------------------------------------------------------------- a row that travels
def test_a_row_that_does_not_arrive_degrades(cluster: Cluster) -> None:
    cluster.nodes[1].arrives = False
    access = cluster.access()
    access.timeout_seconds = 0.1
    found = {check.name: check for check in ask(access).checks if not check.ok}
    assert list(found) == ["read back on every standby"]
    assert found["read back on every standby"].hint == f"{FIRST}: the row has not arrived"
    assert not found["read back on every standby"].critical


def test_without_a_standby_nothing_is_read_back(cluster: Cluster) -> None:
    cluster.lag = {}
    found = bad(cluster)
    assert found["read back on every standby"].hint == "there is no standby to read from"


def test_a_standby_that_does_not_know_the_table_yet_is_asked_again(cluster: Cluster) -> None:
    cluster.fails = {"SELECT 1 FROM": [errors.UndefinedTable(), errors.UndefinedTable()]}
    assert bad(cluster) == {}


def test_a_primary_that_takes_no_row_is_down_and_nothing_is_read(cluster: Cluster) -> None:
    cluster.fails = {"INSERT": [errors.DiskFull("could not extend file")]}
    found = checks(cluster)
    assert not found["write"].ok and found["write"].critical
    assert "could not extend file" in found["write"].hint
    assert "read back on every standby" not in found
    assert found["clean up"].ok


def test_only_the_commit_of_the_row_waits_for_standbys(cluster: Cluster) -> None:
    ask(cluster.access())
    said = [text for host, text in cluster.said if host == PRIMARY]
    local, reset = (
        said.index("SET synchronous_commit = local"),
        said.index("RESET synchronous_commit"),
    )
    insert = next(at for at, text in enumerate(said) if text.startswith("INSERT"))
    assert local < reset < insert
    made = [at for at, text in enumerate(said) if text.startswith(("CREATE", "DELETE"))]
    assert all(local < at < reset for at in made[:-1])  # the last one removes the row
    assert said[-2:][0] == "SET synchronous_commit = local"


def test_rows_of_killed_rounds_are_removed_after_an_hour(cluster: Cluster) -> None:
    ask(cluster.access())
    assert any("at < now() - interval '1 hour'" in text for _, text in cluster.said)


def test_a_schema_of_somebody_else_is_not_written_to(cluster: Cluster) -> None:
    cluster.owner = ("schema isa_cloud_probe", "mallory")
    found = checks(cluster)
    assert found["write"].unknown
    assert found["write"].hint.startswith(
        "schema isa_cloud_probe belongs to mallory and not to isa"
    )
    assert "DROP SCHEMA isa_cloud_probe CASCADE as postgres" in found["write"].hint
    assert "read back on every standby" not in found
    assert "clean up" not in found
    assert not [text for _, text in cluster.said if text.startswith(("CREATE TABLE", "INSERT"))]


@pytest.mark.parametrize(
    "error",
    [
        errors.UniqueViolation,
        errors.DuplicateTable,
        errors.DuplicateSchema,
        errors.DuplicateObject,
    ],
)
def test_a_table_that_another_round_makes_at_the_same_time_is_taken(
    error: type[psycopg.Error], cluster: Cluster
) -> None:
    cluster.fails = {"CREATE SCHEMA": [error()], "CREATE TABLE": [error()]}
    assert bad(cluster) == {}
    cluster.fails = {"CREATE TABLE": [error(), error(), error()]}
    assert bad(cluster)["write"].critical


def impatient(cluster: Cluster) -> Check:
    access = cluster.access()
    access.timeout_seconds = 0.05
    return next(check for check in ask(access).checks if check.name == "write")


def test_a_commit_that_waits_for_a_synchronous_standby_says_for_which(cluster: Cluster) -> None:
    cluster.hangs, cluster.waits_for = True, "ANY 1 (away)"
    check = impatient(cluster)
    assert not check.ok and check.critical
    assert check.hint.startswith("writes wait for a synchronous standby (ANY 1 (away)): bring one")


def test_a_commit_that_hangs_for_another_reason_is_cancelled(cluster: Cluster) -> None:
    cluster.hangs = True
    assert impatient(cluster).hint == "a commit took longer than 0 s"


def test_a_commit_that_hangs_is_cancelled_though_nobody_says_why(cluster: Cluster) -> None:
    cluster.hangs, cluster.fails = True, {"SyncRep": [psycopg.OperationalError("too many clients")]}
    assert impatient(cluster).hint == "a commit took longer than 0 s"


def test_a_row_that_cannot_be_removed_degrades(cluster: Cluster) -> None:
    cluster.fails = {
        "DELETE FROM isa_cloud_probe.probe WHERE token": [errors.LockNotAvailable("x")]
    }
    check = the_bad_one(cluster)
    assert (check.name, check.critical) == ("clean up", False)


# ---------------------------------------------------------------------- proxies
def pool(primary: str = PRIMARY, **status: str) -> list[dict[str, str]]:
    return [
        {
            "node_id": name[-1],
            "hostname": f"{name}.headless",
            "role": "primary" if name == primary else "standby",
            "status": status.get(f"n{name[-1]}", "up"),
        }
        for name in (PRIMARY, FIRST, SECOND)
    ]


def test_proxies_that_know_the_nodes_and_take_writes_are_ready(cluster: Cluster) -> None:
    cluster.pools = {"pgpool-a": pool(), "pgpool-b": pool(n1="waiting")}
    found = checks(cluster)
    assert found["Pgpool answers"].hint == "2 of 2"
    assert (found["Pgpool knows the nodes"].ok, found["Pgpool knows the nodes"].hint) == (True, "")
    assert found["write through Pgpool"].hint == "2 of 2"
    assert cluster.tokens == set()
    assert "Pgpool answers" not in checks(cluster, pgpool=False)


def test_a_proxy_that_sticks_to_an_old_primary_is_named_with_all_that_it_has_wrong(
    cluster: Cluster,
) -> None:
    cluster.pools = {"pgpool-a": pool(), "pgpool-b": pool(primary=FIRST)}
    check = the_bad_one(cluster)
    assert (check.name, check.critical) == ("Pgpool knows the nodes", False)
    assert check.hint == (
        f"pgpool-b: takes {PRIMARY} for standby: restart that Pgpool; "
        f"takes {FIRST} for primary: restart that Pgpool"
    )


def test_a_proxy_that_has_given_a_node_up_is_named_with_its_cure(cluster: Cluster) -> None:
    cluster.pools = {"pgpool-a": pool(n2="down")}
    assert the_bad_one(cluster).hint == (
        f"pgpool-a: {SECOND} is down: once it answers, attach it there: pcp_attach_node -n 2"
    )


@pytest.mark.parametrize(("failing", "critical"), [(1, False), (2, True)])
def test_clients_are_cut_off_when_no_proxy_takes_a_write(
    failing: int, critical: bool, cluster: Cluster
) -> None:
    cluster.pools = {"pgpool-a": pool(), "pgpool-b": pool()}
    cluster.read_only = {*list(cluster.pools)[:failing]}
    check = the_bad_one(cluster)
    assert (check.name, check.critical) == ("write through Pgpool", critical)
    assert "read-only transaction" in check.hint


def test_a_proxy_is_not_blamed_for_a_primary_that_takes_no_write(cluster: Cluster) -> None:
    cluster.pools = {"pgpool-a": pool()}
    cluster.fails["INSERT INTO"] = [errors.DiskFull("No space left on device")]
    found = checks(cluster)
    assert not found["write"].ok
    assert "write through Pgpool" not in found


def test_with_two_primaries_it_is_said_which_of_them_clients_write_to(cluster: Cluster) -> None:
    cluster.nodes[2].standby, cluster.nodes[2].timeline = False, 4
    cluster.pools = {"pgpool-a": pool(), "pgpool-b": pool(primary=SECOND)}
    check = checks(cluster)["Pgpool writes to"]
    assert (check.ok, check.critical) == (False, False)
    assert check.hint == f"pgpool-a: {PRIMARY}; pgpool-b: {SECOND}"
