"""A tenant without any special right who puts his own code wherever PostgreSQL has a place for it.

Each piece calls `evil.caught`, which goes back to the session's own user and its rights, and writes a line into the
server's log where that is a superuser, or anybody but the tenant himself: a log line is written in a read-only
transaction and on a standby too, and no rollback takes it away.
"""

from __future__ import annotations

import re
from pathlib import Path

from .conftest import Pair, Server

TENANT = "tenant"
CAUGHT = re.compile(r"CAUGHT .*")
# What he has in databases that others own: a place to put his names.
PLACES = ("isa", "postgres", "template1")

CATCH = """
    CREATE SCHEMA evil; GRANT USAGE ON SCHEMA evil TO PUBLIC;
    CREATE FUNCTION evil.caught(what text) RETURNS bool LANGUAGE plpgsql AS $$
    DECLARE before text := current_user; super bool;
    BEGIN
        BEGIN EXECUTE 'RESET SESSION AUTHORIZATION'; EXCEPTION WHEN OTHERS THEN NULL; END;
        BEGIN EXECUTE 'SET ROLE NONE'; EXCEPTION WHEN OTHERS THEN NULL; END;
        SELECT rolsuper INTO super FROM pg_catalog.pg_roles WHERE rolname = current_user;
        IF super OR current_user = 'isa' OR pg_has_role(current_user, 'bystander', 'member') THEN
            RAISE LOG 'CAUGHT %: % of %', what, current_user, before;
        END IF;
        RETURN true;
    END $$;
    CREATE FUNCTION evil.sure(what text) RETURNS bool IMMUTABLE LANGUAGE plpgsql AS
        'BEGIN RETURN evil.caught(what); END';
    CREATE FUNCTION evil.same(n int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
        'BEGIN PERFORM evil.caught(''expression''); RETURN n; END';
    CREATE FUNCTION evil.changed() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN PERFORM evil.caught(''trigger''); RETURN NEW; END';
"""
# Names that win over, or stand beside, those of the catalogue, where a search path reaches them.
SHADOWS = """
    CREATE FUNCTION public.collected(text[], text) RETURNS text[] LANGUAGE plpgsql AS
        'BEGIN PERFORM evil.caught(''array_agg''); RETURN $1 || $2; END';
    CREATE AGGREGATE public.array_agg(text) (SFUNC = public.collected, STYPE = text[]);
    CREATE FUNCTION public.unnest(text[]) RETURNS SETOF text LANGUAGE plpgsql AS
        'BEGIN PERFORM evil.caught(''unnest''); RETURN; END';
    CREATE FUNCTION public.format(text, text) RETURNS text LANGUAGE plpgsql AS
        'BEGIN PERFORM evil.caught(''format''); RETURN $1; END';
    CREATE FUNCTION public.current_setting(varchar) RETURNS text LANGUAGE plpgsql AS
        'BEGIN PERFORM evil.caught(''current_setting''); RETURN 0; END';
    CREATE FUNCTION public.unlike(name, text) RETURNS bool LANGUAGE plpgsql AS
        'BEGIN PERFORM evil.caught(''operator''); RETURN true; END';
    CREATE OPERATOR public.<> (LEFTARG = name, RIGHTARG = text, FUNCTION = public.unlike);
    CREATE OPERATOR public.= (LEFTARG = name, RIGHTARG = text, FUNCTION = public.unlike);
    CREATE VIEW public.pg_database AS SELECT evil.caught('pg_database')::text AS datname;
    CREATE VIEW public.pg_settings AS SELECT evil.caught('pg_settings')::text AS name;
"""
# What a login, or a look at a table, meets.
TABLES = """
    CREATE TABLE evil.castable (id int, note text);
    INSERT INTO evil.castable VALUES (1, 'one');
    CREATE FUNCTION evil.row_text(evil.castable) RETURNS text LANGUAGE plpgsql AS
        'BEGIN PERFORM evil.caught(''cast''); RETURN $1.id; END';
    CREATE CAST (evil.castable AS text) WITH FUNCTION evil.row_text(evil.castable);
    CREATE FUNCTION public.format(text, evil.castable) RETURNS text LANGUAGE plpgsql AS
        'BEGIN PERFORM evil.caught(''format of a row''); RETURN $1; END';
    CREATE DOMAIN evil.checked AS int CHECK (evil.caught('domain'));
    CREATE TYPE evil.pair AS (a evil.checked, b text);
    CREATE TYPE evil.mood AS ENUM ('good', 'bad');
    CREATE FUNCTION evil.number(evil.mood) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
        'BEGIN PERFORM evil.caught(''cast of a foreign key''); RETURN 1; END';
    CREATE CAST (evil.mood AS int) WITH FUNCTION evil.number(evil.mood) AS IMPLICIT;
    CREATE FUNCTION evil.apart(int, int) RETURNS float8 IMMUTABLE LANGUAGE plpgsql AS
        'BEGIN PERFORM evil.caught(''range''); RETURN $1 - $2; END';
    CREATE TYPE evil.span AS RANGE (SUBTYPE = int, SUBTYPE_DIFF = evil.apart);
    CREATE FUNCTION evil.equal(evil.pair, evil.pair) RETURNS bool LANGUAGE plpgsql AS
        'BEGIN PERFORM evil.caught(''equality''); RETURN true; END';
    CREATE OPERATOR evil.= (LEFTARG = evil.pair, RIGHTARG = evil.pair, FUNCTION = evil.equal);
    CREATE TABLE evil.everything (
        id int PRIMARY KEY CHECK (evil.caught('CHECK')),
        twice int GENERATED ALWAYS AS (evil.same(id)) STORED,
        fixed bool GENERATED ALWAYS AS (evil.sure('generated of a constant')) STORED,
        seen int GENERATED ALWAYS AS (id + 1),
        byte evil.checked DEFAULT 1, many evil.checked[] DEFAULT '{1,2}'::evil.checked[],
        two evil.pair DEFAULT '(1,x)'::evil.pair, mood evil.mood DEFAULT 'good', length evil.span DEFAULT '[1,2)',
        at bool DEFAULT evil.caught('DEFAULT'));
    INSERT INTO evil.everything (id) SELECT generate_series(1, 20);
    CREATE INDEX ON evil.everything (evil.same(id)) WHERE evil.same(id) > 3;
    CREATE INDEX ON evil.everything USING gist (length);
    CREATE STATISTICS evil.statistics ON evil.same(id), id FROM evil.everything;
    ALTER TABLE evil.everything ADD CONSTRAINT apart EXCLUDE USING btree (evil.same(id) WITH =);
    CREATE TRIGGER changed BEFORE INSERT OR UPDATE ON evil.everything FOR EACH ROW
        WHEN (NEW.many <> '{3}'::evil.checked[]) EXECUTE FUNCTION evil.changed();
    ALTER TABLE evil.everything ENABLE ALWAYS TRIGGER changed;
    CREATE RULE noted AS ON UPDATE TO evil.everything DO ALSO SELECT evil.caught('rule'), '{3}'::evil.checked[];
    CREATE POLICY own ON evil.everything USING (evil.caught('policy') AND many <> '{4}'::evil.checked[]);
    ALTER TABLE evil.everything ENABLE ROW LEVEL SECURITY;
    ALTER TABLE evil.everything FORCE ROW LEVEL SECURITY;
    CREATE INDEX ON evil.castable (evil.sure('constant in an index'));
    CREATE INDEX ON evil.castable (id) WHERE evil.sure('constant in a partial index');
    CREATE STATISTICS evil.constant ON evil.sure('constant in statistics'), id FROM evil.castable;
    CREATE TABLE evil.keyed (n int) PARTITION BY LIST ((n + evil.same(1)));
    CREATE TABLE evil.keyed_1 PARTITION OF evil.keyed FOR VALUES IN (2);
    INSERT INTO evil.keyed VALUES (1);
    CREATE TABLE evil.feeling (id int PRIMARY KEY);
    INSERT INTO evil.feeling VALUES (1);
    CREATE TABLE evil.felt (mood evil.mood REFERENCES evil.feeling (id));
    INSERT INTO evil.felt VALUES ('good');
    CREATE TABLE evil.looped (id int);
    INSERT INTO evil.looped VALUES (1);
    CREATE FUNCTION evil.row_ok(evil.looped) RETURNS bool LANGUAGE plpgsql AS
        'BEGIN RETURN evil.caught(''CHECK of a whole row''); END';
    ALTER TABLE evil.looped ADD CONSTRAINT whole CHECK (evil.row_ok(looped.*));
    CREATE DOMAIN evil.itself AS int;
    CREATE FUNCTION evil.domain_ok(evil.itself) RETURNS bool LANGUAGE plpgsql AS
        'BEGIN RETURN evil.caught(''CHECK of a domain that calls itself''); END';
    CREATE TABLE evil.own_kind (n evil.itself);
    INSERT INTO evil.own_kind VALUES (1);
    ALTER DOMAIN evil.itself ADD CONSTRAINT itself CHECK (evil.domain_ok(VALUE));
    CREATE TABLE evil.parts (n evil.checked, t text) PARTITION BY RANGE (n);
    CREATE TABLE evil.part PARTITION OF evil.parts FOR VALUES FROM (0) TO (10);
    INSERT INTO evil.parts VALUES (1, 'a');
    CREATE TABLE evil.computed (n int) PARTITION BY LIST (evil.same(n));
    CREATE TABLE evil.computed_1 PARTITION OF evil.computed FOR VALUES IN (1);
    INSERT INTO evil.computed VALUES (1);
    CREATE VIEW evil.view AS SELECT evil.caught('view') AS c, '{1}'::evil.checked[] AS many, * FROM evil.castable;
    CREATE MATERIALIZED VIEW evil.kept AS SELECT evil.caught('materialized view') AS c, '{1}'::evil.checked[] AS many;
    CREATE FUNCTION evil.parameter(evil.checked[] DEFAULT '{1}') RETURNS int LANGUAGE sql AS 'SELECT 1';
    CREATE FUNCTION evil.atomic() RETURNS evil.checked[] BEGIN ATOMIC SELECT '{1}'::evil.checked[]; END;
    CREATE FUNCTION evil.add(evil.checked[], int) RETURNS evil.checked[] LANGUAGE sql AS 'SELECT $1';
    CREATE AGGREGATE evil.gathered(int) (SFUNC = evil.add, STYPE = evil.checked[], INITCOND = '{1}');
    CREATE FUNCTION evil.as_owner() RETURNS bool SECURITY DEFINER LANGUAGE sql AS 'SELECT evil.caught(''definer'')';
    CREATE SERVER away FOREIGN DATA WRAPPER nothing;
    CREATE FOREIGN TABLE evil.foreign_table (n evil.checked CHECK (evil.caught('foreign table'))) SERVER away;
    CREATE TABLE public.pg_class (relname text CHECK (evil.caught('pg_class')));
    INSERT INTO public.pg_class VALUES ('x');
    CREATE PUBLICATION told FOR TABLE evil.castable WHERE (id > 0);
    ALTER DEFAULT PRIVILEGES IN SCHEMA evil GRANT SELECT ON TABLES TO PUBLIC;
    COMMENT ON TABLE evil.castable IS 'x'';
DROP TABLE evil.castable; --';
    SELECT lo_from_bytea(0, 'large');
"""
# A table of his that keys of others refer to; then what a query on it runs to be planned.
REFERRED = """
    CREATE TABLE evil.referred (id int PRIMARY KEY, other int); CREATE UNIQUE INDEX ON evil.referred (other);
    INSERT INTO evil.referred VALUES (1, 1); GRANT SELECT, REFERENCES ON evil.referred TO PUBLIC;
"""
REFERRING = """
    CREATE TABLE public.of_superuser (n int REFERENCES evil.referred (id), m int REFERENCES evil.referred (other));
    CREATE TABLE public.of_bystander (n int REFERENCES evil.referred (id));
    INSERT INTO public.of_superuser VALUES (1, 1); INSERT INTO public.of_bystander VALUES (1);
    ALTER TABLE public.of_bystander OWNER TO bystander;
"""
PLANNED = """
    CREATE INDEX ON evil.referred (evil.sure('constant in an index of a referred table'));
    CREATE STATISTICS evil.of_referred ON evil.sure('constant in statistics of a referred table'), id
        FROM evil.referred;
"""
SETTINGS = """
    ALTER DATABASE hostile SET search_path = evil, public, pg_catalog;
    ALTER DATABASE hostile SET role = 'tenant';
    ALTER DATABASE hostile SET standard_conforming_strings = off;
    ALTER ROLE tenant IN DATABASE hostile SET work_mem = '1MB';
    ALTER ROLE tenant SET application_name = E'x\\nCREATE ROLE postgres; y';
"""


