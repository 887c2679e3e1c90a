"""What the doctor finds in the cluster and in the bucket, and what it removes."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pyrage
import pytest

from archive.backup.manifest import Manifest, read_manifest
from archive.evidence.verdicts import Evidence, manifest_digest, signer_of, write_evidence
from archive.object_store.store import Store
from components.base import Check
from config.sections.objectives import ObjectiveSettings
from operations.environment.environment import Environment
from operations.health.doctor import questions
from operations.health.findings import Finding, fix
from operations.state.rebuild_state import Policy, RebuildState
from tests.environments import environment_with

from ..archive.test_retention import KEY, RULES, SIGNERS, a_set
from ..archive.versioned import VersionedClient
from ..stored import Stored, settings_of

POOL = str(pyrage.x25519.Identity.generate())
NOW = datetime.now(UTC)
TODAY = (NOW - a_set(0).begun) / timedelta(days=1) - 0.1


class Cluster(Stored):
    """Objects of a server whose address has no certificate."""

    server = "http://k8s.example"


class World:
    """A cluster and a bucket with versions.

    Attributes:
        signers: of verdicts.
        lock_days: of `backup.object_lock_days`.
    """

    def __init__(self) -> None:
        self.kube, self.client = Cluster(), VersionedClient(NOW)
        self.store = Store(self.client, "backups")
        self.signers: tuple[str, ...] = (signer_of(POOL),)
        self.lock_days = 0
        self.declared = ["redis", "nats"]

    @property
    def environment(self) -> Environment:
        settings = settings_of(
            environment="test",
            backup=SimpleNamespace(
                signers=SIGNERS, retention=RULES, object_lock_days=self.lock_days
            ),
            verify=SimpleNamespace(signers=self.signers, stale_days=8),
            objectives=ObjectiveSettings(),
            storage=SimpleNamespace(object=SimpleNamespace(endpoint="http://s3.example")),
        )
        releases = [SimpleNamespace(name=name) for name in self.declared]
        return environment_with(
            settings, kube=self.kube, store=self.store, open_store=lambda: self.store,
            cluster_uid="uid", releases=SimpleNamespace(releases=releases),
        )  # fmt: skip

    def ask(self, question: str) -> list[Finding]:
        return list(dict(questions(self.environment))[question]())

    def check(self, question: str, name: str = "") -> Check:
        found = {one.check.name: one.check for one in self.ask(question)}
        return found[name or question]

    # ------------------------------------------------------------------ the cluster
    def helm(self, name: str, status: str) -> None:
        info = {"status": status, "last_deployed": "2026-01-01T00:00:00+00:00"}
        chart = {"metadata": {"name": name, "version": "1"}}
        document = {"name": name, "version": 1, "info": info, "chart": chart}
        text = base64.b64encode(base64.b64encode(json.dumps(document).encode())).decode()
        self.kube.objects["Secret", name] = {
            "metadata": {"name": name, "labels": {"owner": "helm"}}, "data": {"release": text},
        }  # fmt: skip

    # ------------------------------------------------------------------ the bucket
    def backup(self, day: float, **more: Any) -> Manifest:
        made = a_set(day, **more)
        before, self.client.now = self.client.now, made.ended
        self.store.put(made.own_key, made.signed(KEY))
        self.client.now = before
        return made

    def verify(self, made: Manifest, verdict: str = "pass", identity: str = POOL) -> None:
        stored = read_manifest(self.store.get(made.own_key), made.own_key, SIGNERS)
        said = {
            "set": made.id, "component": "redis", "environment": "test", "verdict": verdict, "level": "L4",
            "manifest_sha256": manifest_digest(stored), "seconds": 30.0, "begun": made.begun + timedelta(minutes=1),
        }  # fmt: skip
        write_evidence(self.store, made.prefix, Evidence.model_validate(said), identity)


@pytest.fixture
def world() -> World:
    return World()


# ---------------------------------------------------------------------- the cluster
def test_a_release_that_a_killed_helm_left_pending_is_named(world: World) -> None:
    world.helm("redis", "deployed")
    world.helm("another", "pending-install")  # not declared here
    assert world.check("releases").hint == "no release is stuck"
    world.helm("nats", "pending-upgrade")
    check = world.check("releases")
    assert not check.ok
    assert check.hint.startswith("nats (pending-upgrade): a deploy recovers them")


def test_an_unfinished_rebuild_is_named_with_both_ways_on_unless_it_is_running(
    world: World,
) -> None:
    assert world.check("rebuilds").ok
    with world.environment.lease("isa-rebuild-redis", "a rebuild") as lease:
        lease.note(RebuildState.new(Policy("redis")).text())
        assert world.check("rebuilds").ok
    check = world.check("rebuilds")
    assert not check.ok
    assert check.hint == "redis: call the same rebuild again, or isa rebuild undo redis"


def test_a_rebuild_whose_state_cannot_be_read_is_named_with_its_lease(world: World) -> None:
    with world.environment.lease("isa-rebuild-redis", "a rebuild") as lease:
        lease.note("x")
    check = world.check("rebuilds")
    assert not check.ok
    assert "it is unknown how far a rebuild of redis has got" in check.hint
    assert "isa-rebuild-redis" in check.hint


def test_volumes_that_a_rebuild_keeps_are_listed(world: World) -> None:
    assert world.check("rebuilds", "volumes put aside").hint == "none"
    labels = {"isa-cloud.io/component": "redis", "isa-cloud.io/rebuild": "r1"}
    world.kube.objects["PersistentVolume", "pv-1"] = {
        "kind": "PersistentVolume",
        "metadata": {
            "name": "pv-1", "labels": labels, "annotations": {"isa-cloud.io/claim": '{"name": "data-redis-0"}'},
        },
        "spec": {"capacity": {"storage": "8Gi"}, "persistentVolumeReclaimPolicy": "Retain"},
    }  # fmt: skip
    check = world.check("rebuilds", "volumes put aside")
    assert check.ok
    assert check.hint.startswith("kept: pv-1 (redis, 8Gi); isa rebuild purge COMPONENT")


def test_an_interrupted_restore_is_named_unless_it_is_running(world: World) -> None:
    assert world.check("restores").hint == "no restore was interrupted"
    half = {"replacing": ["shard 0"], "safety": [], "restoring": a_set(1).id}
    with world.environment.lease("isa-backup-redis", "a restore") as lease:
        lease.note(json.dumps([half]))
    check = world.check("restores")
    assert not check.ok
    assert check.hint.startswith(f"redis: a restore of {a_set(1).id} was interrupted")
    with world.environment.lease("isa-redis", "the restore"):
        assert world.check("restores").ok


# ---------------------------------------------------------------------- the bucket
def test_what_interrupted_backups_left_is_removed_after_its_time(world: World) -> None:
    left = f"{a_set(3).prefix}shard-0.rdb"
    world.client.now = NOW - timedelta(days=9)
    world.store.put(left, b"12345")
    world.client.now = NOW
    world.store.put(f"{a_set(TODAY).prefix}shard-0.rdb", b"of a backup that is running")
    finding = world.ask("leftovers")[0]
    assert (finding.check.ok, finding.check.critical) == (False, False)
    assert "0 incomplete uploads, 1 orphaned objects (5 B)" in finding.check.hint
    (after,) = fix([finding])
    assert after.check.ok
    assert [one.key for one in world.store.list("test/")] == [f"{a_set(TODAY).prefix}shard-0.rdb"]
    assert world.check("leftovers").hint == "none"


def test_an_upload_that_nobody_completed_is_a_leftover(world: World) -> None:
    begun = NOW - timedelta(days=9)
    upload = {"Key": "test/redis/x", "UploadId": "u1", "Initiated": begun}
    world.client.list_multipart_uploads = lambda **_: {"Uploads": [upload]}  # type: ignore[method-assign]
    assert world.check("leftovers").hint.startswith("1 incomplete uploads, 0 orphaned objects")


def test_without_object_lock_there_is_nothing_to_extend(world: World) -> None:
    assert world.check("object locks").ok
    assert "not used" in world.check("object locks").hint


def test_kept_backups_whose_lock_was_not_extended_are_named_up_to_five(world: World) -> None:
    world.lock_days = 14
    made = [world.backup(TODAY - n) for n in range(7)]
    check = world.check("object locks")
    assert (check.ok, check.critical) == (False, False)
    assert check.hint.startswith("7 kept backups are locked for less than 14 days")
    assert check.hint.count("not at all") == 5
    assert check.hint.endswith(" …")
    for one in made:
        world.store.lock(one.own_key, NOW + timedelta(days=14))
    assert world.check("object locks").hint == "every kept backup is locked for 14 days"


def test_manifests_and_verdicts_that_nobody_trusted_signed_are_named(world: World) -> None:
    made = world.backup(TODAY)
    world.verify(made)
    found = {one.check.name: one.check for one in world.ask("evidence")}
    assert all(one.ok for one in found.values())
    assert set(found) == {"manifests", "dates of the store", "evidence", "chain of evidence"}
    stranger = str(pyrage.x25519.Identity.generate())
    world.verify(world.backup(TODAY - 1), identity=stranger)
    other = a_set(TODAY - 2)
    world.store.put(other.own_key, b"{}")
    found = {one.check.name: one.check for one in world.ask("evidence")}
    assert other.own_key in found["manifests"].hint
    assert not found["evidence"].ok


def test_without_a_signer_of_verdicts_none_counts(world: World) -> None:
    world.signers = ()
    check = world.check("evidence", "verify.signers")
    assert not check.ok
    assert "isa verify signer" in check.hint


def test_a_verdict_that_was_recorded_and_is_missing_is_named(world: World) -> None:
    made = world.backup(TODAY)
    with world.environment.lease("isa-verify-redis", "a proof") as lease:
        lease.note(json.dumps({made.id: 1}))
    check = world.check("evidence", "chain of evidence")
    assert not check.ok
    assert f"isa verify {made.id}" in check.hint


def test_the_age_of_each_verified_restore_is_told_and_a_failed_one_is_critical(
    world: World,
) -> None:
    old = world.backup(TODAY - 20)
    world.verify(old)
    stale = world.check("proofs", "proof of redis")
    assert (stale.ok, stale.critical) == (False, False)
    assert stale.hint.startswith("stale: ")
    assert stale.hint.endswith("(isa verify redis)")
    new = world.backup(TODAY)
    world.verify(new)
    assert world.check("proofs", "proof of redis").ok
    assert world.check("proofs", "proof of nats").hint.startswith(
        "never: no restore is verified yet"
    )
    failed = world.backup(TODAY + 0.05)
    world.verify(failed, "fail")
    check = world.check("proofs", "proof of redis")
    assert (check.ok, check.critical) == (False, True)
    assert check.hint.startswith("failing: ")
