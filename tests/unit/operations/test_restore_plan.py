"""What whoever approves a restore is told of passwords, and of what belongs to an engine as a whole."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from archive.backup.manifest import Artefact, Manifest, new_identity
from archive.catalogue.listing import Catalogue
from archive.evidence.verdicts import Proof
from components import COMPONENTS
from components.neo4j.restore import DUMP
from errors import PermanentError
from operations.restore.plan import RestorePlan, plan_restore
from tests.environments import environment_with

from ..archive.test_retention import KEY, SIGNERS, START, a_set
from ..buckets import Bucket

ACCOUNTS = {"postgresql", "minio", "emqx"}  # accounts of the others are Secrets, or have a unit
DATABASES = ("database isa", "database postgres", "database template1", "database golden")


def backup_of(component: str, *artefacts: Artefact) -> Manifest:
    return a_set(
        0, id=new_identity(component, START, "000000"), component=component, artefacts=artefacts,
        topology={"buckets": {}},
    )  # fmt: skip


def artefact(unit: str, form: str) -> Artefact:
    return Artefact(
        name=f"{unit.replace(' ', '-')}.zst.age", unit=unit, format=form, plain_size=7, plain_sha256="a" * 64,
        stored_size=5, stored_sha256="b" * 64, part_size=5 << 20,
    )  # fmt: skip


@pytest.fixture
def postgresql() -> Manifest:
    roles = artefact("globals", "JSON of roles and settings")
    return backup_of("postgresql", roles, *(artefact(unit, "pg_dump custom") for unit in DATABASES))


def planned(
    manifest: Manifest, cluster: str = "uid", *only: str, gap: str = "", **how: Any
) -> RestorePlan:
    bucket = Bucket()
    bucket.put(manifest.own_key, manifest.signed(KEY))
    for one in manifest.artefacts:
        bucket.put(manifest.key(one), bytes(one.stored_size))
    settings: Any = SimpleNamespace(
        environment="test",
        components=SimpleNamespace(neo4j=SimpleNamespace(edition="community")),
        backup=SimpleNamespace(signers=SIGNERS),
        verify=SimpleNamespace(signers=()),
    )
    environment = environment_with(settings, store=cast(Any, bucket), cluster_uid=cluster)
    passed = Proof(manifest.ended, "pass", "no document of it")
    catalogue = Catalogue(
        (manifest,), {}, (), {manifest.id: (passed,)}, gaps={manifest.id: gap} if gap else {}
    )
    return plan_restore(environment, catalogue, manifest.id, only, **how)


@pytest.mark.parametrize("component", COMPONENTS)
def test_it_says_whose_passwords_will_be_those_of_the_set(component: str) -> None:
    plan = planned(backup_of(component))
    told = any("come back with their old" in words for words in plan.warnings)
    assert told == (component in ACCOUNTS)


def test_a_set_whose_last_verdict_is_missing_is_not_restored(postgresql: Manifest) -> None:
    with pytest.raises(PermanentError, match="evidence is missing: number 7"):
        planned(postgresql, gap="number 7")


def test_roles_and_settings_of_a_server_in_use_stay_unless_they_are_named(
    postgresql: Manifest,
) -> None:
    plan = planned(postgresql)
    assert [one.unit for one in plan.units] == ["database isa", "database golden"]
    assert plan.not_replaced == ("globals", "database postgres", "database template1")
    assert any("--unit 'globals'" in words for words in plan.warnings)
    named = planned(postgresql, "uid", "globals", "postgres")
    assert [one.unit for one in named.units] == ["globals", "database postgres"]


@pytest.mark.parametrize(
    ("cluster", "how"),
    [("uid", {"new_engine": True}), ("another", {"other_cluster": True})],
    ids=["rebuilt", "lost"],
)
def test_a_new_server_gets_back_all_that_the_set_holds(
    postgresql: Manifest, cluster: str, how: dict[str, Any]
) -> None:
    plan = planned(postgresql, cluster, **how)
    assert len(plan.units) == 5
    assert plan.not_replaced == ()


@pytest.mark.parametrize(
    ("how", "left"), [({}, ("database system",)), ({"new_engine": True}, ())], ids=["in use", "new"]
)
def test_users_of_neo4j_come_back_into_a_rebuilt_server_and_stay_in_one_in_use(
    how: dict[str, Any], left: tuple[str, ...]
) -> None:
    databases = [artefact(f"database {name}", DUMP) for name in ("system", "neo4j")]
    assert planned(backup_of("neo4j", *databases), **how).not_replaced == left
