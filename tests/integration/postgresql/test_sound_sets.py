"""A sound set passes its proof, whatever its databases hold and whatever goes on while it is taken."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from archive.backup.reader import SetReader
from components.postgresql import backup as taking
from components.postgresql import client
from components.postgresql.base_backup.replay import paused_replay
from components.postgresql.dumps.contents import Snapshot, snapshots

from .conftest import Pair

pytestmark = pytest.mark.integration

UNSTABLE = """
    CREATE TABLE state (
        s varchar CHECK (s IN ('a', 'b')), t varchar(3) DEFAULT 'a' CHECK (t <> ALL (ARRAY['x', 'y'])),
        known bool GENERATED ALWAYS AS (s IN ('a', 'b')) STORED);
    CREATE INDEX partly ON state (s) WHERE s IN ('a', 'b');
    CREATE INDEX computed ON state ((s IN ('a', 'b')));
    CREATE VIEW seen AS SELECT s, CASE WHEN s IN ('a', 'b') THEN 1 END AS n FROM state WHERE t IN ('c', 'd');
    CREATE DOMAIN short AS varchar CHECK (VALUE IN ('a', 'b'));
    CREATE POLICY mine ON state USING (s IN ('a', 'b'));
    CREATE FUNCTION f(x varchar DEFAULT 'q') RETURNS bool RETURN x IN ('a', 'b');
    CREATE FUNCTION g() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TRIGGER changed BEFORE UPDATE ON state FOR EACH ROW WHEN (NEW.s IN ('a', 'b')) EXECUTE FUNCTION g();
    INSERT INTO state (s) VALUES ('a');
    CREATE TABLE parent (a int); CREATE TABLE child (b int) INHERITS (parent); ALTER TABLE parent ADD COLUMN c text;
    INSERT INTO child VALUES (1, 2, 'three');
    CREATE TABLE twice (n int); INSERT INTO twice VALUES (1), (1);
"""


@pytest.fixture
def odd(pair: Pair) -> Iterator[Pair]:
    run = pair.primary.run
    run("CREATE DATABASE odd")
    yield pair
    pair.drop_kept()
    run("ALTER DATABASE odd RESET ALL", "DROP DATABASE odd (FORCE)")


def test_a_restore_that_says_the_same_in_other_words_is_equal(odd: Pair) -> None:
    odd.primary.run(UNSTABLE, database="odd")
    with pytest.raises(Exception, match="could not create unique index"):
        odd.primary.run("CREATE UNIQUE INDEX CONCURRENTLY broken ON twice (n)", database="odd")
    with odd.primary.connect("odd") as client:
        client.execute("CREATE TEMP TABLE mine (n int PRIMARY KEY, v varchar DEFAULT 'x')")
        client.execute("CREATE TEMP VIEW yours AS SELECT * FROM mine")
        backup = odd.take()
        assert "public.broken" in "; ".join(backup.manifest.not_covered)
        assert odd.prove(backup) == ()
        assert odd.restore(backup, "database odd")[1] == ()


def test_a_change_of_an_expression_or_of_a_row_is_still_seen(odd: Pair) -> None:
    odd.primary.run(UNSTABLE, database="odd")
    backup = odd.take()
    odd.primary.run(
        "ALTER TABLE state DROP CONSTRAINT state_s_check, ADD CONSTRAINT state_s_check CHECK (s IN ('a', 'c'))",
        "CREATE OR REPLACE VIEW seen AS SELECT s, 1 AS n FROM state WHERE t IN ('c', 'd')",
        "UPDATE child SET a = 2, b = 1",
        database="odd",
    )
    found = {one.item for one in odd.differences(backup, "database odd")}
    assert found == {"constraint definitions", "view definitions", "table public.child"}


LOGIN = """
    CREATE TABLE logins (who text);
    CREATE FUNCTION note() RETURNS event_trigger LANGUAGE plpgsql AS
        'BEGIN IF NOT pg_is_in_recovery() THEN INSERT INTO public.logins VALUES (session_user); END IF; END';
    CREATE EVENT TRIGGER on_login ON login EXECUTE FUNCTION note(); ALTER EVENT TRIGGER on_login ENABLE ALWAYS;
    CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''not here''; END';
    CREATE EVENT TRIGGER on_change ON ddl_command_start EXECUTE FUNCTION refuse();
