from typing import Any

import pytest

from components.base import Scratch, Step
from errors import TemporaryError
from operations.scratch import Unrestorable, _refuse_dead

STEPS = (Step("check", ("redis-check-rdb",), "L2"),)
SCRATCH = Scratch("", "redis-cluster", "redis", ("redis-server",), 6379, steps=STEPS)


def pod(**status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "proof-redis"}, "status": status}


def ended(name: str, code: int, message: str = "said so") -> dict[str, Any]:
    return {"name": name, "state": {"terminated": {"exitCode": code, "message": message}}}


def refuse(found: dict[str, Any], *, serving: bool = False) -> None:
    _refuse_dead(found, SCRATCH, serving=serving)


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
