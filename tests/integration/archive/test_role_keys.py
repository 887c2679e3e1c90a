"""Each account's key of the object store does what its role needs and nothing else, with the shipped policies."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from archive.backup.encryption import SUFFIX
from archive.backup.manifest import FILE, Manifest, new_identity, set_prefix
from archive.backup.selftest import self_test
from archive.backup.writer import SetWriter
from archive.catalogue.check import look
from archive.catalogue.hidden import explain_hidden
from archive.catalogue.listing import read_catalogue
from archive.object_store.store import Refused, Store
from archive.retention import locks
from archive.retention.garbage import find_garbage
from sandbox.cluster import Sandbox
from sandbox.site import object_store

from .test_committed import make_set
from .test_encryption import Place, place

__all__ = ["place"]  # the fixture

pytestmark = pytest.mark.integration

ENVIRONMENT = object_store.ENVIRONMENT
PROOF = "proof-20261123T010203.004Z-pass.json"


@pytest.fixture
def here(place: Place, sandbox: Sandbox) -> Iterator[Place]:
    """The environment's own part of the bucket, to which the keys are bound."""
    yield replace(place, prefix=ENVIRONMENT)
    root, _ = place.store()
    for entry in list(root.list(f"{ENVIRONMENT}/")):
        until(partial(purged, root, entry.key), "its lock has ended")


@pytest.fixture
def keys(here: Place, sandbox: Sandbox) -> Callable[[str], Store]:
    """The store as an account sees it."""
    users = object_store.users(
        sandbox.directory,
        object_store.describe(sandbox.directory, sandbox.addresses.object_store),
    )
    return lambda role: Store.open(here.settings, users[role])


@pytest.fixture
def made(here: Place, keys: Callable[[str], Store], tmp_path: Path) -> Manifest:
    """A set that the backup's key has stored."""
    return make_set(here, keys("backup"), spool=tmp_path)


def refused(call: Callable[..., Any], *arguments: Any) -> bool:
    try:
        call(*arguments)
    except Refused:
        return True
    return False


def purged(store: Store, key: str) -> bool:
    return not refused(store.purge, key)


