"""What whoever approves a restore is told of passwords, and of what belongs to an engine as a whole."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from components import COMPONENTS
from components.neo4j.restore import DUMP
from errors import PermanentError
from operations.restore import plan as restore_plan
from operations.restore.plan import plan_restore

ACCOUNTS = {"postgresql", "minio", "emqx"}  # accounts of the others are Secrets, or have a unit


@pytest.mark.parametrize("component", COMPONENTS)
def test_it_says_whose_passwords_will_be_those_of_the_set(
    component: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = SimpleNamespace(
        id=f"{component}-20260101T000000Z-000000",
        component=component,
        environment="test",
        cluster="uid",
        missing=(),
        artefacts=(),
        topology={"buckets": {}},
        fingerprint=(),
    )
    monkeypatch.setattr(restore_plan, "find_chain", lambda *_: (manifest, ()))
    editions = SimpleNamespace(neo4j=SimpleNamespace(edition="community"))
    settings = SimpleNamespace(environment="test", components=editions)
    environment: Any = SimpleNamespace(store=None, settings=settings, cluster_uid="uid", trust=None)
    catalogue: Any = SimpleNamespace(
        verdict=lambda _: "pass", latest=lambda _: None, last=lambda _: None, refused=lambda _: ""
    )
    found = plan_restore(environment, catalogue, manifest.id)
    assert any("come back with their old" in words for words in found.warnings) == (
        component in ACCOUNTS
    )


def artefact(unit: str, form: str) -> Any:
    name = f"{unit.replace(' ', '-')}.zst.age"
    return SimpleNamespace(name=name, unit=unit, format=form, plain_size=7)


@pytest.fixture
def postgresql(monkeypatch: pytest.MonkeyPatch) -> Any:
    dumps = ("database isa", "database postgres", "database template1", "database golden")
    manifest = SimpleNamespace(
        id="postgresql-20260101T000000Z-000000",
        component="postgresql",
        environment="test",
        cluster="uid",
        missing=(),
        artefacts=[
            artefact("globals", "JSON of roles and settings"),
            *(artefact(unit, "pg_dump custom") for unit in dumps),
        ],
    )
    monkeypatch.setattr(restore_plan, "find_chain", lambda *_: (manifest, ()))
    monkeypatch.setattr(restore_plan, "look", lambda *_: ())
    return manifest


def planned(
    manifest: Any, cluster: str = "uid", *only: str, components: Any = None, **how: Any
) -> Any:
    settings = SimpleNamespace(environment="test", components=components)
    environment: Any = SimpleNamespace(
        store=None, settings=settings, cluster_uid=cluster, trust=None
    )
    refused = how.pop("refused", "")
    catalogue: Any = SimpleNamespace(
        verdict=lambda _: "pass", latest=lambda _: None, last=lambda _: None,
        refused=lambda _: refused,
    )  # fmt: skip
    return plan_restore(environment, catalogue, manifest.id, only, **how)


def test_a_set_whose_last_verdict_is_a_fail_or_missing_is_not_restored(postgresql: Any) -> None:
    with pytest.raises(PermanentError, match="evidence is missing"):
        planned(postgresql, refused="evidence is missing")


def test_roles_and_settings_of_a_server_in_use_stay_unless_they_are_named(postgresql: Any) -> None:
    plan = planned(postgresql)
    assert [one.unit for one in plan.units] == ["database isa", "database golden"]
    assert plan.left == ("globals", "database postgres", "database template1")
    assert any("--unit 'globals'" in words for words in plan.warnings)
    named = planned(postgresql, "uid", "globals", "postgres")
    assert [one.unit for one in named.units] == ["globals", "database postgres"]


@pytest.mark.parametrize(
    ("cluster", "how"),
    [("uid", {"new_engine": True}), ("another", {"other_cluster": True})],
    ids=["rebuilt", "lost"],
)
def test_a_new_server_gets_back_all_that_the_set_holds(
    postgresql: Any, cluster: str, how: dict[str, bool]
) -> None:
    plan = planned(postgresql, cluster, **how)
    assert len(plan.units) == 5
    assert plan.left == ()


@pytest.mark.parametrize(
    ("how", "left"), [({}, ("database system",)), ({"new_engine": True}, ())], ids=["in use", "new"]
)
def test_users_of_neo4j_come_back_into_a_rebuilt_server_and_stay_in_one_in_use(
    how: dict[str, Any], left: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = SimpleNamespace(
        id="neo4j-20260101T000000Z-000000", component="neo4j", environment="test", cluster="uid",
        missing=(), artefacts=[artefact(f"database {name}", DUMP) for name in ("system", "neo4j")],
    )  # fmt: skip
    monkeypatch.setattr(restore_plan, "find_chain", lambda *_: (manifest, ()))
    monkeypatch.setattr(restore_plan, "look", lambda *_: ())
    community = SimpleNamespace(neo4j=SimpleNamespace(edition="community"))
    assert planned(manifest, components=community, **how).left == left
