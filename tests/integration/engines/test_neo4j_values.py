"""What a graph digest sees, on a real Neo4j: every type of property, also those that the driver has no object for."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import neo4j
import pytest
from neo4j.exceptions import DriverError, Neo4jError

from archive.backup.manifest import Measure
from components.digest import settled
from components.neo4j.fingerprint import measure_graph
from sandbox.machine import neo4j_programs as programs

pytestmark = pytest.mark.integration

ADDRESS, PASSWORD = "127.19.0.1", "of-this-test-only"  # below the sandboxes' networks
START_SECONDS = 120.0


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[neo4j.Driver]:
    """A driver of an empty server."""
    home: Path = tmp_path_factory.mktemp("neo4j")
    data = home / "data"
    data.mkdir()
    programs.write_config(home, data, ADDRESS)
    programs.set_initial_password(home, PASSWORD)
    server = subprocess.Popen(programs.server_argv(home), cwd=home, stdout=subprocess.DEVNULL)
    try:
        with neo4j.GraphDatabase.driver(
            f"bolt://{ADDRESS}", auth=("neo4j", PASSWORD), notifications_min_severity="OFF"
        ) as made:
            deadline = time.monotonic() + START_SECONDS
            while True:
                try:
                    made.execute_query("RETURN 1", database_="neo4j")
                    break
                except (DriverError, Neo4jError):
                    assert server.poll() is None and time.monotonic() < deadline
                    time.sleep(0.2)
            yield made
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def session(driver: neo4j.Driver) -> Iterator[neo4j.Session]:
    """A session of an empty database."""
    with driver.session(database="neo4j") as made:
        made.run("MATCH (n) DETACH DELETE n").consume()
        yield made


def measure(session: neo4j.Session) -> list[Measure]:
    return measure_graph(session, "database neo4j")


# Pairs that differ in one thing only.
VALUES = (
    ("date('-0044-03-15')", "date('-0044-03-16')"),
    ("date('+12026-01-01')", "date('+12027-01-01')"),
    ("datetime('9999-12-31T23:59:59.999999999[America/New_York]')", "datetime('9999-12-31T23:59:59.999999999-05:00')"),
    ("datetime({epochSeconds: 0, timezone: '+01:00:30'})", "datetime({epochSeconds: 0, timezone: '+01:00'})"),
    ("localdatetime('-2000-01-01T00:00')", "'-2000-01-01T00:00:00'"),
    ("time('12:00+02:00')", "time('12:00Z')"),
    ("localtime('12:00:00.000000001')", "localtime('12:00')"),
    ("duration('P1D')", "duration('PT24H')"),
    ("duration({months: 3000000000000})", "duration({months: 3000000000001})"),
    ("point({x: 1, y: 2})", "point({longitude: 1, latitude: 2})"),
    ("point({x: 1, y: 2, z: 0})", "point({longitude: 1, latitude: 2, height: 0})"),
    ("[date('-0001-01-01'), date('2026-01-01')]", "[date('2026-01-01'), date('-0001-01-01')]"),
    ("[point({x: 1, y: 2})]", "[point({longitude: 1, latitude: 2})]"),
    ("[duration('P1D')]", "['P1D']"),
    ("[0, 1]", "[0.0, 1.0]"),
    ("0.0 / 0.0", "1.0 / 0.0"),
    ("9223372036854775807", "9223372036854775806"),
)  # fmt: skip


@pytest.mark.parametrize(("one", "other"), VALUES)
def test_a_change_of_any_type_of_value_is_seen_and_two_readings_are_the_same(
    session: neo4j.Session, one: str, other: str
) -> None:
    session.run(f"CREATE (a:A {{v: {one}}})-[:R {{v: {one}}}]->(:B)").consume()
    first = measure(session)
    assert settled(first, measure(session)) == first
    session.run(f"MATCH (a:A)-[r:R]->() SET a.v = {other}").consume()
    of_an_end = set() if one.startswith("[") else {"relationships R"}
    assert changed(first, measure(session)) == {"nodes A"} | of_an_end
    session.run(f"MATCH (a:A)-[r:R]->() SET a.v = {one}, r.v = {other}").consume()
    assert changed(first, measure(session)) == {"relationships R"}


def test_a_relationship_is_told_by_the_small_properties_of_its_ends(
    session: neo4j.Session,
) -> None:
    """Large ones are digested with the node alone: they would be sent with each of its relationships."""
    session.run("CREATE (:A {name: 'a', text: $text})-[:R]->(:B {v: $v})", text="x" * 101, v=b"1")
    first = measure(session)
    session.run(
        "MATCH (a:A)-->(b:B) SET a.text = $text, b.v = $v", text="y" * 101, v=b"2"
    ).consume()
    assert changed(first, measure(session)) == {"nodes A", "nodes B"}
    second = measure(session)
    session.run("MATCH (a:A) SET a.name = 'b'").consume()
    assert changed(second, measure(session)) == {"nodes A", "relationships R"}


def test_bytes_are_not_the_list_of_their_numbers(session: neo4j.Session) -> None:
    session.run("CREATE (:A {v: $v})", v=b"\1\2").consume()
    first = measure(session)
    session.run("MATCH (a:A) SET a.v = [1, 2]").consume()
    assert changed(first, measure(session)) == {"nodes A"}


def test_what_an_index_is_set_to_is_seen(session: neo4j.Session) -> None:
    make = "CREATE FULLTEXT INDEX notes FOR (n:A) ON EACH [n.v] OPTIONS {indexConfig: {`fulltext.analyzer`: '%s'}}"
    session.run(make % "english").consume()
    first = measure(session)
    session.run("DROP INDEX notes").consume()
    session.run(make % "german").consume()
    found = measure(session)
    session.run("DROP INDEX notes").consume()
    assert changed(first, found) == {"indexes"}


def changed(before: list[Measure], after: list[Measure]) -> set[str]:
    was, now = ({one.item: one.digest for one in found} for found in (before, after))
    return {item for item in was | now if was.get(item) != now.get(item)}
