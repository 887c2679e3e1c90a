"""The gate says what keeps clients from writing, within seconds, and never meets another round of itself."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from components.postgresql.client import answered_within
from components.postgresql.readiness import ask

from .conftest import Pair

pytestmark = pytest.mark.integration

ROUNDS = 10


def test_three_gates_at_once_find_nothing_wrong(pair: Pair) -> None:
    def round_of(_: int) -> list[str]:
        return [f"{c.name}: {c.hint}" for c in ask(pair.access).checks if not c.ok]

    with ThreadPoolExecutor(3) as pool:
        for _ in range(ROUNDS):  # each time with nothing there that they write to
            pair.primary.run("DROP SCHEMA IF EXISTS isa_cloud_probe CASCADE", database="isa")
            assert [one for found in pool.map(round_of, range(3)) for one in found] == []
    assert pair.primary.ask("SELECT count(*) FROM isa_cloud_probe.probe", "isa") == 0


def test_an_owner_who_may_not_see_replication_is_told_what_to_grant(pair: Pair) -> None:
    pair.primary.run("REVOKE pg_monitor FROM isa")
    try:
        checks = {check.name: check for check in ask(pair.access).checks}
    finally:
        pair.primary.run("GRANT pg_monitor TO isa")
    assert "GRANT pg_monitor TO isa" in checks["standbys stream"].hint
    assert checks["write"].ok


def test_a_server_that_stands_still_does_not_keep_whoever_asks_it(pair: Pair) -> None:
    with pair.primary.connect() as asked, pytest.raises(psycopg.OperationalError):
        server = asked.info.backend_pid
        os.kill(server, signal.SIGSTOP)
        try:
            with answered_within(asked, 0.5):
                asked.execute("SELECT 1")
        finally:
            os.kill(server, signal.SIGCONT)


def test_a_commit_that_no_standby_acknowledges_is_named_within_seconds(pair: Pair) -> None:
    run = pair.primary.run
    run("ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (gone)'", "SELECT pg_reload_conf()")
    try:
        began = time.monotonic()
        write = next(check for check in ask(pair.access).checks if check.name == "write")
        assert time.monotonic() - began < 15
        assert write.critical
        assert not write.ok
        assert "writes wait for a synchronous standby (ANY 1 (gone))" in write.hint
        assert pair.primary.ask("SELECT count(*) FROM isa_cloud_probe.probe", "isa") == 0
        backup = pair.take()  # and neither a backup nor a restore waits for it
        pair.primary.run(
            "SET synchronous_commit = local", "DROP SCHEMA isa_cloud_probe CASCADE", database="isa"
        )
        assert pair.restore(backup, "database isa")[1] == ()
    finally:
        run("ALTER SYSTEM RESET ALL", "SELECT pg_reload_conf()")
        pair.drop_kept()
    assert all(check.ok for check in ask(pair.access).checks)
