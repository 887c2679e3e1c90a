"""One fault at every call to the store while a set is made: it is whole, or it does not exist."""

from __future__ import annotations

import os
import random
import signal
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, cast

import botocore.auth
import pytest
from botocore.exceptions import ClientError

from archive.backup.manifest import (
    Capabilities,
    Consistency,
    Engine,
    Manifest,
    new_identity,
    set_prefix,
)
from archive.backup.reader import SetReader
from archive.backup.selftest import self_test
from archive.backup.writer import SetWriter
from archive.catalogue.check import look
from archive.catalogue.listing import read_catalogue
from archive.object_store.endpoint import connect
from archive.object_store.store import Refused, Store
from archive.retention.garbage import collect_garbage, find_garbage
from archive.retention.locks import extend, shortest
from archive.retention.policy import decide
from cluster.kube import Kube
from cluster.lease import Lease
from config.loading import load
from config.sections.backups import RetentionSettings
from errors import PermanentError, TemporaryError
from operations.backup.retention import apply_retention, plan_retention
from operations.state.restore_journal import (
    InterruptedRestore,
    forget,
    interrupted_restore,
    replacing,
)
from sandbox.cluster import Sandbox
from tests.environments import changed, environment_with
from tests.faults import Troubled, busy, denied, lost_reply, reset, slow

from .test_encryption import Place, pieces, place

__all__ = ["place"]  # the fixture

pytestmark = pytest.mark.integration

BODY = random.Random(2).randbytes(9 << 20)
ABLE = Capabilities(conditional_put=True, checksums=True, versioning=True, object_lock=True)


TROUBLES = (reset, lost_reply, busy, denied, slow)


def make_set(place: Place, store: Store, begun: datetime | None = None, **more: Any) -> Manifest:
    """What a backup does to the store: artefacts, then the manifest; on failure it takes them away."""
    begun = begun or datetime.now(UTC)
    identity = new_identity("redis", begun, f"{random.getrandbits(24):06x}")
    body = more.pop("body", BODY)
    writer = SetWriter(
        store,
        set_prefix(place.prefix, "redis", identity),
        tuple(place.recipients),
        place.signing_key,
        more.pop("spool"),
    )
    try:
        for number in range(2):
            writer.add(f"shard-{number}.rdb", f"shard {number}", "RDB", pieces(body))
        writer.add_plain("index.bin", "all", "index", [b"index"])
        manifest = Manifest(
            id=identity,
            component="redis",
            environment=place.prefix,
            cluster="uid",
            slot=identity,
            begun=begun,
            ended=begun,
            outcome="complete",
            not_covered=("nothing",),
            engine=Engine(name="redis", version="8"),
            consistency=(Consistency(unit="shard 0", point="0", begun=begun, ended=begun),),
            artefacts=writer.artefacts,
            fingerprint=(),
            store=ABLE,
            recipients=tuple(place.recipients),
            **more,
        )
        manifest = writer.commit(manifest)
    except BaseException:
        writer.discard()
        raise
    return manifest


def calls_of_a_set(place: Place, spool: Any) -> int:
    client = Troubled(place.client)
    make_set(place, Store(client, place.bucket), spool=spool)
    return len(client.calls)


def listed(place: Place) -> list[Manifest]:
    return list(read_catalogue(place.store()[0], place.prefix, ["redis"], place.trust).sets)


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda t: t.__name__)
def test_a_set_is_whole_or_does_not_exist(trouble: Any, place: Place, tmp_path: Any) -> None:
    good = calls_of_a_set(place, tmp_path)
    known = {one.id for one in listed(place)}
    survived = 0
    for position in range(good):
        client = Troubled(place.client, position, trouble)
        try:
            made = make_set(place, Store(client, place.bucket), spool=tmp_path)
        except (TemporaryError, PermanentError):
            made = None
        new = [one for one in listed(place) if one.id not in known]
        if made is not None:
            assert [one.id for one in new] == [made.id]
            survived += 1
        for (
            one
        ) in new:  # a lost reply to the manifest: the set exists though its run was told otherwise
            assert look(place.store()[0], one) == [], position
            SetReader(place.store()[0], one, place.identity).read_rest()
        known |= {one.id for one in new}
    assert survived == good if trouble is slow else survived < good
    assert make_set(place, place.store()[0], spool=tmp_path).id  # a clean run converges


