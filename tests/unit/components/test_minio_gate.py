"""The gate of MinIO: quorum, whole drives, and an object that travels and leaves nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from components.access import Access, Endpoint
from components.base import Check, Report, Role, Workload
from components.minio import client, readiness
from components.minio.readiness import workloads
from components.questions import PROBE

from .minio_double import NOW, Cluster, servers

TRAVELS = "object put and read through another server"


class Gate:
    """Asks a cluster."""

    def __init__(self, serve: Callable[[Cluster], Access]) -> None:
        self._serve = serve

    def ask(self, cluster: Cluster) -> Report:
        return readiness.ask(self._serve(cluster))

    def bad(self, cluster: Cluster) -> dict[str, Check]:
        return {check.name: check for check in self.ask(cluster).checks if not check.ok}


@pytest.fixture(scope="module")
def gate() -> Iterator[Gate]:
    clients: dict[str, Any] = {}

    def connect(access: Access, server: Endpoint) -> Any:
        """As the client's own: a client takes a tenth of a second to be made."""
        if server.url not in clients:
            clients[server.url] = client.connect(access, server)
        return clients[server.url]

    with servers() as serve, pytest.MonkeyPatch.context() as patches:
        patches.setattr(readiness, "connect", connect)
        yield Gate(serve)


def test_a_healthy_cluster_answers_every_check(gate: Gate) -> None:
    cluster = Cluster()
    report = gate.ask(cluster)
    assert [(one.name, one.ok, one.hint, one.critical) for one in report.checks] == [
        ("servers answer", True, "4 of 4", False),
        ("write quorum", True, "", True),
        ("read quorum", True, "", True),
        ("drives are whole", True, "4 drives", False),
        (TRAVELS, True, "put through minio-0, read through minio-3", True),
    ]
    assert report.roles == tuple(Role(f"minio-{n}", "drive ok") for n in range(4))
    assert cluster.buckets == {PROBE: {}}
    key = next(one for one in cluster.asked if one.startswith(f"0 PUT /{PROBE}/gate/"))
    assert key.replace("0 PUT", "3 GET") in cluster.asked


def test_all_servers_of_the_settings_are_wanted() -> None:
    settings = SimpleNamespace(components=SimpleNamespace(minio=SimpleNamespace(members=4)))
    assert workloads(cast(Any, settings)) == (Workload("StatefulSet", "minio", 4),)


def test_where_no_server_is_alive_there_is_no_quorum(gate: Gate) -> None:
    report = gate.ask(Cluster(dead={0, 1, 2, 3}))
    last = report.checks[-1]
    assert (last.name, last.ok, last.hint, last.critical) == (
        "write quorum", False, "no server answers", True,
    )  # fmt: skip
    assert len(report.checks) == 2
    assert report.roles == ()


def test_servers_that_are_not_alive_are_not_asked_further(gate: Gate) -> None:
    cluster = Cluster(dead={0, 3})
    report = gate.ask(cluster)
    assert report.checks[-1].hint == "put through minio-1, read through minio-2"
    assert {one for one in cluster.asked if one[0] in "03"} == {
        "0 GET /minio/health/live", "3 GET /minio/health/live",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("path", "name"), [("cluster", "write quorum"), ("cluster/read", "read quorum")]
)
def test_a_lost_quorum_is_down(path: str, name: str, gate: Gate) -> None:
    (check,) = gate.bad(Cluster(health={path: 503})).values()
    assert (check.name, check.critical) == (name, True)
    assert check.hint == "too few drives are online: see `drives are whole`"


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ({"drives": [{"state": "offline"}]}, "offline"),
        ({"drives": [{"state": "ok", "healing": True}]}, "healing"),
        ({"state": "initializing"}, "initializing"),  # a server that has no drives to tell of
        ({"drives": []}, "offline"),
    ],
)
def test_a_drive_that_is_not_whole_is_named(said: dict[str, Any], state: str, gate: Gate) -> None:
    cluster = Cluster()
    cluster.drives["10.0.0.2:9000"] = said
    report = gate.ask(cluster)
    (check,) = (one for one in report.checks if not one.ok)
    assert (check.name, check.critical) == ("drives are whole", False)
    assert check.hint == f"minio-2: {state}"
    assert report.roles[2] == Role("minio-2", f"drive {state}")


def test_servers_may_call_themselves_by_their_dns_names(gate: Gate) -> None:
    names = {f"minio-{n}.minio-headless:9000": {"drives": [{"state": "ok"}]} for n in range(4)}
    assert gate.bad(Cluster(drives=names)) == {}


def test_drives_that_nobody_tells_of_are_counted(gate: Gate) -> None:
    cluster = Cluster()
    del cluster.drives["10.0.0.3:9000"]
    cluster.drives["10.0.0.1:9000"] = {"drives": [{"state": "offline"}]}
    report = gate.ask(cluster)
    (check,) = (one for one in report.checks if not one.ok)
    assert check.hint == "minio-1: offline; 1 of 4 drives are unknown"
    assert report.roles[3] == Role("minio-3", "drive unknown")


def test_an_object_that_comes_back_as_another_is_down_and_goes(gate: Gate) -> None:
    cluster = Cluster(returns=b"another")
    (check,) = gate.bad(cluster).values()
    assert (check.name, check.critical) == (TRAVELS, True)
    assert check.hint == "minio-3 returned another object than was put"
    assert cluster.buckets == {PROBE: {}}


def test_an_object_that_cannot_be_read_goes_all_the_same(gate: Gate) -> None:
    class Forgetful(Cluster):
        def answer(self, server: int, method: str, path: str, body: bytes) -> tuple[int, bytes]:
            if server == 3 and "/gate/" in path:
                return 404, b"<Error><Code>NoSuchKey</Code><Message>gone</Message></Error>"
            return super().answer(server, method, path, body)

    cluster = Forgetful()
    assert "NoSuchKey" in gate.bad(cluster)[TRAVELS].hint
    assert cluster.buckets == {PROBE: {}}


@pytest.mark.parametrize("code", ["BucketAlreadyOwnedByYou", "BucketAlreadyExists"])
def test_a_bucket_that_another_round_makes_at_the_same_time_is_taken(code: str, gate: Gate) -> None:
    assert gate.bad(Cluster(raced=code)) == {}


def test_a_bucket_that_may_not_be_made_is_down(gate: Gate) -> None:
    assert "TooManyBuckets" in gate.bad(Cluster(raced="TooManyBuckets"))[TRAVELS].hint


def test_a_bucket_that_is_there_is_not_made_again(gate: Gate) -> None:
    cluster = Cluster(buckets={PROBE: {}, "clients": {}})
    assert gate.bad(cluster) == {}
    assert f"0 PUT /{PROBE}" not in cluster.asked


def test_what_killed_rounds_left_goes_after_five_minutes_of_the_servers_clock(gate: Gate) -> None:
    old, young = NOW - timedelta(minutes=5, seconds=1), NOW - timedelta(minutes=5)
    left = {"gate/old": (b"", old), "gate/young": (b"", young), "kept/old": (b"", old)}
    cluster = Cluster(buckets={PROBE: dict(left), "clients": {"gate/old": (b"", old)}})
    assert gate.bad(cluster) == {}
    assert sorted(cluster.buckets[PROBE]) == ["gate/young", "kept/old"]
    assert list(cluster.buckets["clients"]) == ["gate/old"]
