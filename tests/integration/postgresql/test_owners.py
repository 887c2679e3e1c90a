"""A database whose objects belong to several owners, some without the rights that they once had, comes back equal."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from components.postgresql.dumps.filling import LEFT, Server, acting, prepare
from components.postgresql.dumps.rights import Run
from components.postgresql.dumps.toc import DATA, read_entries
from components.postgresql.dumps.truncation import save_dump
from errors import PermanentError

from .conftest import PASSWORD, Pair

pytestmark = pytest.mark.integration

SHARED = """
    CREATE EXTENSION citext; CREATE EXTENSION postgres_fdw; CREATE EXTENSION vector;
    CREATE SCHEMA sales AUTHORIZATION anna; CREATE SCHEMA stock AUTHORIZATION ben;
    CREATE SCHEMA odd AUTHORIZATION "o d""d";
    SET SESSION AUTHORIZATION anna;
    CREATE TYPE sales.state AS ENUM ('open', 'done'); CREATE DOMAIN sales.email AS citext CHECK (VALUE ~ '@');
    CREATE DOMAIN sales.amount AS numeric CHECK (VALUE > 0);
    CREATE TYPE sales.money AS (amount sales.amount, unit text);
    CREATE TABLE sales.orders (
        id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, state sales.state DEFAULT 'open',
        mail sales.email DEFAULT 'a@b',
        price sales.money DEFAULT '(1,EUR)'::sales.money, prices sales.amount[] DEFAULT '{1,2}'::sales.amount[],
        twice int GENERATED ALWAYS AS (n * 2) STORED, n int CHECK (n > 0), place vector(2) DEFAULT '[1,2]');
    INSERT INTO sales.orders (n) SELECT generate_series(1, 500);
    CREATE FUNCTION sales.total(sales.orders) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1.n';
    ALTER TABLE sales.orders ADD CONSTRAINT whole CHECK (sales.total(orders) > 0);
    CREATE TABLE sales.by_day (day date, n int) PARTITION BY RANGE (day);
    CREATE TABLE sales.by_day_1 PARTITION OF sales.by_day FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
    CREATE TABLE sales.by_day_2 PARTITION OF sales.by_day FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
    INSERT INTO sales.by_day VALUES ('2026-01-03', 1), ('2026-02-03', 2);
    CREATE TABLE sales.parent (id int PRIMARY KEY, kept text);
    CREATE MATERIALIZED VIEW sales.sums AS SELECT state, sum(n) FROM sales.orders GROUP BY 1;
    CREATE UNIQUE INDEX ON sales.sums (state);
    CREATE INDEX ON sales.orders ((n % 7)) WHERE prices <> '{3}'::sales.amount[];
    CREATE STATISTICS sales.both ON n, state FROM sales.orders;
    CREATE FUNCTION sales.add(sales.amount[], int) RETURNS sales.amount[] LANGUAGE sql AS 'SELECT $1';
    CREATE AGGREGATE sales.most(int) (SFUNC = sales.add, STYPE = sales.amount[], INITCOND = '{1}');
    GRANT USAGE ON SCHEMA sales TO ben, reader; GRANT SELECT, REFERENCES ON sales.orders, sales.parent TO ben;
    GRANT CREATE ON SCHEMA sales TO ben;
    ALTER DEFAULT PRIVILEGES IN SCHEMA sales GRANT SELECT ON TABLES TO reader;
    CREATE PUBLICATION told FOR TABLE sales.orders WHERE (n > 3);
    SELECT lo_from_bytea(4711, 'large'); GRANT SELECT ON LARGE OBJECT 4711 TO reader;
    RESET SESSION AUTHORIZATION;
    SET SESSION AUTHORIZATION ben;
    CREATE TABLE stock.goods (
        id serial PRIMARY KEY, ordered int REFERENCES sales.orders (id), state sales.state DEFAULT 'done');
    INSERT INTO stock.goods (ordered) SELECT generate_series(1, 100);
    CREATE TABLE sales.of_ben (n int CHECK (n < 9), parent int REFERENCES sales.parent (id));
    INSERT INTO sales.of_ben VALUES (1, NULL);
    CREATE FUNCTION stock.changed() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.state := NEW.state; RETURN NEW;
    END';
    CREATE TRIGGER changed BEFORE UPDATE ON stock.goods FOR EACH ROW WHEN (NEW.id > 3) EXECUTE FUNCTION stock.changed();
    ALTER TABLE stock.goods DISABLE TRIGGER changed;
    CREATE VIEW stock.seen AS SELECT g.*, o.n, '{1}'::sales.amount[] AS prices
        FROM stock.goods g JOIN sales.orders o ON o.id = g.ordered;
    CREATE RULE no_delete AS ON DELETE TO stock.goods DO INSTEAD NOTHING;
    ALTER TABLE stock.goods ENABLE ROW LEVEL SECURITY; ALTER TABLE stock.goods FORCE ROW LEVEL SECURITY;
    CREATE POLICY mine ON stock.goods USING (state <> 'done') WITH CHECK (true);
    RESET SESSION AUTHORIZATION;
    SET SESSION AUTHORIZATION "o d""d";
    CREATE TABLE odd."ta ble anna" (n int CHECK (n > 0)); INSERT INTO odd."ta ble anna" VALUES (1);
    RESET SESSION AUTHORIZATION;
    CREATE TABLE public.of_postgres (n int CHECK (n > 0)); INSERT INTO public.of_postgres VALUES (1);
    CREATE TABLE public.of_whoever (n int CHECK (n > 0)); INSERT INTO public.of_whoever VALUES (1);
    ALTER TABLE public.of_whoever OWNER TO pg_database_owner;
    CREATE TABLE sales.child (more int) INHERITS (sales.parent); INSERT INTO sales.child VALUES (1, 'one', 2);
    ALTER TABLE sales.child OWNER TO ben;
    ALTER TABLE sales.by_day_2 OWNER TO ben;
    CREATE FUNCTION public.in_c(vector) RETURNS int AS '$libdir/vector', 'vector_dims' LANGUAGE c STRICT IMMUTABLE;
    ALTER FUNCTION public.in_c(vector) OWNER TO anna;
    CREATE FUNCTION public.tight(int) RETURNS bool LEAKPROOF IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1 > 0; END';
    ALTER FUNCTION public.tight(int) OWNER TO ben;
    CREATE FUNCTION public.admin(int DEFAULT 1) RETURNS int SECURITY DEFINER LANGUAGE sql AS 'SELECT $1';
    REVOKE ALL ON FUNCTION public.admin(int) FROM PUBLIC; GRANT EXECUTE ON FUNCTION public.admin(int) TO anna;
    CREATE TABLE sales.guarded (n int CHECK (public.admin(n) > 0)); INSERT INTO sales.guarded VALUES (3);
    ALTER TABLE sales.guarded OWNER TO anna;
    CREATE FUNCTION public.on_change() RETURNS event_trigger LANGUAGE plpgsql AS
        'BEGIN RAISE LOG ''changed''; END';
    CREATE EVENT TRIGGER noted ON ddl_command_end EXECUTE FUNCTION public.on_change();
    CREATE SERVER away FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1'); ALTER SERVER away OWNER TO ben;
    CREATE USER MAPPING FOR ben SERVER away OPTIONS (user 'x', password 'y');
    CREATE FOREIGN TABLE stock.far (n int) SERVER away; ALTER FOREIGN TABLE stock.far OWNER TO ben;
    CREATE PUBLICATION everything FOR ALL TABLES;
    REVOKE INSERT, UPDATE ON sales.orders FROM anna; REVOKE ALL ON SCHEMA sales FROM ben;
    REVOKE TRUNCATE ON stock.goods FROM ben;
    REVOKE REFERENCES ON sales.parent FROM ben; REVOKE USAGE ON SCHEMA odd FROM "o d""d";
    REVOKE CREATE ON SCHEMA public FROM PUBLIC;
    ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO reader;
