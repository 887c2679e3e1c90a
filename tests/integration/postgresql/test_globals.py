"""What belongs to no database comes back, and what somebody decided since a backup is not turned back by a restore."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from components.postgresql import live
from components.postgresql.client import connect_long
from components.postgresql.connection.failures import explained
from errors import IsaError

from .conftest import Pair

pytestmark = pytest.mark.integration

ATTRIBUTES = """
    SELECT string_agg(format('%s %s %s %s %s', rolname, rolsuper, rolcanlogin, rolvaliduntil, rolpassword), ', '
                      ORDER BY rolname) FROM pg_authid WHERE rolname IN ('kept', 'demoted', 'needed')
"""


@pytest.fixture
def roles(pair: Pair) -> Iterator[Pair]:
    run = pair.primary.run
    run(
        "CREATE ROLE demoted SUPERUSER LOGIN PASSWORD 'old'",
        "CREATE ROLE kept LOGIN PASSWORD 'old' VALID UNTIL '2030-01-01'",
        "CREATE ROLE team",
        'CREATE ROLE "needed ""one""" LOGIN PASSWORD \'back\' CONNECTION LIMIT 3',
        'GRANT team TO kept, "needed ""one"""',
        "CREATE ROLE nobodys",
        "ALTER ROLE demoted SET application_name = E'x\nCREATE ROLE smuggled SUPERUSER; --'",
        "CREATE DATABASE shop",
    )
    run(
        "CREATE TABLE goods AS SELECT 1 AS n",
        'GRANT SELECT ON goods TO "needed ""one"""',
        database="shop",
    )
    yield pair
    pair.drop_kept()
    run("DROP DATABASE shop (FORCE)", "ALTER ROLE postgres RESET ALL", "ALTER ROLE ALL RESET ALL")
    run("ALTER SYSTEM RESET ALL", "SELECT pg_reload_conf()")
    names = ("demoted", "kept", "team", '"needed ""one"""', "nobodys")
    run(*(f"DROP ROLE IF EXISTS {name}" for name in names))


def test_a_restored_database_changes_no_role_that_is_there_and_brings_back_those_it_needs(
    roles: Pair,
) -> None:
    run, ask = roles.primary.run, roles.primary.ask
    backup = roles.take()
    run(
        "ALTER ROLE demoted NOSUPERUSER NOLOGIN",
        "ALTER ROLE demoted RESET application_name",
        "ALTER ROLE kept VALID UNTIL '2040-01-01' PASSWORD 'new'",
        "REVOKE team FROM kept",
        "DROP ROLE nobodys",
    )
    run('DROP OWNED BY "needed ""one"""', database="shop")
    run('DROP ROLE "needed ""one"""')
    before = ask(ATTRIBUTES)
    back, stays = live.LIVE.remarks(roles.access, backup.manifest, ["database shop"])  # type: ignore[misc]
    assert back == 'roles that come back with the passwords of the backup: needed "one"'
    assert "stay as they are now: " in stays
    assert {"demoted", "kept", "kept in team"} <= set(stays.partition(": ")[2].split(", "))
    told, differences = roles.restore(backup, "database shop")
    assert differences == ()
    assert ask(ATTRIBUTES) == before
    assert ask("SELECT count(*) FROM pg_auth_members WHERE member = 'kept'::regrole") == 0
    assert ask("SELECT count(*) FROM pg_db_role_setting WHERE setrole = 'demoted'::regrole") == 0
    assert ask("SELECT rolconnlimit FROM pg_authid WHERE rolname = 'needed \"one\"'") == 3
    assert ask("SELECT pg_has_role('needed \"one\"', 'team', 'member')") is True
    assert 'needed "one"' in told[0]
    assert "nobodys" in told[1]
    assert "--unit globals" in told[1]
    assert ask("SELECT count(*) FROM pg_roles WHERE rolname IN ('nobodys', 'smuggled')") == 0


