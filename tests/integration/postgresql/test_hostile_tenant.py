"""Code that a tenant left in a database is run by nobody else's session: not to back up, check, prove, nor restore."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from components.postgresql.client import connect_long
from components.postgresql.readiness import ask
from components.postgresql.replacement.refusals import refusals

from .conftest import Pair
from .hostile import as_tenant, caught, settle_in

pytestmark = pytest.mark.integration

TRAP = """
    CREATE TABLE isa_cloud_probe.probe (token text PRIMARY KEY, at timestamptz NOT NULL DEFAULT now());
    GRANT ALL ON isa_cloud_probe.probe TO PUBLIC;
    CREATE TRIGGER caught BEFORE INSERT OR DELETE ON isa_cloud_probe.probe
        FOR EACH STATEMENT EXECUTE FUNCTION evil.changed();
"""


@pytest.fixture(scope="module")
def hostile(pair: Pair) -> Iterator[Pair]:
    settle_in(pair)
    yield pair
    pair.drop_kept()


def test_a_backup_and_a_gate_run_nothing_of_a_tenant_s(hostile: Pair) -> None:
    assert hostile.take().manifest.missing == ()
    assert hostile.take_from_primary().manifest.missing == ()
    ask(hostile.access)
    assert caught(hostile.directory) == []


def test_a_question_before_a_restore_runs_nothing_of_a_tenant_s(hostile: Pair) -> None:
    backup = hostile.take()
    with hostile.primary.connect("hostile", user="tenant") as client:
        client.execute("BEGIN")
        client.execute("SELECT 1")
        client.execute("PREPARE TRANSACTION 'kept'")
        try:
            refusals(hostile.access, backup, ["database hostile"])
        finally:
            client.execute("ROLLBACK PREPARED 'kept'")
    assert caught(hostile.directory) == []


@pytest.mark.parametrize("relation", ["view", "foreign_table"])
def test_a_table_that_becomes_a_view_while_it_is_measured_is_refused(
    hostile: Pair, relation: str
) -> None:
    query = f"SELECT * FROM evil.{relation}"
    with (
        connect_long(hostile.access, hostile.primary.endpoint, "hostile") as connection,
        pytest.raises(psycopg.Error, match="restricted"),
    ):
        connection.execute(query)
    assert caught(hostile.directory) == []


def test_a_proof_and_a_restore_run_a_tenant_s_code_with_no_more_than_his_rights(
    hostile: Pair,
) -> None:
    backup = hostile.take()
    proven = hostile.prove(backup)
    _, restored = hostile.restore(backup, "database hostile")
    assert caught(hostile.directory) == []
    assert (proven, restored) == ((), ())


@pytest.mark.parametrize("place", ["schema", "table"])
def test_a_gate_writes_to_nothing_that_another_role_made_in_its_name(
    hostile: Pair, place: str
) -> None:
    run, owner = hostile.primary.run, "isa" if place == "table" else "tenant"
    run("DROP SCHEMA IF EXISTS isa_cloud_probe CASCADE", database="isa")
    run(f"CREATE SCHEMA isa_cloud_probe AUTHORIZATION {owner}", database="isa")
    run("GRANT CREATE, USAGE ON SCHEMA isa_cloud_probe TO tenant, isa", database="isa")
    as_tenant(hostile.primary, TRAP, database="isa")
    try:
        checks = {check.name: check for check in ask(hostile.access).checks}
    finally:
        run("DROP SCHEMA isa_cloud_probe CASCADE", database="isa")
    assert checks["write"].unknown
    assert f"{place} isa_cloud_probe" in checks["write"].hint
    assert "belongs to tenant" in checks["write"].hint
    assert "DROP SCHEMA isa_cloud_probe CASCADE" in checks["write"].hint
    assert not {"read back on every standby", "clean up"} & checks.keys()
    assert caught(hostile.directory) == []
    assert {check.name for check in ask(hostile.access).checks if not check.ok} == set()


def test_a_tenant_can_make_no_event_trigger(hostile: Pair) -> None:
    text = """
        CREATE FUNCTION evil.on_event() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN PERFORM 1; END';
        CREATE EVENT TRIGGER taken ON ddl_command_start EXECUTE FUNCTION evil.on_event()"""
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        as_tenant(hostile.primary, text)
