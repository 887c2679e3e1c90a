"""A dump of the stopped Neo4j is kept: a slow start, or one database without a dump, takes nothing of it away."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from neo4j.exceptions import AuthError, ServiceUnavailable

from archive.backup.cleanup_journal import CleanupJournal
from archive.backup.manifest import Measure
from components.neo4j.backup import settled_or_counted
from components.neo4j.client import until_answered
from components.neo4j.editions import offline
from errors import TemporaryError

AWAY: Exception = ServiceUnavailable("connection timed out")  # type: ignore[no-untyped-call]
TEMPLATE = {
    "containers": [{"name": "neo4j", "image": "neo4j:5.26.30", "volumeMounts": []}],
    "terminationGracePeriodSeconds": 600,
}


class Cluster:
    """A StatefulSet whose pod stops at once and never gets ready again, and the helper's pod."""

    def __init__(self) -> None:
        self.replicas = [1]
        self.helper = False

    def get(self, _: str, kind: str, name: str, __: str) -> dict[str, Any] | None:
        if kind == "StatefulSet":
            spec = {"replicas": self.replicas[-1], "template": {"spec": TEMPLATE}}
            return {"metadata": {"namespace": "isa"}, "spec": spec}
        there = self.helper if name == offline.DUMPER else bool(self.replicas[-1])
        return {"status": {"phase": "Running", "conditions": []}} if there else None

    def scale(self, _: Any, replicas: int) -> None:
        self.replicas.append(replicas)

    def create(self, _: Any) -> None:
        self.helper = True

    def delete(self, *_: Any) -> None:
        self.helper = False


class Writer:
    """Keeps what is added by name."""

    def __init__(self) -> None:
        self.cleanup, self.added = CleanupJournal(), dict[str, bytes]()

    def add(self, name: str, unit: str, form: str, source: Iterator[bytes]) -> None:
        self.added[name] = b"".join(source)


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def dump(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, failing: dict[str, int]
) -> tuple[list[str], dict[str, bytes]]:
    """Dump the databases; some fail so many times."""

    def run(*words: Any, **____: Any) -> Iterator[bytes]:
        command: tuple[str, ...] = words[-1]
        database = command[3]
        if failing.get(database, 0) > 0:
            failing[database] -= 1
            raise TemporaryError("neo4j-admin: broken store")
        yield database.encode()

    monkeypatch.setattr(offline, "exec_stream", run)
    backup = SimpleNamespace(stall_seconds=9)
    settings = SimpleNamespace(kubernetes=SimpleNamespace(namespace="isa"), backup=backup)
    access: Any = SimpleNamespace(kube=cluster, settings=settings)
    writer: Any = Writer()
    return offline.dump(access, writer), writer.added


def test_a_dump_does_not_wait_for_the_member_to_get_ready(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking, added = dump(cluster, monkeypatch, {})
    assert (lacking, added) == ([], {"neo4j.dump": b"neo4j", "system.dump": b"system"})
    assert cluster.replicas == [1, 0, 1]


def test_a_dump_that_fails_once_is_made_again_in_the_same_stop(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking, added = dump(cluster, monkeypatch, {"neo4j": 1})
    assert (lacking, set(added)) == ([], {"neo4j.dump", "system.dump"})
    assert cluster.replicas == [1, 0, 1]


def test_a_database_that_cannot_be_dumped_costs_the_set_itself_only(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking, added = dump(cluster, monkeypatch, {"neo4j": 9})
    assert lacking == ["database neo4j: it cannot be dumped: neo4j-admin: broken store"]
    assert set(added) == {"system.dump"}


def test_where_no_database_can_be_dumped_there_is_no_set_and_the_member_runs(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offline, "START_SECONDS", 0.0)
    with pytest.raises(TemporaryError, match="broken store"):
        dump(cluster, monkeypatch, {"neo4j": 9, "system": 9})
    assert cluster.replicas[-1] == 1


def test_the_limit_of_a_start_grows_with_the_data() -> None:
    assert offline.start_seconds(0) == offline.START_SECONDS
    assert offline.start_seconds(100 << 30) > offline.START_SECONDS + 3600


class Server:
    """Fails so many times before it answers."""

    def __init__(self, fails: int, how: Exception) -> None:
        self.fails, self.how, self.now = fails, how, 0.0

    def ask(self) -> str:
        if self.fails > 0:
            self.fails -= 1
            raise self.how
        return "answer"

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def answer(self, limit: float) -> str:
        return until_answered(self.ask, limit, self.sleep, lambda: self.now)


@pytest.mark.parametrize("how", [AWAY, TemporaryError("no member answers")])
def test_a_server_that_has_just_started_is_asked_until_it_answers(how: Exception) -> None:
    assert Server(20, how).answer(60) == "answer"
    with pytest.raises(TemporaryError, match="not answer within 10 s"):
        Server(20, how).answer(10)


def test_a_refused_password_is_not_waited_for() -> None:
    with pytest.raises(AuthError):
        Server(1, AuthError("no")).answer(60)


HELD = Measure(
    unit="database neo4j", item="nodes A", count=7, digest="1/1", origin="source", names={"a": "b"}
)


def test_what_stood_still_keeps_its_digest() -> None:
    assert settled_or_counted([HELD], lambda: [HELD], 0) == ([HELD], "")


def test_a_dump_is_kept_where_the_server_does_not_answer_afterwards() -> None:
    def ask() -> list[Measure]:
        raise AWAY

    (one,), why = settled_or_counted([HELD], ask, 0)
    assert (one.count, one.until, one.digest, one.names) == (7, 7, "", {})
    assert "connection timed out" in why