"""
ROLES = ("anna", "ben", '"o d""d"', "reader")


@pytest.fixture(scope="module")
def shared(pair: Pair) -> Iterator[Pair]:
    run = pair.primary.run
    run(*(f"CREATE ROLE {name} LOGIN PASSWORD 'x'" for name in ROLES))
    run("CREATE DATABASE shared OWNER anna TEMPLATE template0 CONNECTION LIMIT 7")
    run(
        "REVOKE ALL ON DATABASE shared FROM PUBLIC",
        "GRANT CONNECT ON DATABASE shared TO ben, reader",
    )
    run(SHARED, database="shared")
    yield pair
    pair.drop_kept()


def test_a_database_of_several_owners_comes_back_equal_in_a_proof_and_into_the_platform(
    shared: Pair,
) -> None:
    ask = shared.primary.ask
    rights = "SELECT datacl::text || datconnlimit FROM pg_database WHERE datname = 'shared'"
    before = ask(rights)
    backup = shared.take()
    assert shared.prove(backup) == ()
    assert shared.restore(backup, "database shared")[1] == ()
    assert ask(rights) == before
    assert ask(f"SELECT count(*) FROM ({LEFT}) AS roles") == 0
    assert shared.primary.ask("SELECT sum(n) FROM sales.orders", "shared") == 125250


def test_a_dump_s_contents_are_what_pg_restore_lists(shared: Pair) -> None:
    backup = shared.take()
    dump = backup.save("databases/shared.dump", shared.directory / "shared.dump")
    server = Server(shared.access, shared.primary.endpoint, 180000, PASSWORD)
    listed = server.pg_restore().run("--list", "--create", str(dump), timeout=30).stdout
    lines = [line for line in listed.splitlines() if line and not line.startswith(";")]
    entries = {one.number: one for one in read_entries(dump)}
    assert lines
    for line in lines:
        number, _, rest = line.partition("; ")
        one = entries[int(number)]
        words = " ".join((one.kind, one.schema or "-", one.name.replace("\n", " "), one.owner))
        assert rest.partition(" ")[2].partition(" ")[2] == words


def test_a_saved_dump_differs_from_the_stored_one_only_by_the_truncation_of_its_tables(
    shared: Pair,
) -> None:
    backup, server = (
        shared.take(),
        Server(shared.access, shared.primary.endpoint, 180000, PASSWORD),
    )
    stored = backup.save("databases/shared.dump", shared.directory / "stored.dump")
    saved = save_dump(backup, "databases/shared.dump", shared.directory / "saved.dump")
    scripts = []
    for dump in (stored, saved):
        words = ("--file=-", "--restrict-key=same", str(dump))
        scripts.append(server.pg_restore().run(*words, timeout=30).stdout)
    before, after = (script.splitlines() for script in scripts)
    added = [line for line in after if line.startswith("TRUNCATE ")]
    assert [line for line in after if line not in added] == before
    assert "TRUNCATE TABLE ONLY stock.goods;" in added
    assert not any("sales.orders" in line or "sales.child" in line for line in added)


def test_a_server_that_would_not_let_an_owner_s_role_in_refuses_before_anything_is_put_aside(
    shared: Pair,
) -> None:
    backup, rules = shared.take(), shared.primary.data / "pg_hba.conf"
    as_it_was = rules.read_text()
    rules.write_text(f"host all /^isa_cloud_restore_ 127.0.0.0/8 reject\n{as_it_was}")
    shared.primary.run("SELECT pg_reload_conf()")
    before = shared.primary.ask("SELECT array_agg(datname) FROM pg_database")
    try:
        with pytest.raises(PermanentError, match=r"allow any role from here in pg_hba\.conf"):
            shared.restore(backup, "database shared")
    finally:
        rules.write_text(as_it_was)
        shared.primary.run("SELECT pg_reload_conf()")
    assert shared.primary.ask("SELECT array_agg(datname) FROM pg_database") == before
    assert shared.primary.ask(f"SELECT count(*) FROM ({LEFT}) AS roles") == 0


LENT = """
    CREATE SCHEMA strong; CREATE SCHEMA admin; GRANT ALL ON SCHEMA strong TO anna;
    CREATE FUNCTION admin.secret() RETURNS bool SECURITY DEFINER LANGUAGE plpgsql AS
        'BEGIN RAISE LOG ''CALLED by %'', session_user; RETURN true; END';
    SET SESSION AUTHORIZATION anna;
    CREATE FUNCTION strong.try(what text) RETURNS bool LANGUAGE plpgsql AS
        'BEGIN EXECUTE what; RETURN true; EXCEPTION WHEN OTHERS THEN RETURN true; END';
    CREATE FUNCTION strong.surely(what text) RETURNS bool IMMUTABLE LANGUAGE plpgsql AS
        'BEGIN PERFORM strong.try(what); RETURN true; END';
    CREATE TABLE strong.called (n int, seen bool GENERATED ALWAYS AS (strong.surely('SELECT admin.secret()')) STORED,
                                CHECK (strong.try('SELECT admin.secret()')));
    INSERT INTO strong.called VALUES (1);
    {planted}
    RESET SESSION AUTHORIZATION;
    DROP FUNCTION IF EXISTS strong.planted; REVOKE ALL ON SCHEMA strong FROM anna;
