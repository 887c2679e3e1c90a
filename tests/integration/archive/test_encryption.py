"""A stream goes compressed and encrypted into a real S3 server and comes back, or leaves nothing behind."""

from __future__ import annotations

import errno
import hashlib
import io
import random
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyrage
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from archive.backup.encryption import SUFFIX, Encrypted, decrypt, encrypt
from archive.object_store.endpoint import connect
from archive.object_store.store import Missing, Store
from archive.object_store.upload import part_size
from archive.signing import Trust, read_signing_key
from config.loading import load
from config.models import ObjectStoreSettings
from errors import IsaError, PermanentError, TemporaryError
from sandbox.cluster import Sandbox
from sandbox.site import keys
from tests.faults import Cable, Troubled, Way, lost_reply, reset

PART = 5 << 20  # the smallest that S3 takes
PLAIN = random.Random(1).randbytes(41 << 20) + b"the same again " * 400_000


@dataclass(frozen=True)
class Place:
    """A prefix of the sandbox's object store that belongs to one test."""

    client: Any
    bucket: str
    prefix: str
    recipients: list[str]
    identity: str
    settings: ObjectStoreSettings
    credentials: Mapping[str, str]
    signing_key: Ed25519PrivateKey
    trust: Trust

    def store(self, **fault: Any) -> tuple[Store, Troubled]:
        client = Troubled(self.client, **fault)
        return Store(client, self.bucket), client

    @property
    def key(self) -> str:
        return f"{self.prefix}/base.tar{SUFFIX}"


@pytest.fixture
def place(sandbox: Sandbox) -> Iterator[Place]:
    settings = load("sandbox", environ=sandbox.settings_environ())
    store = sandbox.status()["object_store"]
    credentials = {"access-key": store["access_key"], "secret-key": store["secret_key"]}
    identity = keys.identity_file(sandbox.directory, "verify").read_text().splitlines()[-1]
    client = connect(settings.storage.object, credentials)
    recipients = list(settings.backup.age_recipients)
    yield Place(
        client, store["bucket"], f"test-{uuid.uuid4().hex[:8]}", recipients, identity,
        settings.storage.object, credentials,
        read_signing_key(keys.signing_file(sandbox.directory).read_text(), "the sandbox"), Trust.of(settings),
    )  # fmt: skip


def pieces(data: bytes = PLAIN, size: int = 700_000) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def sealed_at(place: Place, store: Store) -> Encrypted:
    return encrypt(pieces(), store, place.key, place.recipients, PART)


def opened(place: Place) -> bytes:
    target = io.BytesIO()
    decrypt(place.store()[0], place.key, place.identity, target)
    return target.getvalue()


def test_what_comes_back_is_what_went_in_and_both_sides_are_hashed(place: Place) -> None:
    store, _ = place.store()
    went = sealed_at(place, store)
    target = io.BytesIO()
    came = decrypt(store, place.key, place.identity, target)
    assert target.getvalue() == PLAIN
    assert came == went
    assert went.plain_sha256 == hashlib.sha256(PLAIN).hexdigest()
    assert went.stored_sha256 == hashlib.sha256(store.get(place.key)).hexdigest()
    assert went.stored_size < went.plain_size


def test_an_empty_stream_comes_back_empty(place: Place) -> None:
    store, _ = place.store()
    encrypt([], store, place.key, place.recipients, PART)
    assert opened(place) == b""


def test_nothing_of_the_plain_text_is_in_the_bucket(place: Place) -> None:
    store, _ = place.store()
    sealed_at(place, store)
    assert b"the same again" not in store.get(place.key)


def test_stock_zstd_reads_what_age_hands_it(place: Place, tmp_path: Path) -> None:
    store, _ = place.store()
    sealed_at(place, store)
    identity = pyrage.x25519.Identity.from_str(place.identity)
    compressed = pyrage.decrypt(store.get(place.key), [identity])
    done = subprocess.run(["zstd", "-dc"], input=compressed, capture_output=True, check=True)
    assert done.stdout == PLAIN


