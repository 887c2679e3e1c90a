"""Which backups a restore accepts, and the warnings for the person who approves it."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pyrage
import pytest

from archive.backup.manifest import Artefact, Engine, Manifest, read_manifest
from archive.catalogue.listing import Catalogue, read_catalogue
from archive.evidence.verdicts import Evidence, manifest_digest, signer_of, write_evidence
from archive.signing import Trust
from components import COMPONENTS
from components.base import Live
from errors import ArgumentError, PermanentError, TemporaryError
from operations.environment.environment import Environment
from operations.restore.plan import RestorePlan, engine_of, plan_restore, plans_of
from tests.environments import environment_with

from ..archive.test_retention import KEY, SIGNERS, a_set
from ..buckets import Bucket
from ..stored import Stored, settings_of

POOL = str(pyrage.x25519.Identity.generate())
UNITS = {"database isa": 100, "database shop": 50, "globals": 7}


class World:
    """Sets of one engine that has units.

    Attributes:
        remarks: what the live engine says of a restore; an exception is raised.
        manual: why the engine is restored by hand.
        cluster: that this is.
    """

    def __init__(self) -> None:
        self.bucket, self.kube = Bucket(), Stored()
        self.remarks: list[str] | Exception | None = None
        self.manual, self.accounts, self.cluster = "", "", "uid"

    @property
    def environment(self) -> Environment:
        settings = settings_of(
            environment="test",
            backup=SimpleNamespace(signers=SIGNERS),
            verify=SimpleNamespace(signers=(signer_of(POOL),), identity_secret="verify-identity"),
        )
        return environment_with(
            settings, kube=self.kube, store=cast(Any, self.bucket), cluster_uid=self.cluster
        )

    @property
    def live(self) -> Live:
        def said(*_: Any) -> list[str]:
            if isinstance(self.remarks, Exception):
                raise self.remarks
            return self.remarks or []

        unused: Any = None
        return Live(
            units=lambda reader: dict(UNITS), fence=unused, replace=unused, measure=unused,
            writers="they cannot write", server_wide=("globals",), accounts=self.accounts,
            by_hand=lambda settings: self.manual, remarks=None if self.remarks is None else said,
        )  # fmt: skip

    def store(self, day: float, **more: Any) -> Manifest:
        made = a_set(day, **more)
        self.bucket.put(made.own_key, made.signed(KEY))
        return made

    def verify(self, made: Manifest, verdict: str = "pass", seconds: float = 30.0) -> None:
        stored = read_manifest(self.bucket.get(made.own_key), made.own_key, SIGNERS)
        said = {
            "set": made.id, "component": "redis", "environment": "test", "verdict": verdict, "level": "L4",
            "manifest_sha256": manifest_digest(stored), "seconds": seconds,
            "begun": made.begun + timedelta(hours=1),
        }  # fmt: skip
        write_evidence(cast(Any, self.bucket), made.prefix, Evidence.model_validate(said), POOL)

    @property
    def catalogue(self) -> Catalogue:
        trust = Trust(SIGNERS, (signer_of(POOL),))
        return read_catalogue(cast(Any, self.bucket), "test", ["redis"], trust)

    def plan(self, made: Manifest, *only: str, **how: Any) -> RestorePlan:
        return plan_restore(self.environment, self.catalogue, made.id, only, **how)


class Redis:
    """Redis, as a test wants it."""

    name = "redis"

    def __init__(self, world: World) -> None:
        self._world = world

    @property
    def live(self) -> Live:
        return self._world.live


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setitem(COMPONENTS, "redis", cast(Any, Redis(made)))
    return made


def test_a_proven_set_is_restored_without_a_warning(world: World) -> None:
    made = world.store(3)
    world.verify(made)
    plan = world.plan(made)
    assert plan.manifest.id == made.id
    assert [(one.unit, one.size) for one in plan.units] == [
        ("database isa", 100), ("database shop", 50),
    ]  # fmt: skip
    assert plan.not_replaced == ("globals",)
    assert (plan.proven, plan.writers, plan.by_hand, plan.earlier) == (
        True, "they cannot write", "", (),
    )  # fmt: skip
    assert plan.warnings == (
        "globals is not changed unless it is restored by name: --unit 'globals'",
    )
    assert plan.took == (
        "the last backup took 0 s; the last verification of this backup took 30 s, restored and compared"
    )
    assert plan.document().plain()["replaced"] == [
        {"unit": "database isa", "bytes": 100}, {"unit": "database shop", "bytes": 50},
    ]  # fmt: skip


def test_a_set_that_was_never_proven_says_so(world: World) -> None:
    plan = world.plan(world.store(3))
    assert not plan.proven
    assert any("no restore of this backup was ever verified" in words for words in plan.warnings)
    assert plan.took == "the last backup took 0 s"


def test_a_set_that_was_proven_in_part_is_not_called_proven(world: World) -> None:
    made = world.store(3)
    world.verify(made, "partial")
    assert not world.plan(made).proven


def test_a_set_that_failed_its_proof_is_not_restored(world: World) -> None:
    made = world.store(3)
    world.verify(made, "fail")
    with pytest.raises(PermanentError, match=made.id):
        world.plan(made)


def test_what_a_partial_set_lacks_and_that_there_is_a_newer_one_are_warnings(world: World) -> None:
    made = world.store(3, outcome="partial", missing=("shard 2: away",))
    newer = world.store(4)
    warnings = world.plan(made).warnings
    assert "the backup is partial: shard 2: away" in warnings
    assert f"there is a newer backup, of 2025-01-05 01:00 UTC: {newer.id}" in warnings
    assert not any("there is a newer set" in words for words in world.plan(newer).warnings)


def test_whose_passwords_change_is_a_warning(world: World) -> None:
    world.accounts = "accounts come back with the set's passwords"
    assert world.accounts in world.plan(world.store(3)).warnings


def test_a_set_whose_objects_are_not_all_there_is_not_restored(world: World) -> None:
    artefact = Artefact(
        name="dump.rdb.zst.age", unit="shard 0", format="RDB", plain_size=3, plain_sha256="0" * 64,
        stored_size=3, stored_sha256="0" * 64, part_size=8,
    )  # fmt: skip
    earlier = world.store(3, artefacts=(artefact,))
    made = world.store(4, kind="incremental", needs=(earlier.id,), artefacts=(artefact,))
    with pytest.raises(PermanentError, match=r"is not complete: .*; .*") as refused:
        world.plan(made)
    assert str(refused.value).count("dump.rdb.zst.age is not in the object store") == 2


# ---------------------------------------------------------------------- whose set it is
def test_a_set_of_another_cluster_is_taken_only_after_a_disaster(world: World) -> None:
    made = world.store(3, cluster="uid-of-the-lost-one")
    with pytest.raises(PermanentError, match="is from another cluster") as refused:
        world.plan(made)
    assert "use --other-cluster" in str(refused.value)
    plan = world.plan(made, other_cluster=True)
    assert [one.unit for one in plan.units] == list(UNITS)  # nobody has decided anything there
    assert plan.not_replaced == ()


def test_a_new_engine_gets_all_of_it(world: World) -> None:
    made = world.store(3)
    assert [one.unit for one in world.plan(made, new_engine=True).units] == list(UNITS)


@pytest.mark.parametrize("name", ["shop", "database shop"])
def test_a_unit_is_named_with_or_without_its_kind(name: str, world: World) -> None:
    plan = world.plan(world.store(3), name, "globals", name)
    assert [one.unit for one in plan.units] == ["database shop", "globals"]
    assert plan.not_replaced == ("database isa",)
    assert not any("stays as it is now" in words for words in plan.warnings)


def test_units_that_the_set_has_not_are_all_named(world: World) -> None:
    with pytest.raises(ArgumentError) as refused:
        world.plan(world.store(3), "moon", "shop", "sun")
    told = [str(fault) for fault in refused.value.faults]
    assert ["'moon'" in told[0], "'sun'" in told[1], len(told)] == [True, True, 2]
    assert all("the backup has database isa, database shop, globals" in words for words in told)


# ---------------------------------------------------------------------- what the engine says of it
def test_what_the_live_engine_says_is_told(world: World) -> None:
    world.remarks = ["extension postgis is of another version"]
    assert "extension postgis is of another version" in world.plan(world.store(3)).warnings


def test_an_engine_that_cannot_be_asked_is_no_reason_to_have_no_plan(world: World) -> None:
    world.remarks = ConnectionRefusedError(111, "Connection refused")
    (words,) = (w for w in world.plan(world.store(3)).warnings if "other changes" in w)
    assert words.startswith(
        "other changes are unknown, because the engine did not answer: nothing listens"
    )


def test_digests_that_cannot_be_read_are_no_reason_to_have_no_plan(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.remarks = ["never asked"]
    monkeypatch.setattr("archive.backup.digests.apart", lambda manifest: True)
    (words,) = (w for w in world.plan(world.store(3)).warnings if "other changes" in w)
    assert words.startswith("other changes are unknown, because its digests")
    assert "verify-identity" in words


# ---------------------------------------------------------------------- which sets
@pytest.mark.parametrize(
    "name", ["", "redis", "moon-20250104T010000Z-000000", "platform-20250104T010000Z-000000"]
)
def test_what_is_no_set_of_an_engine_is_refused(name: str) -> None:
    with pytest.raises(ArgumentError, match="is not a backup of an engine") as refused:
        engine_of(name)
    assert "`isa backups` lists them" in str(refused.value.faults[0])


def only_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [one for one in COMPONENTS if one != "redis"]:
        monkeypatch.delitem(COMPONENTS, name)


def all_of(world: World) -> str:
    (plan,) = plans_of(world.environment, "", (), other_cluster=False)
    return plan.manifest.id


def test_of_each_engine_the_last_proven_set_comes_back_or_the_last_that_is_not_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_redis(monkeypatch)
    first, second, third = (world.store(day) for day in (3, 4, 5))
    world.store(6, outcome="partial", missing=("x",))
    assert all_of(world) == third.id
    world.verify(third, "fail")
    assert all_of(world) == second.id
    world.verify(first)
    assert all_of(world) == first.id


def test_an_engine_without_a_whole_set_ends_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_redis(monkeypatch)
    world.store(6, outcome="partial", missing=("x",))
    with pytest.raises(PermanentError, match="there is no complete backup of redis"):
        all_of(world)


def test_a_named_set_of_an_engine_that_is_restored_by_hand_is_refused(world: World) -> None:
    made = world.store(3)
    (plan,) = plans_of(world.environment, made.id, ["shop"], other_cluster=False)
    assert [one.unit for one in plan.units] == ["database shop"]
    world.manual = "docs/restore-by-hand.md"
    with pytest.raises(ArgumentError, match="cannot be restored by isa") as refused:
        plans_of(world.environment, made.id, (), other_cluster=False)
    assert "docs/restore-by-hand.md" in str(refused.value.faults[0])


def test_an_environment_takes_its_own_sets_alone(world: World) -> None:
    made = a_set(3, environment="other", engine=Engine(name="redis", version="8"))
    world.bucket.put(a_set(3).own_key, made.signed(KEY))
    with pytest.raises((PermanentError, TemporaryError)):
        world.plan(a_set(3))