"""
PLANTED = """
    CREATE TABLE strong.planting (n int, planted bool GENERATED ALWAYS AS (strong.surely(
        'CREATE FUNCTION strong.planted() RETURNS int LANGUAGE sql AS ''SELECT 1''')) STORED);
"""


@pytest.fixture
def lent(shared: Pair) -> Iterator[Pair]:
    shared.primary.run("CREATE DATABASE lent")
    yield shared
    shared.primary.run("DROP DATABASE lent (FORCE)")
    shared.drop_kept()


def test_an_owner_s_code_uses_no_right_that_it_is_lent_to_restore_its_objects(lent: Pair) -> None:
    lent.primary.run(LENT.format(planted=""), database="lent")
    backup = lent.take()
    assert lent.prove(backup) == ()
    assert lent.restore(backup, "database lent")[1] == ()
    for log in (*lent.directory.glob("*.log"), *lent.directory.glob("proof-*/*/log")):
        assert "LOG:  CALLED by" not in log.read_text()


def test_what_an_owner_s_code_puts_into_another_one_s_schema_makes_the_restore_fail(
    lent: Pair,
) -> None:
    lent.primary.run(LENT.format(planted=PLANTED), database="lent")
    backup = lent.take()
    with pytest.raises(PermanentError, match=r"role anna created other objects in schema strong"):
        lent.restore(backup, "database lent")
    query = "SELECT count(*) FROM pg_proc WHERE proname = 'planted'"
    assert lent.primary.ask(query, "lent") == 0


# The key's constant is computed when a partition is attached, by a function of the parent's owner.
KEYED = """
    CREATE SCHEMA strong; GRANT ALL ON SCHEMA strong TO anna, ben;
    SET SESSION AUTHORIZATION anna;
    CREATE FUNCTION strong.try(what text) RETURNS bool LANGUAGE plpgsql AS
        'BEGIN EXECUTE what; RETURN true; EXCEPTION WHEN OTHERS THEN RETURN true; END';
    CREATE FUNCTION strong.seven(what text) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
        'BEGIN PERFORM strong.try(what); RETURN 7; END';
    CREATE TABLE strong.keyed (n int) PARTITION BY RANGE ((n % strong.seven('{does}')));
    CREATE TABLE strong.low PARTITION OF strong.keyed FOR VALUES FROM (0) TO (3);
    CREATE TABLE strong.high PARTITION OF strong.keyed FOR VALUES FROM (3) TO (7);
    INSERT INTO strong.keyed SELECT generate_series(1, 100);
    RESET SESSION AUTHORIZATION;
    ALTER TABLE strong.high OWNER TO ben; GRANT SELECT ON strong.high TO reader; {revoke}
