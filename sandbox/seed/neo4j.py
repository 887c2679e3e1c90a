"""Neo4j: a graph with all property types, constraints, indexes of each kind, and a second user."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from random import Random
from typing import Any

import neo4j
from neo4j.spatial import CartesianPoint, WGS84Point
from neo4j.time import Duration

from components.access import Access
from components.neo4j.client import DATABASE, PORT
from sandbox.seed import words

PEOPLE, BATCH = 1000, 1000
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
SCHEMA = (
    "CREATE CONSTRAINT person_id IF NOT EXISTS FOR (p:Person) REQUIRE p.id IS UNIQUE",
    "CREATE CONSTRAINT order_id IF NOT EXISTS FOR (o:Order) REQUIRE o.id IS UNIQUE",
    "CREATE CONSTRAINT company_id IF NOT EXISTS FOR (c:Company) REQUIRE c.id IS UNIQUE",
    "CREATE INDEX person_joined IF NOT EXISTS FOR (p:Person) ON (p.joined)",
    "CREATE TEXT INDEX person_name IF NOT EXISTS FOR (p:Person) ON (p.name)",
    "CREATE POINT INDEX city_place IF NOT EXISTS FOR (c:City) ON (c.place)",
    "CREATE FULLTEXT INDEX order_note IF NOT EXISTS FOR (o:Order) ON EACH [o.note]",
)
WORKS = """
    MATCH (p:Person {id: r.person}), (c:Company {id: r.company})
    CREATE (p)-[:WORKS_AT {role: r.role, hired: r.hired}]->(c)
"""
LIVES = "MATCH (p:Person {id: r.person}), (c:City {name: r.city}) CREATE (p)-[:LIVES_IN {since: r.since}]->(c)"
PLACED = "MATCH (p:Person {id: r.person}), (o:Order {id: r.order}) CREATE (p)-[:PLACED {items: r.items}]->(o)"
KNOWS = (
    "MATCH (a:Person {id: r.a}), (b:Person {id: r.b}) CREATE (a)-[:KNOWS {weight: r.weight}]->(b)"
)
FILL = {
    "cities": "CREATE (c:City) SET c = r",
    # The driver has no object for the last three.
    "companies": """
        CREATE (c:Company) SET c = r, c.closes = time(r.closes), c.legend = date('-0753-04-21'),
            c.lease = datetime('9999-12-31T23:59:59[America/New_York]'), c.eras = [date('+12026-01-01')]
    """,
    "people": "CREATE (p:Person) SET p = r",
    "orders": "CREATE (o:Order) SET o = r",
    "homes": LIVES,
    "jobs": WORKS,
    "placed": PLACED,
    "known": KNOWS,
}


def seed(access: Access, size: int, random: Random) -> dict[str, int]:
    """Fill the default database."""
    member = access.endpoint("neo4j-1-0", PORT)
    user, _, password = access.secret("neo4j-auth", "NEO4J_AUTH").partition("/")
    rows = _rows(random, PEOPLE * size)
    with neo4j.GraphDatabase.driver(f"bolt://{member.url}", auth=(user, password)) as driver:
        with driver.session(database=DATABASE) as session:
            session.run(
                "MATCH (n) CALL (n) { DETACH DELETE n } IN TRANSACTIONS OF 5000 ROWS"
            ).consume()
            for statement in SCHEMA:
                session.run(statement).consume()
            session.run("CALL db.awaitIndexes(60)").consume()
            for kind, statement in FILL.items():
                for start in range(0, len(rows[kind]), BATCH):
                    session.run(
                        f"UNWIND $rows AS r {statement}", rows=rows[kind][start : start + BATCH]
                    ).consume()
        with driver.session(database="system") as session:
            query = "CREATE USER analyst IF NOT EXISTS SET PASSWORD $password CHANGE NOT REQUIRED"
            session.run(query, password=random.randbytes(12).hex()).consume()
    nodes = sum(len(rows[kind]) for kind in ("cities", "companies", "people", "orders"))
    relationships = sum(len(rows[kind]) for kind in ("homes", "jobs", "placed", "known"))
    return {
        "nodes": nodes,
        "relationships": relationships,
        "indexes": 4,
        "constraints": 3,
        "users": 1,
    }


def _rows(random: Random, people: int) -> dict[str, list[dict[str, Any]]]:
    cities = [
        {"name": name, "place": WGS84Point((random.uniform(-180, 180), random.uniform(-60, 60)))}
        for name in words.CITIES
    ]
    persons = [
        {
            "id": number,
            "name": words.person(random),
            "joined": EPOCH + timedelta(hours=random.randint(0, 8000)),
            "born": (EPOCH - timedelta(days=random.randint(7000, 25_000))).date(),
            "scores": [random.random() for _ in range(3)],
            "active": random.random() < 0.8,
        }
        for number in range(people)
    ]
    orders = [
        {"id": number, "total": round(random.uniform(1, 900), 2), "note": words.text(random, 5)}
        for number in range(people)
    ]
    companies = [
        {
            "id": number,
            "name": f"{random.choice(words.LAST)} {random.choice(words.GOODS)}s",
            "goods": random.sample(words.GOODS, 3),
            "opens": time(random.randint(6, 10), 30),
            "closes": f"{random.randint(16, 20)}:00+01:00",
            "founded": datetime(random.randint(1900, 2025), 5, 17, 8),
            "delivery": Duration(
                months=1, days=random.randint(1, 30), seconds=random.randint(0, 86_399)
            ),
            "desk": CartesianPoint((random.random(), random.random(), random.random())),
            "logo": random.randbytes(64),
        }
        for number in range(max(1, people // 8))
    ]
    return {
        "cities": cities,
        "companies": companies,
        "people": persons,
        "orders": orders,
        "homes": [
            {"person": n, "city": random.choice(words.CITIES), "since": random.randint(1990, 2026)}
            for n in range(people)
        ],
        "jobs": [
            {
                "person": n,
                "company": random.randrange(len(companies)),
                "role": random.choice(("engineer", "buyer", "clerk")),
                "hired": (EPOCH - timedelta(days=random.randint(1, 6000))).date(),
            }
            for n in range(people)
        ],
        "placed": [
            {"person": random.randrange(people), "order": n, "items": random.randint(1, 9)}
            for n in range(people)
        ],
        "known": [
            {
                "a": random.randrange(people),
                "b": random.randrange(people),
                "weight": random.random(),
            }
            for _ in range(people * 3)
        ],
    }
