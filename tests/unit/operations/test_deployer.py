"""A deploy restarts pods behind helm, release by release, and again where it takes a change back."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cluster.helm.records import ReleaseRecord
from errors import PermanentError
from operations.deploy import node as deploy
from operations.deploy.node import Deployer
from operations.deploy.plan import RESTART, UPGRADE, ReleasePlan
from operations.deploy.reloads import read_again
from operations.deploy.restarts import DUE, RESTARTED, Restart
from operations.health import gate
from operations.runner.context import RunContext

from ..stored import NAMESPACE, Stored

WORKLOAD = {
    "apiVersion": "apps/v1",
    "kind": "StatefulSet",
    "metadata": {"name": "emqx"},
    "spec": {"template": {"metadata": {}, "spec": {"containers": []}}},
}


@dataclass
class World(Stored):
    """A cluster, and what happens in it in order."""

    happened: list[str] = field(default_factory=list)
    ready: bool = True

    def __post_init__(self) -> None:
        super().__init__()

    def add(self, name: str) -> None:
        self.objects["StatefulSet", name] = copy.deepcopy(WORKLOAD)

    def patch(self, manifest: Any, change: dict[str, Any]) -> Any:
        name = manifest["metadata"]["name"]
        template = change.get("spec", {}).get("template", {}).get("metadata", {})
        self.happened.append(
            f"{name}: restart" if RESTARTED in template.get("annotations", {}) else f"{name}: note"
        )
        return super().patch(manifest, change)

    # ------------------------------------------------------------------ helm
    def upgrade(self, release: Any, *_: object, **__: object) -> None:
        self.happened.append(f"{release.name}: helm")

    def rollback(self, name: str, *_: object, **__: object) -> None:
        self.happened.append(f"{name}: helm back")

    # ------------------------------------------------------------------ platform
    def deploy(self, *plans: ReleasePlan) -> str:
        record = SimpleNamespace(revision=1, status="deployed", pending=False)
        self.records = {plan.release.name: [record] for plan in plans}

        @contextmanager
        def lease(*_: object) -> Iterator[Any]:
            yield SimpleNamespace(
                note=lambda text: None, ensure=lambda: None, previous_operation=""
            )

        platform = SimpleNamespace(kube=self, helm=self, lease=lease, site_of=lambda release: {})
        plan = SimpleNamespace(node=lambda name: SimpleNamespace(releases=plans))
        progress = SimpleNamespace(update=lambda *_, **__: None, seconds=lambda name: 1.0)
        made = Deployer(
            cast(Any, platform), cast(Any, plan), cast(Any, progress), RunContext("test")
        )
        return made.deploy("emqx").outcome


def without_waiting(clock: Callable[[], float]) -> RunContext:
    """A run whose clock goes on by itself."""
    asleep = SimpleNamespace(sleep=lambda seconds: None)
    return RunContext("test", clock=clock, cancellation=cast(Any, asleep))


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()

    def wait(*_: object, **__: object) -> None:
        made.happened.append("gate")
        if not made.ready:
            raise PermanentError("emqx is not ready after 600 s.")

    monkeypatch.setattr(gate, "wait", wait)
    monkeypatch.setattr(deploy, "read_records", lambda kube, namespace: made.records)
    return made


def planned(
    world: World,
    name: str = "emqx",
    action: str = UPGRADE,
    *,
    due: bool = True,
    reloads: bool = False,
) -> ReleasePlan:
    world.add(name)
    manifest = copy.deepcopy(WORKLOAD)
    manifest["metadata"] = {"name": name}
    record = cast(ReleaseRecord, SimpleNamespace(revision=1, status="deployed", pending=False))
    release = SimpleNamespace(name=name, namespace=NAMESPACE, component="emqx", timeout=60)
    one = Restart("StatefulSet", name, (f"ConfigMap/{name}-env",), "0123", reloads)
    restarts = (one,) if due else ()
    return ReleasePlan(
        cast(Any, release),
        action,
        (),
        record,
        manifests=(manifest,),
        good=record,
        restarts=restarts,
    )


def test_pods_restart_behind_helm_and_before_the_gate(world: World) -> None:
    assert world.deploy(planned(world)) == "upgraded"
    assert world.happened == ["emqx: note", "emqx: helm", "emqx: restart", "gate"]
    assert DUE not in world.objects["StatefulSet", "emqx"]["metadata"].get("annotations", {})


def test_an_upgrade_that_restarts_pods_by_itself_is_followed_by_no_restart(world: World) -> None:
    world.deploy(planned(world, due=False))
    assert world.happened == ["emqx: helm", "gate"]


def test_a_restart_that_a_killed_run_left_needs_no_helm(world: World) -> None:
    world.deploy(planned(world, action=RESTART))
    assert world.happened == ["emqx: note", "emqx: restart", "gate"]


def test_pods_of_the_next_release_restart_when_those_of_the_last_are_ready(world: World) -> None:
    world.deploy(planned(world, "one"), planned(world, "two"))
    assert world.happened == [
        *("one: note", "one: helm", "one: restart", "gate"),
        *("two: note", "two: helm", "two: restart", "gate"),
    ]


def test_a_change_that_is_taken_back_restarts_the_pods_again(world: World) -> None:
    world.ready = False
    with pytest.raises(PermanentError, match="rolled back to revision 1"):
        world.deploy(planned(world))
    assert world.happened[-3:] == ["gate", "emqx: helm back", "emqx: restart"]


def test_a_restart_that_does_not_get_ready_rolls_nothing_back(world: World) -> None:
    world.ready = False
    with pytest.raises(PermanentError, match="restarted to read its settings"):
        world.deploy(planned(world, action=RESTART))
    assert world.happened[-1] == "gate"


# ---------------------------------------------------------------------- servers that read their settings again
def read(world: World, monkeypatch: pytest.MonkeyPatch, *, accepted: bool) -> None:
    """Servers whose time of reading is one before helm, and another or the same behind it."""

    def times(*_: object) -> dict[str, str]:
        loaded = accepted and "nats: helm" in world.happened
        return {"nats-0": "02:00" if loaded else "01:00", "nats-1": "02:00" if loaded else "01:00"}

    clock = iter(range(0, 10_000, 60))
    monkeypatch.setattr(deploy, "times_of_reading", times)
    monkeypatch.setattr(
        deploy,
        "read_again",
        lambda _, before, ask: read_again(without_waiting(lambda: float(next(clock))), before, ask),
    )


def test_servers_that_read_their_settings_again_are_not_restarted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    read(world, monkeypatch, accepted=True)
    world.deploy(planned(world, "nats", reloads=True))
    assert world.happened == ["nats: note", "nats: helm", "nats: note", "gate"]
    assert DUE not in world.objects["StatefulSet", "nats"]["metadata"].get("annotations", {})


def test_servers_that_refuse_to_read_their_settings_again_are_restarted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    read(world, monkeypatch, accepted=False)
    world.deploy(planned(world, "nats", reloads=True))
    assert world.happened == ["nats: note", "nats: helm", "nats: restart", "gate"]


def test_what_only_read_its_settings_again_is_not_restarted_when_they_are_taken_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    read(world, monkeypatch, accepted=True)
    world.ready = False
    with pytest.raises(PermanentError, match="rolled back"):
        world.deploy(planned(world, "nats", reloads=True))
    assert world.happened[-2:] == ["gate", "nats: helm back"]


def test_a_member_that_does_not_answer_has_not_read_its_settings() -> None:
    clock = iter((0.0, 100.0, 200.0))
    before = {"nats-0": "01:00", "nats-1": "01:00"}
    answers = iter([{}, {"nats-0": "02:00"}])
    assert not read_again(without_waiting(lambda: next(clock)), before, lambda: next(answers))