"""


def test_event_triggers_are_none_of_a_backup_s_business(odd: Pair) -> None:
    odd.primary.run(LOGIN, database="odd")
    backup = odd.take()
    assert odd.prove(backup) == ()
    assert odd.restore(backup, "database odd")[1] == ()


def test_limits_that_others_set_end_no_backup(odd: Pair) -> None:
    odd.primary.run(
        "ALTER DATABASE odd SET statement_timeout = '1ms'",
        "ALTER DATABASE odd SET idle_in_transaction_session_timeout = '1ms'",
        "ALTER DATABASE odd SET transaction_timeout = '1ms'",
        "ALTER DATABASE odd SET idle_session_timeout = '1ms'",
        "ALTER DATABASE odd SET lock_timeout = '1ms'",
        "ALTER DATABASE odd SET client_encoding = 'LATIN1'",
        "ALTER DATABASE odd SET default_transaction_read_only = on",
    )
    backup = odd.take()
    assert backup.manifest.outcome == "complete"
    assert odd.restore(backup, "database odd")[1] == ()


VALUES = """
    CREATE TABLE kept (list text[], span interval, amount money, at timestamptz, n float8, b bytea);
    INSERT INTO kept VALUES (ARRAY[NULL, 'b'], '-1 day +02:03:00', '1.5', '2026-02-03 04:05+06', 0.1, '\\x01');
    CREATE VIEW never AS SELECT * FROM kept WHERE n = NULL;
