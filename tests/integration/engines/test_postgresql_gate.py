"""What the gate says of PostgreSQL when nodes die, and when there are two primaries."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import psycopg
import pytest

from cluster.credentials import read_secret
from components.access import Access
from components.postgresql.base_backup.replay import paused_replay
from components.postgresql.client import PORT, STATEFULSET, node_status
from components.postgresql.readiness import ask as ask_engine
from operations.health.gate import Finding

from .live import Live, says, troubles

NODES = [f"postgresql-ha-postgresql-{n}" for n in range(3)]
C = "postgresql"


def connect(live: Live, node: str, user: str = "isa") -> psycopg.Connection[tuple[object, ...]]:
    secret = read_secret(live.environment.kube, live.namespace, "postgresql-ha-auth") or {}
    key = {"isa": "password", "postgres": "postgres-password"}[user]
    return psycopg.connect(
        host=live.address(node), user=user, password=secret[key], dbname="isa", connect_timeout=2, autocommit=True
    )  # fmt: skip


def primary(found: Finding) -> str:
    return next(role.member for role in found.roles if role.role == "primary")


def test_a_healthy_cluster_shows_one_primary_and_two_standbys_with_their_lag(live: Live) -> None:
    found = live.ask(C)
    assert found.state == "ready", troubles(found)
    assert sorted(role.role for role in found.roles) == ["primary", "standby", "standby"]
    assert all(role.lag.endswith(" B") for role in found.roles if role.role == "standby")


def test_a_dead_standby_is_named_and_the_service_only_degraded(live: Live) -> None:
    standby = next(n for n in NODES if n != primary(live.ask(C)))
    live.kill(standby)
    live.until(C, says("standbys stream", standby, state="degraded"), "degraded")
    live.heal()
    live.until(C, lambda f: f.state == "ready", "ready again")


def test_a_lost_primary_is_red_at_once_replaced_soon_and_no_row_that_a_standby_had_is_lost(
    live: Live,
) -> None:
    old = primary(live.ask(C))
    with connect(live, old) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS failover_test (n bigint PRIMARY KEY)")
        connection.execute("TRUNCATE failover_test")
    acknowledged: list[int] = []
    writer = threading.Thread(target=_write_until_it_fails, args=(live, old, acknowledged))
    writer.start()
    while len(acknowledged) < 50:
        time.sleep(0.01)
    live.kill(old)
    _, took = live.until(C, says("one primary", "no node accepts writes", state="down"), "down")
    assert took < 30, "five seconds is the bench's target; this machine is shared"
    writer.join()
    found, took = live.until(
        C, lambda f: f.state == "degraded" and primary(f) != old, "serving again"
    )
    print(f"serving again after {took:.1f} s; {len(acknowledged)} rows were acknowledged")
    assert old in troubles(found)["standbys stream"]
    with connect(live, primary(found)) as connection:
        kept = {int(str(row[0])) for row in connection.execute("SELECT n FROM failover_test")}
    # replication is asynchronous: what may be lost is the last moment, never something in between
    lost = [n for n in acknowledged if n not in kept]
    assert not lost or min(lost) > max(kept, default=0)
    print(
        f"{len(lost)} of {len(acknowledged)} acknowledged rows were lost; no standby is synchronous"
    )
    live.heal()
    found, _ = live.until(C, lambda f: f.state == "ready", "whole again")
    assert primary(found) != old


def test_two_primaries_are_called_a_split_brain_with_both_names(live: Live) -> None:
    first = primary(live.ask(C))
    second = next(n for n in NODES if n != first)
    live.annotate(second, "true")
    live.held.add(second)
    for pid in live.pids(second):  # its failover manager dies, the server lives on
        if b"patroni" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)
    with connect(live, second, "postgres") as connection:
        connection.execute("SELECT pg_promote(true, 30)")
    live.until(C, says("one primary", "split brain", first, second, state="down"), "seen as split")


def test_a_setting_that_waits_for_a_restart_is_named_and_holds_up_no_gate(live: Live) -> None:
    node = primary(live.ask(C))

    def hint() -> str:
        return next(c.hint for c in live.ask(C).checks if c.name == "settings are in force")

    with connect(live, node, "postgres") as connection:
        connection.execute("ALTER SYSTEM SET autovacuum_freeze_max_age = 200000001")
        connection.execute("SELECT pg_reload_conf()")
        try:
            found, _ = live.until(
                C, lambda f: any("autovacuum_freeze_max_age" in c.hint for c in f.checks), "named"
            )
            assert found.state == "ready", troubles(found)
            assert hint() == f"changed, but a restart is needed: {node}: autovacuum_freeze_max_age"
        finally:
            # a setting counts as pending until the file has the value in force; only then may it go from the file
            for change in (
                "SET autovacuum_freeze_max_age = 200000000",
                "RESET autovacuum_freeze_max_age",
            ):
                connection.execute(f"ALTER SYSTEM {change}")
                connection.execute("SELECT pg_reload_conf()")
                time.sleep(1)
    live.until(
        C, lambda f: not any("autovacuum_freeze_max_age" in c.hint for c in f.checks), "gone"
    )


def test_all_nodes_dead_is_down_with_the_reason(live: Live) -> None:
    live.kill(*NODES)
    live.until(C, says("nodes answer", "nothing listens there", state="down"), "down")


def test_a_wrong_password_is_called_by_its_name(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    from components.access import Access

    with Access(live.environment.settings, live.environment.kube) as access:
        monkeypatch.setattr(access, "secret", lambda name, key: "wrong")
        report = ask_engine(access)
    hints = {check.name: check.hint for check in report.checks if not check.ok}
    assert "refused the credentials" in hints["nodes answer"]
    assert all(name in hints["nodes answer"] for name in NODES)


def _write_until_it_fails(live: Live, node: str, acknowledged: list[int]) -> None:
    with connect(live, node) as connection:
        for number in range(1, 1_000_000):
            try:
                connection.execute("INSERT INTO failover_test VALUES (%s)", [number])
            except psycopg.Error:
                return
            acknowledged.append(number)


def test_a_standby_that_a_backup_holds_is_no_trouble_but_one_held_by_hand_is(live: Live) -> None:
    settings, kube = live.environment.settings, live.environment.kube
    with Access(settings, kube) as access:
        nodes = access.endpoints(STATEFULSET, 3, PORT)
        standby = next(node for node in nodes if node_status(access, node).standby)
        with paused_replay(access, standby):
            found = live.ask(C)
            assert found.state == "ready"
            hints = {check.name: check.hint for check in found.checks}
            assert hints["replay goes on"] == f"{standby.member} paused by a backup"
    with connect(live, standby.member, "postgres") as hand:
        hand.execute("SELECT pg_wal_replay_pause()")
        try:
            live.until(C, says("replay goes on", "by hand", "pg_wal_replay_resume"), "seen")
        finally:
            hand.execute("SELECT pg_wal_replay_resume()")
