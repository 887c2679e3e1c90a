import errno
from types import SimpleNamespace
from typing import Any, cast

import pytest

from components.access import Endpoint
from components.base import Scratch, Step
from config.loading import load
from errors import PermanentError, TemporaryError
from operations.runner.context import RunContext
from operations.verify.scratch import Unrestorable, engines, out_of_room
from operations.verify.scratch_pod import Request

from ..stored import Stored

SETTINGS = load(
    "sandbox",
    {
        "ISA_KUBERNETES__ENGINE_ACCESS": "address",
        "ISA_VERIFY__IMAGE": "registry.example.com/isa/worker:1",
    },
)

STEPS = (Step("check", ("redis-check-rdb",), "L2"),)
SCRATCH = Scratch("", "redis-cluster", "redis", ("redis-server",), 6379, steps=STEPS)


def pod(**status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "proof-redis"}, "status": status}


def ended(name: str, code: int, message: str = "said so") -> dict[str, Any]:
    return {"name": name, "state": {"terminated": {"exitCode": code, "message": message}}}


class Cluster(Stored):
    """Gives every scratch pod an address at once, and knows which pods of the live namespace have which."""

    def __init__(
        self, scratch_address: str = "10.0.0.7", live: dict[str, str] | None = None
    ) -> None:
        super().__init__()
        self.scratch_address, self.live = scratch_address, live or {}
        self.status: dict[str, Any] = {}  # of the scratch pod, beside what one that serves has

    def get(
        self, api_version: str, kind: str, name: str, namespace: str | None = None
    ) -> dict[str, Any] | None:
        if kind == "StatefulSet":
            server = {"name": "redis", "image": "redis:8"}
            return {"spec": {"template": {"spec": {"containers": [server]}}}}
        return super().get(api_version, kind, name, namespace)

    def list(
        self, api_version: str, kind: str, namespace: str | None = None, selector: str | None = None
    ) -> list[dict[str, Any]]:
        if namespace == SETTINGS.kubernetes.namespace:
            return [pod(podIP=address) for address in self.live.values()]
        return super().list(api_version, kind, namespace, selector)

    def create(self, manifest: dict[str, Any], **_: Any) -> dict[str, Any]:
        if manifest["kind"] == "Pod":
            manifest["status"] = {
                "phase": "Running", "podIP": self.scratch_address, **self.status,
            }  # fmt: skip
        manifest.setdefault("spec", {})
        return super().create(manifest)


def request(cluster: Cluster, settings: Any = SETTINGS) -> Request:
    manifest = SimpleNamespace(
        id="set-1", component="redis", environment="sandbox", plain_size=1, artefacts=[]
    )
    return Request(settings, cluster, (cast(Any, manifest),), {}, "")


def refuse(status: dict[str, Any], *, serving: bool = False) -> None:
    """Start a scratch engine whose pod has a status, or gets it once it serves."""
    cluster = Cluster()
    cluster.status = {} if serving else status
    with engines(request(cluster), (SCRATCH,), lambda *_: "valkey 9", RunContext("test")) as made:
        for (kind, _), one in cluster.objects.items():
            if kind == "Pod":
                one["status"] |= status
        made.check()


def test_nothing_is_removed_where_the_live_engines_are() -> None:
    live = SETTINGS.kubernetes.namespace
    kubernetes = SETTINGS.kubernetes.model_copy(update={"verify_namespace": live})
    cluster = Cluster()
    asked = request(cluster, SETTINGS.model_copy(update={"kubernetes": kubernetes}))
    with (
        pytest.raises(PermanentError, match="live engines"),
        engines(asked, (SCRATCH,), lambda *_: "", RunContext("test")),
    ):
        pass
    assert cluster.calls == []


def test_a_pod_whose_first_step_is_over_is_waited_for() -> None:
    refuse({"initContainerStatuses": [ended("fetch", 0)]})


def test_a_damaged_set_is_the_sets_fault_and_a_lost_store_is_not() -> None:
    with pytest.raises(Unrestorable) as found:
        refuse({"initContainerStatuses": [ended("fetch", 3)]})
    assert found.value.level == "L1"
    with pytest.raises(TemporaryError):
        refuse({"initContainerStatuses": [ended("fetch", 75)]})


def test_a_tool_that_refuses_the_data_fails_its_level_and_a_killed_one_says_nothing() -> None:
    with pytest.raises(Unrestorable) as found:
        refuse({"initContainerStatuses": [ended("fetch", 0), ended("check", 1)]})
    assert found.value.level == "L2"
    with pytest.raises(TemporaryError):
        refuse({"initContainerStatuses": [ended("check", 137)]})


def test_an_engine_that_does_not_start_refuses_the_data_and_one_that_dies_later_does_not() -> None:
    with pytest.raises(Unrestorable) as found:
        refuse({"containerStatuses": [ended("engine", 1)]})
    assert found.value.level == "L3"
    for code, serving in ((1, True), (137, False), (137, True)):
        with pytest.raises(TemporaryError):
            refuse({"containerStatuses": [ended("engine", code)]}, serving=serving)


def test_an_evicted_pod_is_no_verdict() -> None:
    with pytest.raises(TemporaryError, match="Evicted"):
        refuse({"phase": "Failed", "reason": "Evicted"})


@pytest.mark.parametrize(
    "said",
    [
        "FATAL: could not write lock file: No space left on device",
        "insufficient storage resources available",
        "java.io.IOException: No space left on device",
        "XMinioStorageFull: Storage backend has reached its minimum free drive threshold",
    ],
)
def test_a_full_volume_is_no_verdict_whoever_says_so(said: str) -> None:
    for status in ("initContainerStatuses", "containerStatuses"):
        name = "check" if status.startswith("init") else "engine"
        with pytest.raises(TemporaryError, match=said[:20]):
            refuse(dict(**{status: [ended(name, 1, said)]}))


def test_a_full_spool_is_told_from_data_that_an_engine_refuses() -> None:
    full = PermanentError("the spool in /spool is full")
    full.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert out_of_room(full)
    assert out_of_room(PermanentError("psql exited with 1", said="ERROR: 53100 disk full"))
    assert not out_of_room(PermanentError("psql exited with 1", said="ERROR: duplicate key"))


def served(cluster: Cluster) -> list[Endpoint]:
    """What a caller gets to restore into."""
    with engines(request(cluster), (SCRATCH,), lambda *_: "valkey 9", RunContext("test")) as made:
        return list(made.at.values())


def test_a_scratch_engine_of_its_own_is_restored_into() -> None:
    cluster = Cluster("10.0.0.7", {"redis-cluster-0": "10.0.0.8", "redis-cluster-1": ""})
    assert [endpoint.pod_ip for endpoint in served(cluster)] == ["10.0.0.7"]


def test_no_caller_gets_a_scratch_engine_that_has_a_live_engines_address() -> None:
    """Proofs, restores that copy from scratch engines, and questions for a version: all get them from there."""
    cluster = Cluster("10.0.0.7", {"redis-cluster-0": "10.0.0.7"})
    with pytest.raises(PermanentError, match=r"10\.0\.0\.7 of a live engine: nothing was restored"):
        served(cluster)
    assert not [kind for kind, _ in cluster.objects if kind == "Pod"]