"""
# All that the owner of a database may set for every session in it, and that values depend on.
CHANGED = (
    "array_nulls = off", "transform_null_equals = on", "intervalstyle = sql_standard", "datestyle = 'SQL, DMY'",
    "timezone = 'Asia/Kolkata'", "extra_float_digits = -15", "bytea_output = escape", "quote_all_identifiers = on",
    "standard_conforming_strings = off", "backslash_quote = off", "xmloption = document", "xmlbinary = hex",
    "row_security = off", "constraint_exclusion = on", "default_transaction_isolation = serializable",
    "default_transaction_deferrable = on", "local_preload_libraries = 'no_such_library'", "search_path = pg_temp",
)  # fmt: skip


@pytest.mark.parametrize("whose", ["DATABASE odd", "ROLE postgres IN DATABASE odd"])
def test_no_setting_of_a_database_changes_what_is_stored_or_compared(odd: Pair, whose: str) -> None:
    odd.primary.run(VALUES, database="odd")
    plain = odd.take()
    odd.primary.run(*(f"ALTER {whose} SET {setting}" for setting in CHANGED))
    try:
        backup = odd.take()
        found = {one.item: one.digest for one in backup.manifest.fingerprint if "odd" in one.unit}
        for one in plain.manifest.fingerprint:
            if one.unit == "database odd" and one.item != "database":
                assert found[one.item] == one.digest, one.item
        assert odd.prove(backup) == ()
        assert odd.restore(backup, "database odd")[1] == ()
    finally:
        odd.primary.run(f"ALTER {whose} RESET ALL")


@pytest.fixture
def troubled(odd: Pair) -> Iterator[Pair]:
    """Beside a good database three that cannot be taken, and one of bytes."""
    run = odd.primary.run
    run(
        "CREATE DATABASE bytes ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0",
        "CREATE DATABASE latin ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0",
        "CREATE DATABASE closed ALLOW_CONNECTIONS false",
        "CREATE DATABASE half_dropped",
        "UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'half_dropped'",
    )
    run("CREATE TABLE names AS SELECT 'Zoë'::text AS name", database="bytes")
    with odd.primary.connect("latin") as connection:
        connection.execute(b"SET client_encoding = 'SQL_ASCII'")
        connection.execute(b'CREATE TABLE "caf\xe9" (n int)')
    yield odd
    run("ALTER DATABASE closed ALLOW_CONNECTIONS true")
    run(*(f"DROP DATABASE {name} (FORCE)" for name in ("bytes", "latin", "closed", "half_dropped")))


def test_a_database_that_cannot_be_taken_is_named_and_costs_no_other(troubled: Pair) -> None:
    backup = troubled.take()
    assert [one.partition(": ")[0] for one in backup.manifest.missing] == [
        "database closed",
        "database half_dropped",
        "database latin",
    ]
    assert troubled.prove(backup) == ()
    units = {one.unit for one in backup.manifest.artefacts}
    assert {"database bytes", "database odd"} <= units
    assert "database latin" not in units
    troubled.primary.run("DROP TABLE names", database="bytes")
    assert troubled.restore(backup, "database bytes")[1] == ()


def test_a_backup_waits_for_a_moment_in_which_no_table_is_locked(odd: Pair) -> None:
    odd.primary.run("CREATE TABLE busy (n int)", database="odd")
    with odd.primary.connect("odd") as client:
        client.execute("BEGIN")
        client.execute("LOCK TABLE busy")
        odd.primary.run("CREATE TABLE another (n int)")  # whose commit sends the lock on its way
        odd.primary.run("DROP TABLE another")
        odd.caught_up()
        with paused_replay(odd.access, odd.standby.endpoint, lock_seconds=0.0) as pause:
            assert list(pause.locked) == ["odd"]
        release = threading.Timer(1.0, client.execute, ["COMMIT"])
        release.start()
        with paused_replay(odd.access, odd.standby.endpoint) as pause:
            assert pause.locked == {}
        release.join()


def test_a_table_that_is_dropped_while_a_primary_is_read_costs_another_look_at_its_database(
    odd: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd.primary.run("CREATE TABLE passing (n int)", database="odd")

    @contextmanager
    def dropping(*args: Any) -> Iterator[dict[str, Snapshot]]:
        with snapshots(*args) as found:
            odd.primary.run("DROP TABLE IF EXISTS passing", database="odd")
            yield found

    monkeypatch.setattr(taking, "snapshots", dropping)
    backup = odd.take_from_primary()
    assert backup.manifest.missing == ()
    assert odd.prove(backup) == ()


@contextmanager
def busy(pair: Pair, *statements: str) -> Iterator[None]:
    """Have a client that runs these over and over."""
    stop = threading.Event()

    def write() -> None:
        with pair.primary.connect("odd") as tenant:
            while not stop.is_set():
                for statement in statements:
                    tenant.execute(statement.encode())

    tenant = threading.Thread(target=write)
    tenant.start()
    try:
        yield
    finally:
        stop.set()
        tenant.join()


def test_tables_that_come_and_go_all_the_time_cost_a_set_their_own_database_at_most(
    odd: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (client, taking):
        monkeypatch.setattr(module, "LOCK_TIMEOUT", "1s")
    with busy(
        odd,
        "CREATE TABLE passing (n int)",
        "INSERT INTO passing VALUES (1), (2)",
        "DROP TABLE passing",
    ):
        backup = odd.take_from_primary()
    lost = [one for one in backup.manifest.missing if one.startswith("database odd: ")]
    assert list(backup.manifest.missing) == lost
    assert all("were dropped while it was read" in one or "is locked" in one for one in lost)
    assert odd.prove(backup) == ()


def test_files_of_a_primary_may_have_what_clients_wrote_and_nothing_else(odd: Pair) -> None:
    # a queue that is empty before and after, and full in between
    odd.primary.run(
        "CREATE TABLE jobs (n int)",
        "CREATE TABLE state (n int)",
        "CREATE TABLE still (n int)",
        "INSERT INTO state VALUES (0)",
        "INSERT INTO still VALUES (1), (2)",
        database="odd",
    )
    with busy(
        odd,
        "INSERT INTO jobs SELECT generate_series(1, 50)",
        "UPDATE state SET n = 1",
        "DELETE FROM jobs",
        "UPDATE state SET n = 0",
    ):
        backup = odd.take_from_primary()
    assert backup.manifest.missing == ()
    assert odd.prove(backup) == ()
    changed = backup.manifest.topology["rows_changed"]["odd"]
    assert changed["public.jobs"] >= 100
    assert changed["public.state"] == 0
    assert "public.still" not in changed
    (still,) = (one for one in backup.manifest.fingerprint if one.item == "rows of public.still")
    other = still.model_copy(update={"count": 3})
    measures = [other if one == still else one for one in backup.manifest.fingerprint]
    wrong = backup.manifest.model_copy(update={"fingerprint": tuple(measures)})
    found = odd.prove(SetReader(backup.store, wrong, str(odd.key)))
    assert {one.what for one in found} == {"files: 2 instead of 3", "dumps: 2 instead of 3"}


@pytest.mark.parametrize("members", [1, 2])
def test_a_lock_that_is_held_all_the_time_costs_its_own_database_only(
    odd: Pair, monkeypatch: pytest.MonkeyPatch, members: int
) -> None:
    for module in (client, taking):
        monkeypatch.setattr(module, "LOCK_TIMEOUT", "1s")
    monkeypatch.setattr(taking, "paused_replay", partial(paused_replay, lock_seconds=0.0))
    odd.primary.run("CREATE TABLE busy (n int)", "CREATE ROLE holder LOGIN PASSWORD 'of-nobody'",
                    "ALTER TABLE busy OWNER TO holder", database="odd")  # fmt: skip
    try:
        with odd.primary.connect("odd", user="holder") as holder:
            holder.execute("BEGIN")
            holder.execute("LOCK TABLE busy")
            odd.primary.run(
                "CREATE TABLE another (n int)"
            )  # whose commit sends the lock on its way
            odd.primary.run("DROP TABLE another")
            odd.caught_up()
            taken = odd.take() if members == 2 else odd.take_from_primary()
        (missing,) = taken.manifest.missing
        assert missing.startswith(
            "database odd: a table is locked, so it cannot be read (public.busy held by "
        )
        assert ("of role holder" in missing) == (members == 1)
        assert {"database isa", "database postgres"} <= {
            one.unit for one in taken.manifest.artefacts
        }
    finally:
        odd.primary.run("DROP TABLE busy", "DROP ROLE holder", database="odd")


def test_a_server_s_own_settings_do_not_reach_a_scratch_server(odd: Pair) -> None:
    run = odd.standby.run
    for setting in (
        "unix_socket_directories = '/nowhere'",
        "restore_command = 'exit 1'",
        "log_directory = '/nowhere'",
        "logging_collector = on",
    ):
        run(f"ALTER SYSTEM SET {setting}")
    odd.primary.run("CREATE TABLE t (n int)", database="odd")
    with odd.primary.connect("odd") as client:
        client.execute("BEGIN")
        client.execute("INSERT INTO t VALUES (1)")
        client.execute("PREPARE TRANSACTION 'left over'")
    try:
        assert odd.prove(odd.take()) == ()
    finally:
        odd.primary.run("ROLLBACK PREPARED 'left over'", database="odd")
        run("ALTER SYSTEM RESET ALL")


def test_a_tablespace_makes_a_set_and_its_proof_partial_and_nothing_worse(odd: Pair) -> None:
    fast = odd.directory / "fast"
    fast.mkdir()
    odd.standby.stop()  # on one machine it would write to the same directory as the primary
    odd.primary.run(f"CREATE TABLESPACE fast LOCATION '{fast}'")
    try:
        odd.primary.run("CREATE DATABASE quick TABLESPACE fast")
        odd.primary.run("CREATE TABLE slow (n int) TABLESPACE pg_default", database="quick")
        odd.primary.run("CREATE TABLE moved TABLESPACE fast AS SELECT 1 AS n", database="odd")
        backup = odd.take_from_primary()
        assert backup.manifest.missing == (
            "no base backup: pg_basebackup cannot send tablespaces (fast) as one stream",
        )
        assert odd.prove(backup) == ()
        assert odd.restore(backup, "database odd", "database quick")[1] == ()
    finally:
        odd.drop_kept()
        odd.primary.run("DROP DATABASE quick (FORCE)")
        odd.primary.run("DROP TABLE moved", database="odd")
        odd.primary.run("DROP TABLESPACE fast")
        odd.standby.start()