def until(so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not so():
        assert time.monotonic() < deadline, what
        time.sleep(0.5)


@pytest.mark.parametrize("role", ["backup", "restore", "rebuild", "deployer"])
def test_the_self_test_works_with_a_key_that_backs_up_or_looks(
    role: str, keys: Callable[[str], Store]
) -> None:
    found = self_test(keys(role), ENVIRONMENT)
    assert found.versioning and found.object_lock and found.checksums
    assert not list(keys("retention").list(f"{ENVIRONMENT}/self-test/"))


@pytest.mark.parametrize("role", ["backup", "restore", "rebuild"])
def test_a_backup_is_taken_and_cannot_be_deleted(
    role: str, here: Place, keys: Callable[[str], Store], tmp_path: Path
) -> None:
    store = keys(role)
    made = make_set(here, store, spool=tmp_path)
    assert look(store, made) == []
    root, _ = here.store()
    before = [entry.key for entry in root.list(made.prefix)]
    for key in before:
        assert refused(store.delete, key)
        assert refused(store.purge, key)
    assert [entry.key for entry in root.list(made.prefix)] == before


def test_a_backup_that_fails_leaves_what_it_stored_to_retention(
    here: Place, keys: Callable[[str], Store], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    begun = datetime.now(UTC) - timedelta(days=9)
    prefix = set_prefix(ENVIRONMENT, "redis", new_identity("redis", begun, "0a1b2c"))
    writer = SetWriter(keys("backup"), prefix, tuple(here.recipients), here.signing_key, tmp_path)
    writer.add("shard-0.rdb", "shard 0", "RDB", [b"the first shard"])
    writer.discard()
    assert len([said for said in caplog.messages if "until retention removes" in said]) == 1
    waste = find_garbage(keys("retention"), ENVIRONMENT, datetime.now(UTC) + timedelta(hours=1))
    assert waste.objects == (f"{prefix}shard-0.rdb{SUFFIX}",)


def test_the_verifiers_key_reads_backups_and_writes_evidence_alone(
    made: Manifest, here: Place, keys: Callable[[str], Store]
) -> None:
    store = keys("verify")
    assert look(store, made) == []
    assert store.get(made.own_key)
    for name in (PROOF, "words-20261123T010203.004Z.age"):
        store.put(made.prefix + name, b"{}")
    for name in (FILE, "shard-0.rdb.zst.age", "new"):
        assert refused(store.put, made.prefix + name, b"{}"), name
    for name in (FILE, PROOF):
        assert refused(store.delete, made.prefix + name), name
        assert refused(store.purge, made.prefix + name), name
    assert refused(store.lock, made.own_key, datetime.now(UTC) + timedelta(days=1))


def test_retentions_key_removes_backups_extends_locks_and_writes_nothing(
    made: Manifest, here: Place, keys: Callable[[str], Store]
) -> None:
    store = keys("retention")
    for name in (FILE, PROOF, "new"):
        assert refused(store.put, made.prefix + name, b"{}"), name
    assert refused(store.begin, made.prefix + "parts")
    for entry in list(store.list(made.prefix)):
        store.purge(entry.key)
    assert read_catalogue(store, ENVIRONMENT, ("redis",), here.trust).sets == ()


def test_retentions_key_extends_the_lock_of_a_backup(
    made: Manifest, here: Place, keys: Callable[[str], Store]
) -> None:
    keys("backup").put(made.own_key, b"put over it")
    until = datetime.now(UTC) + timedelta(seconds=5)
    extended = locks.extend(keys("retention"), {made.id: made.prefix}, until)
    assert extended.refused == {}
    root, _ = here.store()
    of_manifest = [one.identity for one in root.versions(made.own_key)]
    assert len(of_manifest) == 2
    assert all(root.locked_until(made.own_key, version) for version in of_manifest)
    assert locks.shortest(keys("deployer"), (made,))[made.id] is not None


def test_a_deleted_backup_is_named_kept_and_brought_back_with_the_keys_of_their_roles(
    made: Manifest, here: Place, keys: Callable[[str], Store]
) -> None:
    root, _ = here.store()
    later = datetime.now(UTC) + timedelta(hours=1)
    for entry in list(root.list(made.prefix)):
        root.delete(entry.key)
    for role in ("deployer", "retention"):
        store = keys(role)
        waste = find_garbage(store, ENVIRONMENT, later)
        assert [one for one in waste.objects if one.startswith(made.prefix)] == []
        (hidden,) = [one for one in waste.hidden if one.id == made.id]
        assert "signed by a backup worker" in explain_hidden(store, hidden, here.trust.backups)
    for one in list(root.versions(made.prefix)):
        if one.marker:
            here.client.delete_object(Bucket=here.bucket, Key=one.key, VersionId=one.identity)
    assert look(keys("verify"), made) == []
    assert [one.id for one in read_catalogue(root, ENVIRONMENT, ("redis",), here.trust).sets] == [
        made.id
    ]


def test_the_deployers_key_reads_manifests_and_evidence_alone(
    made: Manifest, here: Place, keys: Callable[[str], Store]
) -> None:
    store = keys("deployer")
    keys("verify").put(made.prefix + PROOF, b"{}")
    assert [one.id for one in read_catalogue(store, ENVIRONMENT, ("redis",), here.trust).sets] == [
        made.id
    ]
    assert store.get(made.prefix + PROOF)
    for artefact in made.artefacts:
        assert refused(store.get, made.key(artefact))
    assert refused(store.put, made.own_key, b"{}")
    assert refused(store.delete, made.own_key)


@pytest.mark.parametrize("role", sorted(object_store.POLICY_OF))
def test_another_environments_part_of_the_bucket_is_closed(
    role: str, here: Place, keys: Callable[[str], Store]
) -> None:
    root, _ = here.store()
    key = "production/redis/x/manifest.json"
    root.put(key, b"{}")
    store = keys(role)
    assert refused(store.get, key)
    assert refused(store.put, key, b"{}")
    assert refused(store.delete, key)
    root.purge(key)