def settle_in(pair: Pair) -> None:
    """Let the tenant, who owns a database and may make things in others', put his code everywhere."""
    run = pair.primary.run
    run(
        f"CREATE ROLE {TENANT} LOGIN PASSWORD 'of-nobody'",
        "CREATE ROLE bystander LOGIN PASSWORD 'of-nobody'",
    )
    run(f"CREATE DATABASE hostile OWNER {TENANT} TEMPLATE template0")
    run("CREATE FOREIGN DATA WRAPPER nothing", f"GRANT USAGE ON FOREIGN DATA WRAPPER nothing TO {TENANT}",
        f"GRANT CREATE ON SCHEMA public TO {TENANT}", database="hostile")  # fmt: skip
    for database in PLACES:
        run(f"GRANT CREATE ON DATABASE {database} TO {TENANT}")
        run(f"GRANT CREATE ON SCHEMA public TO {TENANT}", database=database)
        as_tenant(pair.primary, CATCH, SHADOWS, database=database)
    as_tenant(pair.primary, CATCH, TABLES, SHADOWS, database="hostile")
    as_tenant(pair.primary, REFERRED, database="hostile")
    run(REFERRING, database="hostile")
    as_tenant(pair.primary, PLANNED, database="hostile")
    as_tenant(pair.primary, SETTINGS, database="isa")


def as_tenant(server: Server, *texts: str, database: str = "hostile") -> None:
    with server.connect(database, user=TENANT) as connection:
        for text in texts:
            connection.execute(text.encode())


def caught(directory: Path) -> list[str]:
    """What any server, of the pair or of a proof, ran with another one's rights."""
    found: set[str] = set()
    for log in (*directory.glob("*.log"), *directory.glob("proof-*/*/log")):
        found |= {
            f"{log.parent.name}/{log.name} {line}" for line in CAUGHT.findall(log.read_text())
        }
    return sorted(found)
