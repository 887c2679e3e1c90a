"""The gate of Neo4j: members that are enabled, databases that somebody writes, and a node that travels."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import neo4j
import pytest

from components.base import Check, Report, Role, Workload
from components.neo4j.readiness import READ_ONLY, ask, workloads

from .neo4j_double import Cluster, database, refusal

TRAVELS = "node written and read on another member"
FIRST, SECOND, THIRD = "neo4j-1-0", "neo4j-2-0", "neo4j-3-0"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster()
    # whichever cluster a test has made last is the one that is connected to
    monkeypatch.setattr(
        neo4j.GraphDatabase, "driver", lambda uri, **given: made.driver(uri, **given)
    )
    return made


def asked(cluster: Cluster) -> Report:
    return ask(cluster.access())


def bad(cluster: Cluster) -> dict[str, Check]:
    return {check.name: check for check in asked(cluster).checks if not check.ok}


def alone(cluster: Cluster) -> Cluster:
    """As Community has it: one member, whose address is not its name."""
    cluster.members, cluster.edition = (FIRST,), "community"
    cluster.databases = [
        {**database(name, ""), "address": "localhost:7687", "writer": True}
        for name in ("system", "neo4j")
    ]
    return cluster


def test_a_healthy_cluster_answers_every_check(cluster: Cluster) -> None:
    cluster.databases[4]["replicationLag"] = 5
    report = asked(cluster)
    assert [(one.name, one.ok, one.hint, one.critical) for one in report.checks] == [
        ("members answer", True, "3 of 3", False),
        ("servers are enabled and available", True, "3 servers", False),
        ("databases have a writer", True, "neo4j, system", True),
        ("databases are online", True, "", False),
        (TRAVELS, True, f"written on {FIRST}, read on {SECOND}", True),
    ]
    assert report.roles == (
        Role(FIRST, "leader"),
        Role(SECOND, "follower", "5 tx"),
        Role(THIRD, "follower", "0 tx"),
    )
    assert cluster.tokens == []


def test_each_member_is_a_workload_of_one_group() -> None:
    settings = SimpleNamespace(components=SimpleNamespace(neo4j=SimpleNamespace(members=2)))
    assert workloads(cast(Any, settings)) == (
        Workload("StatefulSet", "neo4j-1", 1, group="neo4j"),
        Workload("StatefulSet", "neo4j-2", 1, group="neo4j"),
    )


def test_community_has_one_member_and_no_servers_to_show(cluster: Cluster) -> None:
    report = asked(alone(cluster))
    assert [one.hint for one in report.checks if not one.ok] == []
    assert report.checks[-1].hint == f"written on {FIRST}, read on {FIRST}"
    assert report.roles == (Role(FIRST, "leader"),)
    assert not [query for _, _, query in cluster.said if query.startswith("SHOW SERVERS")]


def test_members_of_which_none_answers_have_no_writer(cluster: Cluster) -> None:
    cluster.away = set(cluster.members)
    report = asked(cluster)
    assert [(one.name, one.ok, one.critical) for one in report.checks] == [
        ("members answer", False, False),
        ("databases have a writer", False, True),
    ]
    assert report.checks[1].hint == "no member answers"
    assert report.roles == ()


def test_the_first_member_that_answers_tells_of_the_servers(cluster: Cluster) -> None:
    cluster.away = {FIRST}
    cluster.databases = [database("neo4j", f"neo4j-{n}", writer=n == 3) for n in (1, 2, 3)]
    found = bad(cluster)
    assert list(found) == ["members answer"]
    assert [pod for pod, _, query in cluster.said if query.startswith("SHOW SERVERS")] == [SECOND]
    assert asked(cluster).checks[-1].hint == f"written on {THIRD}, read on {SECOND}"


@pytest.mark.parametrize(
    "state",
    [{"state": "Cordoned", "health": "Available"}, {"state": "Enabled", "health": "Unavailable"}],
)
def test_a_server_that_is_not_in_use_is_named(state: dict[str, str], cluster: Cluster) -> None:
    cluster.servers[1] |= state
    (check,) = bad(cluster).values()
    assert (check.name, check.critical) == ("servers are enabled and available", False)
    assert check.hint == f"neo4j-2:7687: {state['state']}, {state['health']}"


def test_a_server_that_the_cluster_does_not_know_is_missed(cluster: Cluster) -> None:
    del cluster.servers[2]
    assert bad(cluster)["servers are enabled and available"].hint == (
        "the cluster: has 2 of 3 servers"
    )


def test_a_database_that_nobody_writes_is_down_and_nothing_is_tried(cluster: Cluster) -> None:
    for row in cluster.databases:
        row["writer"] = row["writer"] and row["name"] != "neo4j"
    report = asked(cluster)
    (check,) = (one for one in report.checks if not one.ok)
    assert (check.name, check.critical) == ("databases have a writer", True)
    assert (
        check.hint == "neo4j: no member accepts writes, because a majority of its members is down"
    )
    assert TRAVELS not in [one.name for one in report.checks]
    assert {role.role for role in report.roles} == {"follower"}


def test_a_database_that_was_stopped_on_purpose_needs_no_writer(cluster: Cluster) -> None:
    stopped = {"requestedStatus": "offline", "currentStatus": "offline"}
    cluster.databases += [database("archive", f"neo4j-{n}", **stopped) for n in (1, 2, 3)]
    report = asked(cluster)
    assert [one.name for one in report.checks if not one.ok] == []
    assert {one.hint for one in report.checks if one.name == "databases have a writer"} == {
        "neo4j, system"
    }


def test_a_member_counts_as_it_sees_itself(cluster: Cluster) -> None:
    """Each sees the copies of all; what it says of another may be old."""
    cluster.databases.append(database("shop", "neo4j-4", writer=True))
    assert bad(cluster) == {}
    checks = {check.name: check.hint for check in asked(cluster).checks}
    assert checks["databases have a writer"] == "neo4j, system"


@pytest.mark.parametrize(
    ("message", "hint"),
    [(None, "dirty"), ("out of memory", "dirty out of memory")],
)
def test_a_copy_that_is_not_online_is_named(
    message: str | None, hint: str, cluster: Cluster
) -> None:
    cluster.databases[4] |= {"currentStatus": "dirty", "statusMessage": message}
    (check,) = bad(cluster).values()
    assert (check.name, check.critical) == ("databases are online", False)
    assert check.hint == f"neo4j on {SECOND}: {hint}"


# ---------------------------------------------------------------------- a node that travels
def test_a_node_is_read_behind_the_bookmark_of_its_write_and_removed(cluster: Cluster) -> None:
    asked(cluster)
    reading = next(one for one in cluster.sessions if "bookmarks" in one)
    assert reading == {
        "pod": SECOND, "database": "neo4j", "bookmarks": "behind the write", "default_access_mode": "READ",
    }  # fmt: skip
    travel = [(pod, query.split()[0]) for pod, where, query in cluster.said if where == "neo4j"]
    assert travel == [(FIRST, "MATCH"), (FIRST, "CREATE"), (SECOND, "MATCH"), (FIRST, "MATCH")]
    assert "duration('PT1H')" in next(query for _, _, query in cluster.said if "DETACH" in query)


def test_a_node_that_is_not_read_is_down_and_removed(cluster: Cluster) -> None:
    cluster.forgets = True
    (check,) = bad(cluster).values()
    assert (check.name, check.critical) == (TRAVELS, True)
    assert check.hint == f"{SECOND} does not have the written node"
    assert cluster.tokens == []


def test_a_reader_that_fails_leaves_no_node_behind(cluster: Cluster) -> None:
    cluster.fails = {"count(n)": refusal("Neo.TransientError.General.OutOfMemoryError")}
    assert bad(cluster)[TRAVELS].critical
    assert cluster.tokens == []


@pytest.mark.parametrize("words", ["DETACH DELETE", "DELETE n"])
def test_what_cannot_be_removed_is_left_to_a_later_round(words: str, cluster: Cluster) -> None:
    cluster.fails = {words: refusal("Neo.TransientError.Transaction.DeadlockDetected")}
    assert bad(cluster) == {}


@pytest.mark.parametrize("code", sorted(READ_ONLY))
def test_a_read_only_database_is_unknown_and_not_down(code: str, cluster: Cluster) -> None:
    cluster.fails = {"CREATE": refusal(code, "it is read only")}
    (check,) = (one for one in asked(cluster).checks if one.unknown)
    assert (check.name, check.ok) == (TRAVELS, True)
    assert check.hint == "database neo4j is read-only: it is read only"


def test_any_other_refusal_is_down(cluster: Cluster) -> None:
    cluster.fails = {"CREATE": refusal("Neo.TransientError.General.DatabaseUnavailable")}
    (check,) = bad(cluster).values()
    assert (check.name, check.critical, check.unknown) == (TRAVELS, True, False)
