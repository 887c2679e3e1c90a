"""No verb that changes something goes to the cluster of another environment, which has the same names."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from archive.object_store.store import Store
from cluster.dag import Dag
from errors import PermanentError
from operations.deploy.run import run_deploy
from operations.environment.environment import Environment
from operations.environment.place import ENVIRONMENT
from operations.runner.context import RunContext

from ..stored import NAMESPACE, Stored, environment_of


def platform(owner: str | None) -> Environment:
    kube = Stored()
    if owner is not None:
        labels = {ENVIRONMENT: owner} if owner else {}
        metadata = {"name": NAMESPACE, "labels": labels, "uid": "uid"}
        kube.objects["Namespace", NAMESPACE] = {"kind": "Namespace", "metadata": metadata}
    return environment_of(kube, environment="staging", storage=SimpleNamespace(object=None))


WORDS = "the namespace .* belongs to environment production, but these settings are for staging: nothing was changed"


def test_a_deploy_of_another_environment_changes_nothing() -> None:
    there = platform("production")
    vars(there)["graph"] = Dag(["nats"])
    with pytest.raises(PermanentError, match=WORDS):
        run_deploy(there, RunContext("test"), start=lambda *_: pytest.fail("it was begun"))
    assert there.kube.calls == []  # type: ignore[attr-defined]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(Store, "open", lambda *_: None)
    monkeypatch.setattr(Environment, "store_credentials", lambda self: {})
    return lambda owner: platform(owner).open_store()


def test_no_backup_restore_or_rebuild_opens_the_cluster_of_another_environment(
    opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Environment, "store_credentials", lambda self: pytest.fail("a Secret was read")
    )
    with pytest.raises(PermanentError, match=WORDS):
        opened("production")


@pytest.mark.parametrize("owner", ["staging", ""])
def test_its_own_and_one_that_an_earlier_version_made_are_opened(owner: str, opened: Any) -> None:
    assert opened(owner).cluster_uid == "uid"


def test_a_namespace_that_is_not_there_is_told(opened: Any) -> None:
    with pytest.raises(PermanentError, match="isa deploy first"):
        opened(None)