def test_roles_and_settings_of_the_server_come_back_where_they_are_asked_for(roles: Pair) -> None:
    run, ask = roles.primary.run, roles.primary.ask
    run(
        "ALTER SYSTEM SET work_mem = '5MB'",
        "ALTER SYSTEM SET shared_preload_libraries = ''",
        "ALTER ROLE postgres SET lock_timeout = '7min'",
        "ALTER ROLE ALL SET gin_fuzzy_search_limit = 7",
    )
    backup = roles.take()
    assert roles.prove(backup) == ()
    run(
        "ALTER SYSTEM RESET ALL",
        "ALTER SYSTEM SET maintenance_work_mem = '9MB'",
        "SELECT pg_reload_conf()",
        "ALTER ROLE postgres RESET ALL",
        "ALTER ROLE ALL RESET ALL",
        "ALTER ROLE demoted NOSUPERUSER",
        "ALTER ROLE kept PASSWORD 'new'",
        "REVOKE team FROM kept",
        "DROP ROLE nobodys",
    )
    password = ask("SELECT rolpassword FROM pg_authid WHERE rolname = 'kept'")
    told, differences = roles.restore(backup, "globals")
    assert differences == ()
    assert told[0].endswith("nobodys")
    assert ask("SELECT rolsuper FROM pg_authid WHERE rolname = 'demoted'") is True
    assert ask("SELECT rolpassword FROM pg_authid WHERE rolname = 'kept'") == password
    assert ask("SELECT count(*) FROM pg_roles WHERE rolname = 'smuggled'") == 0
    for server in (roles.primary, roles.standby):
        kept = (server.data / "postgresql.auto.conf").read_text()
        assert "work_mem = '5MB'" in kept
        assert "maintenance_work_mem" not in kept
        assert server.ask("SHOW work_mem") == "5MB"
    assert ask("SHOW lock_timeout") == "7min"


CHANGES = {
    "ALTER ROLE kept BYPASSRLS": "role attributes",
    "ALTER ROLE kept VALID UNTIL '2031-01-01'": "role attributes",
    "ALTER ROLE kept CONNECTION LIMIT 9": "role attributes",
    "ALTER ROLE kept NOINHERIT": "role attributes",
    "ALTER ROLE kept CREATEROLE": "role attributes",
    "ALTER ROLE kept CREATEDB": "role attributes",
    "ALTER ROLE kept REPLICATION": "role attributes",
    "ALTER ROLE kept NOLOGIN": "role attributes",
    "COMMENT ON ROLE kept IS 'x'": "role attributes",
    "ALTER ROLE kept SET work_mem = '1MB'": "settings of roles",
    "ALTER ROLE ALL SET work_mem = '1MB'": "settings of roles",
    "REVOKE team FROM kept": "memberships",
    "GRANT team TO kept WITH ADMIN TRUE": "memberships",
    "GRANT team TO kept WITH INHERIT FALSE": "memberships",
    "GRANT team TO kept WITH SET FALSE": "memberships",
}


def test_each_attribute_of_a_role_is_compared(roles: Pair) -> None:
    backup = roles.take()
    assert roles.differences(backup, "globals") == ()
    for change, item in CHANGES.items():
        roles.primary.run(change)
        assert [one.item for one in roles.differences(backup, "globals")] == [item], change
        assert roles.restore(backup, "globals")[1] == ()


def test_settings_of_a_role_in_a_database_are_compared_and_come_back(roles: Pair) -> None:
    run = roles.primary.run
    run("ALTER ROLE kept IN DATABASE shop SET application_name = E'x\nCREATE ROLE smuggled; y'")
    run("ALTER DATABASE shop SET application_name = E'x\nCREATE ROLE smuggled SUPERUSER; y'")
    backup = roles.take()
    assert roles.prove(backup) == ()
    run("ALTER ROLE kept IN DATABASE shop RESET ALL", "ALTER DATABASE shop RESET ALL")
    assert {one.item for one in roles.differences(backup, "database shop")} == {"database"}
    assert roles.restore(backup, "database shop")[1] == ()
    assert roles.primary.ask("SELECT count(*) FROM pg_roles WHERE rolname = 'smuggled'") == 0


def test_a_role_that_the_server_refuses_is_told_without_its_verifier(roles: Pair) -> None:
    verifier = roles.primary.ask("SELECT rolpassword FROM pg_authid WHERE rolname = 'kept'")
    with (
        connect_long(roles.access, roles.primary.endpoint) as connection,
        pytest.raises(IsaError) as raised,
        explained("node-0"),
    ):
        connection.execute(f"ALTER ROLE kept WITH PASSWORD '{verifier}' OF_A_NEWER_SERVER")
    assert "of_a_newer_server" in raised.value.said
    assert not re.search("|".join(map(re.escape, verifier.split("$"))), str(raised.value))


def test_what_is_gone_of_the_server_is_seen_by_the_comparison(roles: Pair) -> None:
    run = roles.primary.run
    run("ALTER SYSTEM SET work_mem = '5MB'", "ALTER ROLE postgres SET lock_timeout = '7min'")
    backup = roles.take()
    run("ALTER SYSTEM RESET ALL", "ALTER ROLE postgres RESET ALL", "ALTER ROLE kept NOLOGIN")
    found = roles.differences(backup, "globals")
    assert {one.item for one in found} == {
        "role attributes",
        "settings of roles",
        "settings of ALTER SYSTEM",
    }
    assert "missing work_mem" in next(one.what for one in found if "ALTER" in one.item)
