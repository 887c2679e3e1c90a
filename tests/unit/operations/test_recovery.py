"""A release that a killed helm left pending is freed, unless another tool may be at work on it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cluster.helm.records import ReleaseRecord
from errors import TemporaryError
from operations.deploy.recovery import operation, recover

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
RELEASE: Any = SimpleNamespace(name="redis", namespace="engines", timeout=600)


def record(
    revision: int, status: str, image: str = "redis:8.2", age: float = 10.0
) -> ReleaseRecord:
    pod = {"spec": {"containers": [{"name": "redis", "image": image}]}}
    workload = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "redis"},
        "spec": {"template": pod},
    }
    updated = NOW - timedelta(seconds=age)
    return ReleaseRecord("redis", revision, status, "redis-1", "8", updated, json.dumps(workload))


class Cluster:
    """Helm, and the Lease of the component with what its last holder noted."""

    def __init__(self, noted: str = operation("redis")) -> None:
        self.previous_operation = noted
        self.calls: list[str] = []

    def ensure(self) -> None:
        self.calls.append("ensure")

    def uninstall(self, name: str, namespace: str, *, timeout: int) -> None:
        self.calls.append(f"uninstall {namespace}/{name} within {timeout}")

    def rollback(self, name: str, namespace: str, revision: int, *, timeout: int) -> None:
        self.calls.append(f"rollback {namespace}/{name} to {revision} within {timeout}")


def freed(*history: ReleaseRecord, noted: str = operation("redis")) -> list[str]:
    cluster: Any = Cluster(noted)
    recover(cluster, cluster, RELEASE, list(history), now=lambda: NOW)
    return cast(list[str], cluster.calls)


def test_an_upgrade_goes_back_to_the_last_revision_that_worked() -> None:
    history = (record(1, "superseded"), record(2, "deployed"), record(3, "pending-upgrade"))
    assert freed(*history) == ["ensure", "rollback engines/redis to 2 within 600"]


def test_an_interrupted_install_is_completed_and_nothing_is_removed() -> None:
    assert freed(record(1, "pending-install")) == [
        "ensure", "rollback engines/redis to 1 within 600",
    ]  # fmt: skip


def test_a_change_of_the_engines_version_is_completed_and_not_taken_back() -> None:
    history = (record(1, "deployed"), record(2, "pending-upgrade", "redis:8.4"))
    assert freed(*history) == ["ensure", "rollback engines/redis to 2 within 600"]


def test_an_interrupted_uninstall_is_completed() -> None:
    history = (record(1, "deployed"), record(2, "uninstalling"))
    assert freed(*history) == ["ensure", "uninstall engines/redis within 600"]


@pytest.mark.parametrize("noted", ["", operation("nats")])
def test_what_is_not_in_our_note_is_another_tools_until_its_time_is_over(noted: str) -> None:
    young, old = (record(1, "pending-install", age=age) for age in (599, 600))
    with pytest.raises(TemporaryError) as refused:
        freed(young, noted=noted)
    assert "redis has been pending-install for 599 s, and isa did not start that" in str(
        refused.value
    )
    assert "helm status redis -n engines" in str(refused.value)
    assert refused.value.delay == 1  # until its 600 s are over
    with pytest.raises(TemporaryError) as refused:
        freed(replace(young, updated=NOW), noted=noted)
    assert refused.value.delay == 15
    assert freed(old, noted=noted) == ["ensure", "rollback engines/redis to 1 within 600"]