def test_one_fault_at_any_call_is_survived_or_leaves_nothing(place: Place) -> None:
    store, client = place.store()
    sealed_at(place, store)
    calls = list(client.calls)
    assert calls.count("upload_part") >= 2
    for trouble in (reset, lost_reply):
        for position in range(len(calls)):
            store, _ = place.store()
            store.delete(place.key)
            faulty, _ = place.store(position=position, trouble=trouble)
            where = f"{calls[position]}, {trouble.__name__}"
            try:
                sealed_at(place, faulty)
            except TemporaryError:
                with pytest.raises(Missing):
                    store.describe(place.key)
            else:
                assert opened(place) == PLAIN, where
            for left in store.pending(
                place.prefix
            ):  # what only a sweep can find: nobody knows its identity
                assert calls[position] == "create_multipart_upload" and trouble is lost_reply, where
                store.abort(left.key, left.identity)


@pytest.mark.parametrize("way", ["up", "down"])
def test_a_connection_that_breaks_in_the_midst_of_a_part_is_taken_up_again(
    way: Way, place: Place
) -> None:
    endpoint = urlsplit(str(place.settings.endpoint))
    cable = Cable((str(endpoint.hostname), int(endpoint.port or 80)), way, after=2 << 20)
    with cable.plugged() as url:
        settings = place.settings.model_copy(update={"endpoint": url})
        store = Store(connect(settings, place.credentials), place.bucket)
        went = sealed_at(place, store)
        target = io.BytesIO()
        assert decrypt(store, place.key, place.identity, target) == went
    assert cable.cut
    assert target.getvalue() == PLAIN


def test_a_source_that_dies_leaves_nothing(place: Place) -> None:
    def dying() -> Iterator[bytes]:
        yield from pieces()
        raise RuntimeError("the source died")

    store, _ = place.store()
    with pytest.raises(RuntimeError, match="the source died"):
        encrypt(dying(), store, place.key, place.recipients, PART)
    with pytest.raises(Missing):
        store.describe(place.key)
    assert not store.pending(place.prefix)


@pytest.mark.parametrize("harm", ["flipped", "cut", "cut at a frame"])
def test_a_changed_byte_or_a_missing_end_is_found_by_reading(place: Place, harm: str) -> None:
    store, _ = place.store()
    sealed_at(place, store)
    stored = bytearray(store.get(place.key))
    if harm == "flipped":
        stored[len(stored) // 2] ^= 1
    elif harm == "cut":
        del stored[-1000:]
    else:
        del stored[len(stored) // (64 * 1024) * 64 * 1024 :]
    store.put(place.key, bytes(stored))
    with pytest.raises(PermanentError, match="cannot be decrypted"):
        opened(place)


def test_a_full_disk_is_not_taken_for_a_damaged_backup(place: Place) -> None:
    class Full:
        def write(self, data: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    store, _ = place.store()
    sealed_at(place, store)
    with pytest.raises(OSError, match="No space left"):
        decrypt(store, place.key, place.identity, Full())


def test_another_key_does_not_open_it(place: Place) -> None:
    store, _ = place.store()
    sealed_at(place, store)
    stranger = str(pyrage.x25519.Identity.generate())
    with pytest.raises(PermanentError, match="cannot be decrypted"):
        decrypt(store, place.key, stranger, io.BytesIO())


def test_a_recipient_that_is_none_is_refused_before_anything_is_stored(place: Place) -> None:
    store, client = place.store()
    with pytest.raises(PermanentError, match="not a public key"):
        encrypt(pieces(), store, place.key, ["age1nonsense"], PART)
    assert client.calls == []


def test_the_part_size_leaves_room_for_twice_the_estimate() -> None:
    for estimate in (0, 1 << 30, 200 << 30, 2 << 40):
        assert part_size(estimate) * 10_000 >= estimate * 2
    with pytest.raises(IsaError):
        part_size(100 << 40)
