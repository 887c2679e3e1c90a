from components.postgresql.live import live_roles, of_database

GLOBALS = """\
\\restrict abc
CREATE ROLE isa;
ALTER ROLE isa WITH NOSUPERUSER LOGIN PASSWORD 'SCRAM-SHA-256$4096:a''b';
CREATE ROLE postgres;
ALTER ROLE postgres WITH SUPERUSER PASSWORD 'SCRAM-SHA-256$4096:cd';
CREATE ROLE "read only";
ALTER ROLE "read only" WITH LOGIN PASSWORD 'SCRAM-SHA-256$4096:ef';
GRANT isa TO "read only";
"""


def test_a_role_that_is_there_keeps_its_password() -> None:
    said = live_roles(GLOBALS, {"isa", "postgres"})
    assert "CREATE ROLE isa" not in said
    assert "ALTER ROLE isa WITH NOSUPERUSER LOGIN;" in said


def test_a_role_that_is_gone_comes_back_with_the_password_of_the_set() -> None:
    said = live_roles(GLOBALS, {"isa", "postgres"})
    assert 'CREATE ROLE "read only";' in said
    assert "SCRAM-SHA-256$4096:ef" in said
    assert said.count("PASSWORD") == 1


def test_the_superuser_is_left_alone_and_everything_else_is_kept() -> None:
    said = live_roles(GLOBALS, {"isa", "postgres"})
    assert "postgres" not in said
    assert 'GRANT isa TO "read only";' in said
    assert said.startswith("\\restrict abc\n")


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