"""


def test_a_partition_of_another_owner_comes_back_under_a_key_that_runs_code(lent: Pair) -> None:
    lent.primary.run(KEYED.format(does="SELECT 1", revoke=""), database="lent")
    whose = "SELECT relowner::regrole::text || relacl::text FROM pg_class WHERE relname = 'high'"
    before = lent.primary.ask(whose, "lent")
    backup = lent.take()
    assert lent.prove(backup) == ()
    assert lent.restore(backup, "database lent")[1] == ()
    assert lent.primary.ask(whose, "lent") == before


def test_a_key_s_code_that_changes_a_partition_of_another_owner_makes_the_restore_fail(
    lent: Pair,
) -> None:
    does, revoke = "GRANT ALL ON strong.high TO anna", "REVOKE ALL ON strong.high FROM anna;"
    lent.primary.run(KEYED.format(does=does, revoke=revoke), database="lent")
    backup = lent.take()
    with pytest.raises(
        PermanentError, match=r'role anna .* changed table "strong"."high" of role ben'
    ):
        lent.restore(backup, "database lent")


# It changes nothing in the original database, where no role of a restore is connected.
REPLACED = """
    CREATE SCHEMA strong AUTHORIZATION anna;
    SET SESSION AUTHORIZATION anna;
    CREATE FUNCTION strong.try(what text) RETURNS bool LANGUAGE plpgsql AS $$
        BEGIN IF session_user ~ '^isa_cloud_restore' THEN EXECUTE what; END IF; RETURN true; END $$;
    CREATE FUNCTION strong.surely(what text) RETURNS bool IMMUTABLE LANGUAGE plpgsql AS
        'BEGIN PERFORM strong.try(what); RETURN true; END';
    CREATE FUNCTION strong.caught() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN RAISE LOG ''CALLED by %'', current_user; RETURN NEW; END';
    RESET SESSION AUTHORIZATION;
    CREATE TABLE strong.kept (n int); INSERT INTO strong.kept VALUES (1); GRANT TRIGGER ON strong.kept TO anna;
    SET SESSION AUTHORIZATION anna;
    CREATE TABLE strong.replacing (n int, done bool GENERATED ALWAYS AS (strong.surely('{does}')) STORED);