def test_a_process_that_is_killed_at_any_call_leaves_no_set_or_a_whole_one(
    place: Place, tmp_path: Any
) -> None:
    """kill -9 right before each call, and right after it: the store has what it got, nobody tidies up."""
    store = place.store()[0]
    for after in (False, True):
        for position in range(calls_of_a_set(place, tmp_path)):
            known = {one.id for one in listed(place)}

            def die(call: Any, after: bool = after) -> Any:
                if after:
                    call()
                os.kill(os.getpid(), signal.SIGKILL)

            child = os.fork()
            if child == 0:
                client = connect(place.settings, place.credentials)
                make_set(
                    place, Store(Troubled(client, position, die), place.bucket), spool=tmp_path
                )
                os._exit(0)
            _, status = os.waitpid(child, 0)
            assert os.WTERMSIG(status) == signal.SIGKILL, position
            for one in listed(place):
                if one.id not in known:
                    assert look(store, one) == [], position
                    SetReader(store, one, place.identity).read_rest()
    assert make_set(place, store, spool=tmp_path).id in {one.id for one in listed(place)}
    waste = find_garbage(store, place.prefix, datetime.now(UTC) + timedelta(minutes=1))
    assert waste.objects
    assert waste.uploads
    collect_garbage(store, waste)
    assert find_garbage(store, place.prefix, datetime.now(UTC) + timedelta(minutes=1)).size == 0
    for one in listed(place):
        assert look(store, one) == []


def test_the_sweep_takes_what_no_set_has_and_nothing_else(place: Place, tmp_path: Any) -> None:
    store = place.store()[0]
    kept = make_set(place, store, spool=tmp_path)
    old = datetime.now(UTC) - timedelta(days=9)
    orphan = set_prefix(place.prefix, "redis", new_identity("redis", old, "abcdef"))
    store.put(f"{orphan}shard-0.rdb.zst.age", b"left by a killed run")
    store.begin(f"{orphan}shard-1.rdb.zst.age")
    young = set_prefix(place.prefix, "redis", new_identity("redis", datetime.now(UTC), "fedcba"))
    store.put(f"{young}shard-0.rdb.zst.age", b"under way")
    assert find_garbage(store, place.prefix, old).objects == ()  # the store's own time counts too
    waste = find_garbage(store, place.prefix, datetime.now(UTC) + timedelta(minutes=1))
    assert [key for key in waste.objects if key.startswith(orphan)]
    collect_garbage(
        store,
        type(waste)(waste.uploads, tuple(k for k in waste.objects if k.startswith(orphan)), 0),
    )
    assert list(store.list(orphan)) == []
    assert store.pending(orphan) == ()
    assert list(store.list(young)) != []
    assert look(store, kept) == []


def test_a_store_that_lets_nobody_read_is_not_taken_for_a_damaged_set(
    place: Place, tmp_path: Any
) -> None:
    made = make_set(place, place.store()[0], spool=tmp_path)
    for position in range(2):  # asking for the size, and for the bytes
        store, _ = place.store(position=position, trouble=denied)
        with pytest.raises(Refused, match="AccessDenied"):
            SetReader(store, made, place.identity).read_rest()
        store, _ = place.store(position=position, trouble=denied)
        with pytest.raises(Refused, match="AccessDenied"):
            read_catalogue(store, place.prefix, ["redis"], place.trust)
    SetReader(place.store()[0], made, place.identity).read_rest()


def test_a_locked_set_cannot_be_deleted(place: Place, tmp_path: Any) -> None:
    store = place.store()[0].locking(datetime.now(UTC) + timedelta(seconds=4))
    made = make_set(place, store, spool=tmp_path)
    with pytest.raises(PermanentError):
        store.purge(f"{made.prefix}manifest.json")
    assert look(store, made) == []
    time.sleep(4.5)
    store.purge(f"{made.prefix}manifest.json")
    assert made.id not in {one.id for one in listed(place)}


