"""PostgreSQL: tables with jsonb, arrays, ranges and bytes, sequences, views, large objects, roles and grants."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import psycopg

from components.access import Access
from components.postgresql.client import DATABASE, PORT, STATEFULSET
from sandbox.seed import words

ROWS = 2000
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
# The tables are dropped and created again, so that a second run gives the same rows and sequence values.
SCHEMA = """
DROP SCHEMA IF EXISTS shop CASCADE;
CREATE SCHEMA shop;
CREATE TABLE shop.customer (
    id bigserial PRIMARY KEY, name text NOT NULL, tags text[] NOT NULL, profile jsonb NOT NULL,
    joined timestamptz NOT NULL, email text UNIQUE CHECK (email LIKE '%@%'));
CREATE TABLE shop.invoice (
    id bigserial, customer bigint NOT NULL REFERENCES shop.customer, total numeric(12,2) NOT NULL, period tstzrange,
    document bytea, note text, PRIMARY KEY (id, customer)) PARTITION BY HASH (customer);
CREATE TABLE shop.invoice_0 PARTITION OF shop.invoice FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE shop.invoice_1 PARTITION OF shop.invoice FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE INDEX ON shop.customer USING gin (profile);
CREATE INDEX ON shop.invoice (total) WHERE total > 500;
CREATE SEQUENCE shop.ticket START 1000 INCREMENT 7;
CREATE VIEW shop.turnover AS SELECT customer, sum(total) AS total FROM shop.invoice GROUP BY customer;
CREATE FUNCTION shop.vat(numeric) RETURNS numeric LANGUAGE sql IMMUTABLE AS 'SELECT round($1 * 0.19, 2)';
"""
ROLES = """
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'analyst') THEN CREATE ROLE analyst NOLOGIN; END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'reporter') THEN CREATE ROLE reporter LOGIN; END IF;
END $$;
GRANT analyst TO reporter;
"""
# Not in a database but of one: only pg_restore --create brings it back.
WHOLE = """
REVOKE CONNECT, TEMPORARY ON DATABASE isa FROM PUBLIC;
GRANT CONNECT ON DATABASE isa TO isa, analyst;
COMMENT ON DATABASE isa IS 'the shop';
ALTER DATABASE isa SET gin_fuzzy_search_limit = 20000;
ALTER ROLE reporter IN DATABASE isa SET statement_timeout = '5min';
"""
GRANTS = """
GRANT USAGE ON SCHEMA shop TO analyst;
GRANT SELECT ON ALL TABLES IN SCHEMA shop TO analyst;
GRANT UPDATE (note) ON shop.invoice TO analyst;
GRANT SELECT ON shop.ticket TO analyst;
REVOKE SELECT ON shop.ticket FROM analyst;
REVOKE EXECUTE ON FUNCTION shop.vat FROM PUBLIC;
GRANT EXECUTE ON FUNCTION shop.vat TO analyst;
ALTER DEFAULT PRIVILEGES IN SCHEMA shop GRANT SELECT ON TABLES TO analyst;
"""
LARGE_OBJECTS = range(900001, 900004)


def seed(access: Access, size: int, random: Random) -> dict[str, int]:
    """Fill the application's database."""
    primary = _primary(access)
    with _connect(primary, access, "postgres", "postgres-password") as connection:
        connection.execute(ROLES)
        connection.execute(WHOLE)
    rows = ROWS * size
    with _connect(primary, access, "isa", "password") as connection:
        connection.execute(SCHEMA)
        cursor = connection.cursor()
        with cursor.copy(
            "COPY shop.customer (name, tags, profile, joined, email) FROM STDIN"
        ) as copy:
            for number in range(rows):
                copy.write_row(_customer(random, number))
        with cursor.copy(
            "COPY shop.invoice (customer, total, period, document, note) FROM STDIN"
        ) as copy:
            for _ in range(rows * 2):
                copy.write_row(_invoice(random, rows))
        connection.execute("SELECT nextval('shop.ticket') FROM generate_series(1, 10)")
        for oid in LARGE_OBJECTS:
            connection.execute(
                "SELECT lo_unlink(oid) FROM pg_largeobject_metadata WHERE oid = %s", [oid]
            )
            connection.execute(
                "SELECT lo_from_bytea(%s, %s)", [oid, random.randbytes(20_000 * size)]
            )
        # a gap, which a dump fills with zeros
        connection.execute("SELECT lo_put(%s, %s, 'far away')", [LARGE_OBJECTS[0], 100_000 * size])
        connection.execute(GRANTS)
    return {
        "customers": rows,
        "invoices": rows * 2,
        "large objects": len(LARGE_OBJECTS),
        "roles": 2,
    }


def _customer(random: Random, number: int) -> tuple[Any, ...]:
    name = words.person(random)
    profile = {
        "city": random.choice(words.CITIES),
        "score": random.randint(0, 100),
        "likes": [random.choice(words.GOODS) for _ in range(3)],
        "nothing": None,
    }
    joined = EPOCH + timedelta(minutes=random.randint(0, 400_000))
    tags = [random.choice(words.GOODS) for _ in range(random.randint(0, 3))]
    email = f"{name.split()[0].lower()}.{number}@example.com"
    return name, tags, json.dumps(profile), joined, email


def _invoice(random: Random, customers: int) -> tuple[Any, ...]:
    start = EPOCH + timedelta(days=random.randint(0, 300))
    period = f"[{start.isoformat()},{(start + timedelta(days=30)).isoformat()})"
    note = words.text(random, 6) if random.random() < 0.5 else None
    document = random.randbytes(64) if random.random() < 0.3 else None
    return random.randint(1, customers), round(random.uniform(1, 1000), 2), period, document, note


def _primary(access: Access) -> str:
    members = access.settings.components.postgresql.members
    for node in access.endpoints(STATEFULSET, members, PORT):
        with _connect(node.host, access, "isa", "password") as connection:
            row = connection.execute("SELECT pg_is_in_recovery()").fetchone()
            if row is not None and not row[0]:
                return node.host
    raise RuntimeError("PostgreSQL has no primary")


def _connect(host: str, access: Access, user: str, key: str) -> psycopg.Connection[Any]:
    password = access.secret("postgresql-ha-auth", key)
    return psycopg.connect(host=host, port=PORT, user=user, password=password, dbname=DATABASE)