"""
ADDED_TRIGGER = "CREATE TRIGGER c BEFORE INSERT ON strong.kept EXECUTE FUNCTION strong.caught()"


@pytest.mark.parametrize(
    "does",
    [
        ADDED_TRIGGER,
        f"DROP TABLE strong.kept; CREATE TABLE strong.kept (n int); {ADDED_TRIGGER}",
    ],
    ids=["trigger", "table"],
)
def test_code_that_puts_a_trap_into_the_way_of_the_superuser_makes_the_restore_fail(
    lent: Pair, does: str
) -> None:
    lent.primary.run(REPLACED.format(does=does), database="lent")
    backup = lent.take()
    with pytest.raises(
        PermanentError, match=r"role anna .* changed objects of other roles: .*table strong\.kept"
    ):
        lent.prove(backup)
    for log in lent.directory.glob("proof-*/*/log"):
        assert "LOG:  CALLED by postgres" not in log.read_text()


def test_a_restore_that_was_killed_leaves_no_role_behind_the_next_one(shared: Pair) -> None:
    server = Server(shared.access, shared.primary.endpoint, 180000, PASSWORD)
    with shared.primary.connect() as connection:
        killed = acting(server, "shared", Run("anna", DATA, (), frozenset()))
        name, _ = killed.__enter__()
        assert connection.execute(LEFT.encode()).fetchall() == [(name,)]
        prepare(server)
        assert connection.execute(LEFT.encode()).fetchall() == []