@pytest.mark.parametrize("locked", [True, False])
def test_a_kept_set_stays_locked_and_its_lock_never_becomes_shorter(
    locked: bool, place: Place, tmp_path: Any
) -> None:
    store = place.store()[0]
    soon, later = (datetime.now(UTC) + timedelta(**d) for d in ({"seconds": 6}, {"days": 1}))
    made = make_set(place, store.locking(soon) if locked else store, spool=tmp_path)
    keys = [entry.key for entry in store.list(made.prefix)]

    assert extend(store, {made.id: made.prefix}, later).extended == len(keys) == 5
    assert extend(store, {made.id: made.prefix}, later).extended == 0
    assert extend(store, {made.id: made.prefix}, later - timedelta(hours=12)).extended == 0
    assert extend(store, {made.id: made.prefix}, later + timedelta(days=1)).extended == len(keys)

    time.sleep(max(0.0, (soon - datetime.now(UTC)).total_seconds()) + 0.5)  # the first lock is over
    for key in keys:  # with the credentials of the store's own root
        with pytest.raises(PermanentError):
            store.purge(key)
    assert look(store, made) == []
    with pytest.raises(Refused):
        store.lock(made.own_key, later)
    dates = shortest(store, [made])
    assert dates[made.id] is not None and dates[made.id] > later  # type: ignore[operator]


def test_a_bucket_without_locks_refuses_them_by_name(place: Place, tmp_path: Any) -> None:
    plain = replace(place, bucket=f"{place.prefix}-unlocked")
    place.client.create_bucket(Bucket=plain.bucket)
    store = plain.store()[0]
    made = make_set(plain, store, spool=tmp_path)
    refused = extend(store, {made.id: made.prefix}, datetime.now(UTC) + timedelta(days=1)).refused
    assert list(refused) == [made.id]


def test_the_self_test_says_what_the_store_can_and_leaves_nothing(place: Place) -> None:
    store = place.store()[0]
    assert self_test(store, place.prefix) == ABLE
    assert list(store.list(place.prefix)) == []


def test_a_bucket_without_versions_and_locks_does_too(place: Place, tmp_path: Any) -> None:
    plain = replace(place, bucket=f"{place.prefix}-plain")
    place.client.create_bucket(Bucket=plain.bucket)
    store = plain.store()[0]
    found = self_test(store, place.prefix)
    assert found == ABLE.model_copy(update={"versioning": False, "object_lock": False})
    made = make_set(plain, store, spool=tmp_path)
    assert look(store, made) == []
    assert [one.id for one in listed(plain)] == [made.id]


def test_a_server_that_knows_neither_locks_nor_conditions_does_too(
    place: Place,
) -> None:
    def unknown(operation: str, **arguments: Any) -> Any:
        said = {"Error": {"Code": "NotImplemented"}, "ResponseMetadata": {"HTTPStatusCode": 501}}
        more = {"IfNoneMatch", "ChecksumSHA256"} & set(arguments)
        if more or operation in ("get_object_lock_configuration", "get_bucket_versioning"):
            raise ClientError(cast(Any, said), operation)
        return getattr(place.client, operation)(**arguments)

    class Simple:
        meta = place.client.meta

        def __getattr__(self, operation: str) -> Any:
            return partial(unknown, operation)

    assert self_test(Store(Simple(), place.bucket), place.prefix) == Capabilities(
        conditional_put=False, checksums=False, versioning=False, object_lock=False
    )


