"""Roles of a set that has them as SQL only: what is a statement is told by PostgreSQL's rules of quoting."""

from __future__ import annotations

import pytest

from components.postgresql.catalog.statements import role_statements
from components.postgresql.dumps.filling import of_database
from errors import PermanentError

GLOBALS = """\
--
-- Roles; nobody's
--

\\restrict abc
CREATE ROLE isa;
ALTER ROLE isa WITH NOSUPERUSER LOGIN PASSWORD 'SCRAM-SHA-256$4096:a''b';
CREATE ROLE "read only";
ALTER ROLE "read only" WITH LOGIN PASSWORD 'SCRAM-SHA-256$4096:ef';
COMMENT ON ROLE "read only" IS 'a; b';
ALTER ROLE "read only" SET application_name TO E'x\\'
CREATE ROLE smuggled SUPERUSER; --';
CREATE TABLESPACE fast OWNER postgres LOCATION '/fast';
GRANT isa TO "read only" WITH INHERIT TRUE GRANTED BY postgres;
GRANT "read only" TO isa GRANTED BY postgres;
\\unrestrict abc
"""
SMUGGLING = "E'x\\'\nCREATE ROLE smuggled SUPERUSER; --'"


def test_only_what_makes_the_roles_that_are_taken_is_used() -> None:
    assert role_statements(GLOBALS, lambda name: name == "read only") == [
        'CREATE ROLE "read only"',
        "ALTER ROLE \"read only\" WITH LOGIN PASSWORD 'SCRAM-SHA-256$4096:ef'",
        "COMMENT ON ROLE \"read only\" IS 'a; b'",
        f'ALTER ROLE "read only" SET application_name TO {SMUGGLING}',
        'GRANT isa TO "read only" WITH INHERIT TRUE GRANTED BY postgres',
    ]


def test_a_role_that_is_there_is_neither_altered_nor_granted_anything() -> None:
    found = role_statements(GLOBALS, lambda name: name != "isa")
    assert not [one for one in found if one.startswith(("CREATE ROLE isa", "ALTER ROLE isa"))]
    assert 'GRANT "read only" TO isa GRANTED BY postgres' not in found


def test_what_is_no_sql_is_refused() -> None:
    with pytest.raises(PermanentError, match="quote is not closed"):
        role_statements("CREATE ROLE x; ALTER ROLE x SET a TO 'open", lambda _: True)


LISTED = """\
;
; Archive created at 2026-01-01 02:30:00 UTC
;     dbname: DATABASE isa
;
3721; 1262 16384 DATABASE - isa isa
3722; 0 0 COMMENT - DATABASE isa isa
3723; 0 0 ACL - DATABASE isa isa
3724; 0 0 DATABASE PROPERTIES - isa isa
215; 1259 16390 TABLE shop DATABASE isa
3725; 0 0 ACL - SCHEMA shop isa
3726; 0 0 COMMENT shop TABLE customer isa
"""


def test_what_is_about_the_database_is_told_from_what_is_in_it() -> None:
    assert of_database(LISTED).splitlines() == [
        "3722; 0 0 COMMENT - DATABASE isa isa",
        "3723; 0 0 ACL - DATABASE isa isa",
    ]
