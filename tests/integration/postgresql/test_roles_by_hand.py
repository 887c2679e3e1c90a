"""The roles of docs/restore-by-hand.md: made from data, so that what a tenant wrote into a setting stays a setting."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.postgresql.catalog.properties import stored_globals
from sandbox.machine import postgres

from .conftest import PASSWORD, Pair, Server, free_port

pytestmark = pytest.mark.integration

DOCUMENT = Path(__file__).parents[3] / "docs" / "restore-by-hand.md"
SCRIPT = re.compile(r"^psql [^\n]* <<'END'\n(.*?)^END$", re.MULTILINE | re.DOTALL)
MADE = """
    CREATE ROLE team CONNECTION LIMIT 3;
    CREATE ROLE "an ""odd"" one" LOGIN PASSWORD 'x' CREATEDB CREATEROLE NOINHERIT REPLICATION BYPASSRLS
        VALID UNTIL '2031-01-01 00:00+00';
    COMMENT ON ROLE team IS E'it''s \\\\ a\\nCREATE ROLE smuggled;';
    GRANT team TO "an ""odd"" one" WITH ADMIN TRUE, INHERIT FALSE;
    GRANT pg_monitor TO team;
    ALTER ROLE team SET application_name = E'x\\nCREATE ROLE postgres; y';
    ALTER ROLE team SET isa.second = E'x''; CREATE ROLE smuggled SUPERUSER; \\\\! touch /tmp/smuggled';
    ALTER ROLE team SET search_path = "$user", "a ""b"", c", public, pg_catalog;
    ALTER ROLE team SET temp_tablespaces = '';
    ALTER ROLE postgres SET lock_timeout = '7min';
    ALTER ROLE ALL SET gin_fuzzy_search_limit = 7;
"""
STATE = """
    SELECT jsonb_build_object(
        'roles', (SELECT jsonb_agg(to_jsonb(a) - 'oid' - CASE rolname WHEN 'postgres' THEN 'rolpassword' ELSE '' END
                                   || jsonb_build_object('comment', shobj_description(oid, 'pg_authid'))
                                   ORDER BY rolname)
                  FROM pg_authid a),
        'settings', (SELECT jsonb_agg(jsonb_build_array(coalesce(rolname, 'ALL'), setconfig) ORDER BY rolname)
                     FROM pg_db_role_setting s LEFT JOIN pg_authid a ON a.oid = setrole WHERE setdatabase = 0),
        'members', (SELECT jsonb_agg(jsonb_build_array(r.rolname, m.rolname, admin_option, inherit_option, set_option)
                                     ORDER BY r.rolname, m.rolname)
                    FROM pg_auth_members a JOIN pg_authid r ON r.oid = a.roleid
                    JOIN pg_authid m ON m.oid = a.member))::text
"""


@pytest.fixture
def empty(pair: Pair) -> Iterator[Server]:
    server = Server("empty", pair.directory / "empty", free_port())
    postgres.initialise(server.data, "postgres", PASSWORD)
    server.start()
    yield server
    server.stop()


def test_roles_come_back_with_all_that_they_are_and_nothing_of_a_setting_is_run(
    pair: Pair, empty: Server
) -> None:
    pair.primary.run(*(one for one in MADE.split(";\n") if one.strip()))
    kept = stored_globals(pair.take())
    assert kept is not None
    work = pair.directory / "hand"
    work.mkdir()
    (work / "roles.json").write_text(kept.roles.model_dump_json())
    (script,) = SCRIPT.findall(DOCUMENT.read_text())
    argv = [
        str(postgres.programs() / "psql"),
        "-X",
        "-q",
        "-v",
        "ON_ERROR_STOP=1",
        "-d",
        "template1",
    ]
    where = {
        "PGHOST": "127.0.0.1",
        "PGPORT": str(empty.port),
        "PGUSER": "postgres",
        "PGPASSWORD": PASSWORD,
    }
    done = subprocess.run(
        argv, input=script, cwd=work, env={**os.environ, **where}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(empty.ask(STATE)) == json.loads(pair.primary.ask(STATE))
    assert not Path("/tmp/smuggled").exists()
