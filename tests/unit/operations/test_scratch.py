import errno
from types import SimpleNamespace
from typing import Any, cast

import pytest

from components.access import Endpoint
from components.base import Scratch, Step
from errors import PermanentError, TemporaryError
from operations.scratch import (
    Engines,
    Unrestorable,
    _refuse_dead,
    _sweep,
    out_of_room,
    require_scratch,
)

STEPS = (Step("check", ("redis-check-rdb",), "L2"),)
SCRATCH = Scratch("", "redis-cluster", "redis", ("redis-server",), 6379, steps=STEPS)


def pod(**status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "proof-redis"}, "status": status}


def ended(name: str, code: int, message: str = "said so") -> dict[str, Any]:
    return {"name": name, "state": {"terminated": {"exitCode": code, "message": message}}}


def refuse(found: dict[str, Any], *, serving: bool = False) -> None:
    _refuse_dead(found, SCRATCH, serving=serving)


def test_nothing_is_removed_where_the_live_engines_are() -> None:
    settings = SimpleNamespace(kubernetes=SimpleNamespace(namespace="isa"))
    request = SimpleNamespace(namespace="isa", settings=settings)  # nobody who could be asked
    with pytest.raises(PermanentError, match="live engines"):
        _sweep(cast(Any, request))


def test_a_pod_on_its_way_is_let_be() -> None:
    refuse(pod())
    refuse(pod(phase="Running", initContainerStatuses=[ended("fetch", 0)]))


def test_a_damaged_set_is_the_sets_fault_and_a_lost_store_is_not() -> None:
    with pytest.raises(Unrestorable) as found:
        refuse(pod(initContainerStatuses=[ended("fetch", 3)]))
    assert found.value.level == "L1"
    with pytest.raises(TemporaryError):
        refuse(pod(initContainerStatuses=[ended("fetch", 75)]))


def test_a_tool_that_refuses_the_data_fails_its_level_and_a_killed_one_says_nothing() -> None:
    with pytest.raises(Unrestorable) as found:
        refuse(pod(initContainerStatuses=[ended("fetch", 0), ended("check", 1)]))
    assert found.value.level == "L2"
    with pytest.raises(TemporaryError):
        refuse(pod(initContainerStatuses=[ended("check", 137)]))


def test_an_engine_that_does_not_start_refuses_the_data_and_one_that_dies_later_does_not() -> None:
    with pytest.raises(Unrestorable) as found:
        refuse(pod(containerStatuses=[ended("engine", 1)]))
    assert found.value.level == "L3"
    for code, serving in ((1, True), (137, False), (137, True)):
        with pytest.raises(TemporaryError):
            refuse(pod(containerStatuses=[ended("engine", code)]), serving=serving)


def test_an_evicted_pod_is_no_verdict() -> None:
    with pytest.raises(TemporaryError, match="Evicted"):
        refuse(pod(phase="Failed", reason="Evicted"))


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
            refuse(pod(**{status: [ended(name, 1, said)]}))


def test_a_full_spool_is_told_from_data_that_an_engine_refuses() -> None:
    full = PermanentError("the spool in /spool is full")
    full.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert out_of_room(full)
    assert out_of_room(PermanentError("psql ended with 1", said="ERROR: 53100 disk full"))
    assert not out_of_room(PermanentError("psql ended with 1", said="ERROR: duplicate key"))


def test_what_has_a_live_engines_address_is_never_restored_into() -> None:
    source = Endpoint("proof-redis", "127.9.0.1", 6379, "10.0.0.7", "node-1")
    made = Engines(cast(Any, None), {"": source}, "valkey 9", lambda: None)
    require_scratch(made, frozenset({"10.0.0.8"}))
    with pytest.raises(PermanentError, match="nothing was restored"):
        require_scratch(made, frozenset({"10.0.0.7"}))
