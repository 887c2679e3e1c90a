"""A run that is cancelled, in the worst moment of what it does, ends in half a minute and leaves nothing half done."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from archive.retention.garbage import collect_garbage, find_garbage
from cluster.helm.records import read_records
from components.access import Access, Endpoint
from components.postgresql import client as postgresql
from sandbox.control_room import ControlRoom
from tests.losses import LOSSES

from ..conftest import Backups, until
from .control import CANCEL_SECONDS, go_on, proven, rebuild, run, start
from .moments import (
    fenced,
    member_stopped,
    neo4j_whole,
    paused,
    primary_of,
    replica_waits,
    store_hangs,
)

pytestmark = pytest.mark.integration
# Where a store is tried before it is used: the doctor does so too, five minutes after a deploy.
TRIED = "sandbox/self-test/"


@dataclass
class Before:
    """What there was before a run, for a comparison.

    Attributes:
        backups: the platform.
        keys: objects in the bucket.
        uploads: that nobody had ended.
    """

    backups: Backups
    keys: set[str]
    uploads: set[str]

    @classmethod
    def of(cls, backups: Backups) -> Before:
        store = backups.environment.store
        keys = {e.key for e in store.list("sandbox/") if not e.key.startswith(TRIED)}
        pending = {e.identity for e in store.pending("sandbox/") if not e.key.startswith(TRIED)}
        return cls(backups, keys, pending)

    def still(self) -> None:
        """Nothing is there that was not: no scratch engine, object, upload, or Lease that is held."""
        assert scratch_pods(self.backups) == []
        assert Before.of(self.backups) == self
        assert held_leases(self.backups) == []


def scratch_pods(backups: Backups) -> list[str]:
    where = backups.environment.settings.kubernetes.verify_namespace
    found = backups.environment.kube.list("v1", "Pod", where, "isa-cloud.io/scratch")
    return [pod["metadata"]["name"] for pod in found]


def held_leases(backups: Backups) -> list[str]:
    where = backups.environment.settings.kubernetes.control_namespace
    found = backups.environment.kube.list("coordination.k8s.io/v1", "Lease", where)
    return [one["metadata"]["name"] for one in found if one["spec"].get("holderIdentity")]


# ---------------------------------------------------------------------- deploys
def test_a_deploy_that_plans_and_one_that_waits_at_a_gate_leave_every_release_as_it_is(
    room: ControlRoom, backups: Backups
) -> None:
    kube, where = backups.environment.kube, backups.live.namespace
    releases = read_records(kube, where)
    planned = start(room, "deploy-platform")
    planning = planned.stops("helm", "template")
    assert planned.cancel(lambda: go_on(planning)) < CANCEL_SECONDS
    backups.live.kill("nats-1")
    try:
        waiting = start(room, "deploy-platform", only=["nats"])
        waiting.begins("nats")
        assert waiting.cancel() < CANCEL_SECONDS
    finally:
        backups.live.heal()
    assert read_records(kube, where) == releases
    assert held_leases(backups) == []
    backups.live.await_state("ready")


# ---------------------------------------------------------------------- backups
def test_a_night_leaves_no_set_and_every_engine_as_it_was(
    room: ControlRoom, backups: Backups
) -> None:
    wanted = ["postgresql", "redis", "neo4j"]
    before = Before.of(backups)
    with replica_waits(backups) as waits, member_stopped(backups) as stops:
        night = start(room, "backup-component", only=wanted)
        dumping = night.stops("pg_dump")
        until(lambda: stops() and waits(), "three engines are in the midst of it", 120)
        assert paused(backups)
        assert night.cancel(lambda: go_on(dumping)) < CANCEL_SECONDS
        until(lambda: not paused(backups), "the standby replays again", 10)
    before.still()
    assert neo4j_whole(backups)
    backups.live.await_state("ready")
    again = run(room, *wanted)
    assert [one["outcome"] for one in again["backups"]] == ["complete"] * len(wanted)


@pytest.mark.soak
def test_a_night_whose_store_hangs_ends_all_the_same(room: ControlRoom, backups: Backups) -> None:
    before = Before.of(backups)
    with replica_waits(backups) as waits:
        night = start(room, "backup-component", only=["redis"])
        until(waits, "a member is in the midst of it", 120)
        with store_hangs(backups):
            assert night.cancel() < CANCEL_SECONDS
    # its upload could not be thrown away: that is what the sweep is for
    store, later = backups.environment.store, datetime.now(UTC) + timedelta(seconds=5)
    waste = find_garbage(store, "sandbox", later)
    assert waste.uploads
    collect_garbage(store, waste)
    assert Before.of(backups).keys == before.keys
    assert run(room, "redis")["backups"][0]["outcome"] == "complete"  # its Lease was free


# ---------------------------------------------------------------------- proofs
def test_a_proof_leaves_no_scratch_engine_and_no_verdict(
    room: ControlRoom, backups: Backups
) -> None:
    good = proven(room, backups, "postgresql")
    before = Before.of(backups)
    proof = start(room, "verify-restores", backups=[good])
    until(lambda: bool(scratch_pods(backups)), "a scratch engine is there", 120)
    loading = proof.stops("pg_restore")
    assert proof.cancel(lambda: go_on(loading)) < CANCEL_SECONDS
    before.still()


# ---------------------------------------------------------------------- restores
def databases(access: Access, primary: Endpoint) -> Any:
    """Names, limits, and settings of their own."""
    text = (
        "SELECT datname, datconnlimit, (SELECT array_agg((setrole, setconfig)::text ORDER BY setrole) "
        "FROM pg_db_role_setting WHERE setdatabase = d.oid) FROM pg_database d ORDER BY 1"
    )
    with postgresql.connect_long(access, primary) as connection:
        return connection.execute(text).fetchall()


def test_a_restore_gives_the_old_database_its_name_back(
    room: ControlRoom, backups: Backups
) -> None:
    good = proven(room, backups, "postgresql")
    with backups.access() as access:
        primary = primary_of(access)
        as_it_was = databases(access, primary)
        before = Before.of(backups)
        restore = start(room, "restore-component", backup=good, confirm="postgresql")
        loading = restore.stops("pg_restore")
        assert databases(access, primary) != as_it_was  # in the midst of it
        assert restore.cancel(lambda: go_on(loading)) < CANCEL_SECONDS
        assert databases(access, primary) == as_it_was
        LOSSES["postgresql"][1](access)()  # and can be written
    before.keys |= {
        e.key for e in backups.environment.store.list(f"sandbox/postgresql/{safety_of(backups)}")
    }
    before.still()


def safety_of(backups: Backups) -> str:
    """The set that was taken of what should have been replaced; it is whole, and stays."""
    return backups.manifest("postgresql").id


@pytest.mark.soak
def test_a_restore_lets_the_writers_in_again(room: ControlRoom, backups: Backups) -> None:
    good = proven(room, backups, "redis")
    before = Before.of(backups)
    with replica_waits(backups) as waits:
        restore = start(room, "restore-component", backup=good, confirm="redis")
        until(waits, "the safety backup is under way", 120)
        assert fenced(backups)
        assert restore.cancel() < CANCEL_SECONDS
    assert not fenced(backups)
    before.still()
    with backups.access() as access:
        LOSSES["redis"][1](access)()
    said = run(room, good, "--yes", command="restore")
    assert [one["outcome"] for one in said["restores"]] == ["restored"], said


# ---------------------------------------------------------------------- rebuilds
@pytest.mark.soak
def test_a_rebuild_changes_nothing_until_its_set_is_proven(
    room: ControlRoom, backups: Backups
) -> None:
    proven(room, backups, "nats")
    before = backups.live.pod("nats-0")["metadata"]["uid"]
    made = rebuild(room)
    made.asks()
    assert made.answer() == "ACCEPT"
    made.begins("proof")
    until(lambda: bool(scratch_pods(backups)), "its scratch engine is there")
    assert made.cancel() < CANCEL_SECONDS
    assert (scratch_pods(backups), held_leases(backups)) == ([], [])
    assert backups.live.pod("nats-0")["metadata"]["uid"] == before


def test_a_rebuild_goes_on_where_it_was_cancelled(room: ControlRoom, backups: Backups) -> None:
    proven(room, backups, "nats")
    made = rebuild(room)
    made.asks()
    assert made.answer() == "ACCEPT"
    made.begins("install")
    installing = made.stops("helm", "upgrade")
    assert made.cancel(lambda: go_on(installing)) < CANCEL_SECONDS
    assert held_leases(backups) == []
    again = rebuild(room)
    again.asks()
    assert again.answer() == "ACCEPT"
    again.reaches("COMPLETED", seconds=300)
    backups.live.await_state("ready")