def test_the_self_test_fails_on_a_store_that_changes_what_it_gets(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As servers do that store a trailing checksum as data (boto3 4435)."""
    real = Store.put
    monkeypatch.setattr(
        Store, "put", lambda self, key, body, **more: real(self, key, b"5\r\n" + body, **more)
    )
    with pytest.raises(PermanentError, match="returned"):
        self_test(place.store()[0], place.prefix)


def test_a_clock_that_differs_is_named(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "skew_seconds", lambda self: 7200.0)
    with pytest.raises(PermanentError, match="differs from ours by 7200 s"):
        self_test(place.store()[0], place.prefix)


def test_a_clock_that_the_server_refuses_is_named_too(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = botocore.auth.get_current_datetime

    def ahead(**more: Any) -> datetime:
        return cast(datetime, real(**more)) + timedelta(hours=1)

    monkeypatch.setattr(botocore.auth, "get_current_datetime", ahead)
    with pytest.raises(PermanentError, match="clocks of this machine and of the object store"):
        self_test(place.store()[0], place.prefix)


def test_retention_shows_first_and_leaves_no_half_of_a_set_wherever_its_removal_breaks_off(
    place: Place, sandbox: Sandbox, tmp_path: Any
) -> None:
    settings = load("sandbox", environ=sandbox.settings_environ())
    rules = RetentionSettings(daily=1, weekly=0, monthly=0, yearly=0)
    backup = settings.backup.model_copy(update={"retention": rules})
    where = settings.kubernetes.model_copy(update={"control_namespace": "default"})
    ours = settings.model_copy(
        update={"environment": place.prefix, "backup": backup, "kubernetes": where}
    )
    store, now = place.store()[0], datetime.now(UTC)
    environment = environment_with(
        ours, kube=Kube.connect(ours.kubernetes), store=store, cluster_uid="uid"
    )
    kept = make_set(place, store, now, spool=tmp_path, body=b"new")
    ended, position = False, 0
    while not ended:
        old = make_set(place, store, now - timedelta(days=5), spool=tmp_path, body=b"old")
        plan = plan_retention(environment, ["redis"])
        assert [one.id for one in plan.going] == [old.id]
        assert {one.id for one in listed(place)} == {kept.id, old.id}  # shown, not removed
        try:
            client = Troubled(place.client, position, reset)
            apply_retention(changed(environment, store=Store(client, place.bucket)), plan)
            ended = True
        except TemporaryError:
            for one in listed(place):
                assert look(store, one) == [], client.calls
        apply_retention(
            environment, plan_retention(environment, ["redis"], now + timedelta(days=9))
        )
        assert list(store.list(old.prefix)) == [], client.calls
        position += 1
    assert position > len(kept.artefacts)
    assert look(store, kept) == []


def test_nothing_goes_while_a_backup_may_rest_on_it_nor_what_a_broken_off_restore_needs(
    place: Place, sandbox: Sandbox, tmp_path: Any
) -> None:
    settings = load("sandbox", environ=sandbox.settings_environ())
    rules = RetentionSettings(daily=1, weekly=0, monthly=0, yearly=0)
    backup = settings.backup.model_copy(update={"retention": rules})
    where = settings.kubernetes.model_copy(update={"control_namespace": "default"})
    ours = settings.model_copy(
        update={"environment": place.prefix, "backup": backup, "kubernetes": where}
    )
    store, now = place.store()[0], datetime.now(UTC)
    environment = environment_with(
        ours, kube=Kube.connect(ours.kubernetes), store=store, cluster_uid="uid"
    )
    old, broken, before, new = (
        make_set(place, store, now - timedelta(days=days), spool=tmp_path) for days in (5, 4, 3, 0)
    )
    plan = plan_retention(environment, ["redis"])
    assert {one.id for one in plan.going} == {old.id, broken.id, before.id}
    with Lease(environment.kube, "default", "isa-backup-redis", purpose="a backup", holder="a/1/1"):
        assert set(apply_retention(environment, plan)) == {old.id, broken.id, before.id}
    with pytest.raises(OSError, match="killed"):
        what = InterruptedRestore(broken.id, (before.id,), ("all keys",))
        with replacing(environment.kube, ours, "redis", "a restore", what) as cleanup:
            cleanup.begin_replacing(["all keys"])
            raise OSError("killed")
    held = apply_retention(environment, plan)  # that was made before
    assert set(held) == {broken.id, before.id}
    assert {one.id for one in listed(place)} == {broken.id, before.id, new.id}
    assert (
        interrupted_restore(environment.kube, ours, "redis") == what
    )  # its note is none of retention's
    forget(environment.kube, ours, "redis", "a rebuild")
    assert apply_retention(environment, plan_retention(environment, ["redis"])) == {}
    assert {one.id for one in listed(place)} == {new.id}


def test_retention_keeps_what_an_incremental_set_needs(place: Place, tmp_path: Any) -> None:
    store = place.store()[0]
    at = datetime(2026, 1, 1, 1, tzinfo=UTC)
    full = make_set(place, store, at, spool=tmp_path)
    last = make_set(
        place, store, at + timedelta(days=1), spool=tmp_path, kind="incremental", needs=(full.id,)
    )
    rules = RetentionSettings(daily=1, weekly=0, monthly=0, yearly=0)
    kept = {verdict.manifest.id: verdict.kept for verdict in decide(listed(place), rules)}
    assert f"needed by {last.id}" in kept[full.id]
