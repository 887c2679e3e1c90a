"""A proof's verdict: which level was reached, whose fault it is that it went no further, and what is kept of it."""

from __future__ import annotations

import errno
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import pyrage
import pytest

from archive.backup.manifest import Artefact, Engine, Measure, read_manifest
from archive.backup.reader import Damaged
from archive.evidence.verdicts import Evidence, manifest_digest, read_evidence, signer_of
from archive.streams.unpacking import Unreadable
from cluster.command import CANCELLATION, Cancelled
from components.base import Restore, Scratch
from errors import PermanentError, TemporaryError
from operations.environment.environment import Environment
from operations.runner.context import RunContext
from operations.verify import trial
from operations.verify.proof import prove
from operations.verify.scratch import Unrestorable
from tests.environments import environment_with

from ..archive.test_retention import KEY, SIGNERS, a_set
from ..buckets import Bucket
from ..stored import CONTROL, Stored, settings_of

POOL = pyrage.x25519.Identity.generate()
IDENTITY, PUBLIC = str(POOL), str(POOL.to_public())
SET = a_set(3).id
KEYS = Measure(unit="shard 0", item="strings", count=7, digest="a" * 32, origin="source")
COUNTED = Measure(unit="shard 0", item="lists", count=2, origin="artefact")
EMPTY = Measure(unit="shard 0", item="sets", count=0, origin="source")
ONE = Scratch("", "redis-cluster", "redis", ("redis-server",), 6379)
PLACED = Scratch("", "redis-cluster", "redis", ("redis-server",), 6379, placed=("dump.rdb",))


class World:
    """A set, and the scratch engines that it is restored into.

    Attributes:
        manifest: of the set; stored as it is when the proof begins.
        scratch: engines that the set needs.
        version: that they say.
        holds: what is measured in them.
        starts, loads: what happens when they start, and when they are filled.
        lacking: pattern of what an engine says that has not an extension.
        died: whether they are found dead.
        seen: what was asked of them, in order.
    """

    def __init__(self) -> None:
        self.kube, self.bucket = Stored(), Bucket(a_set(4).begun)
        self.manifest = a_set(
            3, recipients=(PUBLIC,), fingerprint=(KEYS, COUNTED, EMPTY),
            engine=Engine(name="Redis", version="8.2.1"),
        )  # fmt: skip
        self.scratch: tuple[Scratch, ...] = (ONE,)
        self.version, self.lacking = "Redis 8.2.1", ""
        self.holds: list[Measure] = [KEYS, COUNTED]
        self.starts: Callable[[], None] = lambda: None
        self.loads: Callable[[], None] = lambda: None
        self.died: Exception | None = None
        self.seen: list[str] = []
        for name, values in {
            "store-key": {"access-key": "a", "secret-key": "b"},
            "verify-identity": {"identity": f"# the pool's\n\n{IDENTITY}\n"},
        }.items():
            self.secret(name, **values)

    def secret(self, name: str, **values: str) -> None:
        data = {key: b64encode(value.encode()).decode() for key, value in values.items()}
        self.kube.objects["Secret", name] = {"metadata": {"name": name}, "data": data}

    @property
    def environment(self) -> Environment:
        settings = settings_of(
            environment="test",
            backup=SimpleNamespace(signers=SIGNERS),
            verify=SimpleNamespace(signers=(), identity_secret="verify-identity"),
            storage=SimpleNamespace(object=SimpleNamespace(credentials_secret="store-key")),
        )
        return environment_with(
            settings, kube=self.kube, store=cast(Any, self.bucket), cluster_uid="uid",
            backup_targets={"redis": Component(self)},
        )  # fmt: skip

    @property
    def restore(self) -> Restore:
        return Restore(
            scratch=lambda settings, manifest, password: self.scratch,
            place=lambda *_: None,
            ask=lambda *_: self.version,
            load=self.load,
            measure=self.measure,
            lacking=self.lacking,
        )

    @contextmanager
    def engines(
        self, request: Any, wanted: tuple[Scratch, ...], ask: Any, tell: Any
    ) -> Iterator[Any]:
        self.seen.append("start")
        self.starts()

        def check() -> None:
            self.seen.append("check")
            if self.died:
                raise self.died

        try:
            yield SimpleNamespace(access=None, at={}, version=self.version, check=check)
        finally:
            self.seen.append("stop")

    def load(self, *_: Any) -> None:
        self.seen.append("load")
        self.loads()

    def measure(self, *_: Any) -> Mapping[str, list[Measure]]:
        self.seen.append("measure")
        return {"": self.holds}

    def prove(self, backup: str = SET) -> Evidence:
        self.bucket.objects.setdefault(self.manifest.own_key, self.manifest.signed(KEY))
        return prove(self.environment, RunContext("test"), IDENTITY, backup)

    @property
    def kept(self) -> list[Evidence]:
        """Evidence in the bucket."""
        keys = [key for key in self.bucket.objects if "/proof-" in key]
        return [read_evidence(self.bucket.objects[k], k, [signer_of(IDENTITY)]) for k in keys]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(trial, "engines", made.engines)
    return made


class Component:
    """Redis, restored as a test wants it."""

    def __init__(self, world: World) -> None:
        self._world = world

    @property
    def restore(self) -> Restore:
        return self._world.restore


def raising(error: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


def test_a_set_that_comes_back_as_it_was_passes_at_the_highest_level(world: World) -> None:
    said = world.prove()
    assert (said.verdict, said.level, said.failed_at, said.reason) == ("pass", "L4", "", "")
    assert (said.set, said.component, said.environment) == (SET, "redis", "test")
    key = world.manifest.own_key
    stored = read_manifest(world.bucket.objects[key], key, SIGNERS)
    assert said.manifest_sha256 == manifest_digest(stored)
    assert said.scratch == "Redis 8.2.1"
    assert (said.compared, said.things) == (3, 9)
    assert said.counted_only == ("shard 0, lists",)  # what holds nothing has no digest either
    assert said.from_artefact == 1
    assert list(said.stages) == [
        "manifest",
        "start",
        "load",
        "read the remaining artefacts",
        "compare",
    ]
    assert (said.number, said.previous) == (1, "")
    assert world.kept == [said]
    assert world.seen == ["start", "load", "measure", "stop"]


def test_what_is_no_id_of_a_backup_is_refused(world: World) -> None:
    for name in ("redis", "moon-20250104T010000Z-000000"):
        with pytest.raises(PermanentError, match="is not a backup id"):
            world.prove(name)
    assert world.bucket.objects.keys() == {world.manifest.own_key}


# ---------------------------------------------------------------------- L0
def failed(said: Evidence, level: str) -> str:
    assert (said.verdict, said.failed_at) == ("fail", level)
    return said.reason


def test_a_manifest_that_cannot_be_read_fails(world: World) -> None:
    world.bucket.objects[world.manifest.own_key] = b"{}"
    said = world.prove()
    assert failed(said, "L0")
    assert (said.level, said.manifest_sha256, said.compared, said.things) == ("", "", 0, 0)
    assert world.seen == []


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "is not in the object store"), (b"12", "has 2 bytes instead of 3")],
)
def test_an_object_that_is_not_there_as_it_was_stored_fails(
    content: bytes | None, words: str, world: World
) -> None:
    artefact = Artefact(
        name="dump.rdb.zst.age", unit="shard 0", format="RDB", plain_size=3, plain_sha256="0" * 64,
        stored_size=3, stored_sha256="0" * 64, part_size=8,
    )  # fmt: skip
    world.manifest = world.manifest.model_copy(update={"artefacts": (artefact,)})
    if content is not None:
        world.bucket.objects[world.manifest.key(artefact)] = content
    assert failed(world.prove(), "L0") == f"{SET}: dump.rdb.zst.age {words}"
    assert world.seen == []


def test_a_set_that_the_verify_pool_cannot_open_fails(world: World) -> None:
    other = str(pyrage.x25519.Identity.generate().to_public())
    world.manifest = world.manifest.model_copy(update={"recipients": (other,)})
    assert "not encrypted for the verify pool's key" in failed(world.prove(), "L0")
    assert world.seen == []


# ---------------------------------------------------------------------- L1 to L4
def test_a_damaged_byte_fails_at_l1(world: World) -> None:
    world.loads = raising(Damaged("dump.rdb is not what was stored", said="CRC"))
    said = world.prove()
    assert failed(said, "L1") == "dump.rdb is not what was stored"
    assert said.level == "L0"
    assert world.seen[-1] == "stop"


def test_what_a_tool_refuses_fails_at_its_level_and_its_words_are_sealed(world: World) -> None:
    world.starts = raising(Unrestorable("L2", "redis-check-rdb exited with 1", "key of a client"))
    said = world.prove()
    assert failed(said, "L2") == "redis-check-rdb exited with 1"
    assert "key of a client" not in world.bucket.objects[key_of(world, "proof-")].decode()
    assert said.words == key_of(world, "words-").rpartition("/")[2]
    opened = pyrage.decrypt(world.bucket.objects[key_of(world, "words-")], [POOL])
    assert b"key of a client" in __import__(
        "zstandard"
    ).ZstdDecompressor().decompressobj().decompress(opened)


def key_of(world: World, begin: str) -> str:
    return next(key for key in world.bucket.objects if f"/{begin}" in key)


@pytest.mark.parametrize(
    ("error", "scratch", "level"),
    [
        (PermanentError("it does not take it"), (ONE,), "L3"),
        (Unreadable("no archive"), (ONE,), "L2"),
        (PermanentError("it cannot be given it"), (), "L2"),
    ],
)
def test_what_an_engine_does_not_take_fails(
    error: Exception, scratch: tuple[Scratch, ...], level: str, world: World
) -> None:
    world.loads, world.scratch = raising(error), scratch
    assert failed(world.prove(), level) == str(error)


def test_what_comes_back_as_another_fails_at_l4_with_every_difference(world: World) -> None:
    world.holds = [KEYS.model_copy(update={"count": 6}), EMPTY]
    said = world.prove()
    assert failed(said, "L4").startswith("shard 0, strings: 6 instead of 7")
    assert said.level == "L3"
    assert [(one.item, one.what) for one in said.differences] == [
        ("strings", "6 instead of 7"),
        ("lists", "all 2 are missing"),
    ]


def test_a_set_without_an_engine_is_read_and_compared(world: World) -> None:
    world.scratch = ()
    world.holds = []
    world.manifest = world.manifest.model_copy(update={"fingerprint": ()})
    assert (world.prove().verdict, world.kept[0].level) == ("pass", "L4")


# ---------------------------------------------------------------------- partial
def test_a_set_that_lacks_something_passes_in_part(world: World) -> None:
    world.manifest = world.manifest.model_copy(
        update={"outcome": "partial", "missing": ("shard 2: away",)}
    )
    said = world.prove()
    assert (said.verdict, said.level) == ("partial", "L4")
    assert said.reason == "the backup itself is partial: shard 2: away"


def test_another_major_version_may_be_the_reason_for_a_difference(world: World) -> None:
    world.version, world.holds = "Redis 9.0.1", [KEYS]
    said = world.prove()
    assert (said.verdict, said.level) == ("partial", "L3")
    assert said.reason.startswith(
        "the scratch engine is Redis 9.0.1, but the backup is from 8.2.1, which"
    )
    assert said.reason.endswith("shard 0, lists: all 2 are missing")
    assert len(said.differences) == 1


def test_another_major_version_that_holds_everything_is_told(world: World) -> None:
    world.version = "Redis 9.0.1"
    said = world.prove()
    assert (said.verdict, said.level) == ("partial", "L4")
    assert said.reason == "the scratch engine is Redis 9.0.1, but the backup is from 8.2.1"


def test_files_that_an_engine_without_an_extension_refuses_are_read_all_the_same(
    world: World,
) -> None:
    world.scratch, world.lacking = (PLACED,), "unknown module .*"
    world.starts = raising(Unrestorable("L3", "it does not start", "unknown module bloom"))
    said = world.prove()
    assert (said.verdict, said.level) == ("partial", "L1")
    assert said.reason == (
        "the scratch engine lacks what the backup needs: unknown module bloom (it does not start)"
    )
    assert said.compared == 0
    assert said.words


def test_what_comes_over_the_network_goes_on_without_the_files(world: World) -> None:
    world.scratch, world.lacking = (PLACED, ONE), "unknown module .*"
    errors = [Unrestorable("L3", "it does not start", "unknown module bloom")]

    def once() -> None:
        if errors:
            raise errors.pop()

    world.starts = once
    said = world.prove()
    assert (said.verdict, said.level) == ("partial", "L4")
    assert world.seen == ["start", "start", "load", "measure", "stop"]


# ---------------------------------------------------------------------- no verdict
def no_verdict(world: World, kind: type[Exception], words: str) -> Evidence:
    with pytest.raises(kind, match=words):
        world.prove()
    (said,) = world.kept
    assert said.verdict == "error"
    return said


def test_an_engine_that_died_is_the_reason_of_what_failed(world: World) -> None:
    world.loads = raising(TemporaryError("connection reset"))
    world.died = TemporaryError("the pod was evicted")
    assert no_verdict(world, TemporaryError, "the pod was evicted").reason == "the pod was evicted"


def test_an_engine_that_lives_leaves_the_failure_as_it_is(world: World) -> None:
    world.loads = raising(TemporaryError("connection reset"))
    no_verdict(world, TemporaryError, "connection reset")
    assert "check" in world.seen


def test_a_full_disk_is_no_verdict(world: World) -> None:
    world.loads = raising(OSError(errno.ENOSPC, "No space left on device"))
    no_verdict(world, PermanentError, "a disk is full: no verdict")


def test_a_connection_that_breaks_may_be_tried_again(world: World) -> None:
    world.loads = raising(ConnectionResetError("by peer"))
    no_verdict(world, TemporaryError, "interrupted: ConnectionResetError")


def test_a_cancelled_proof_keeps_nothing(world: World) -> None:
    def cancel() -> None:
        CANCELLATION.cancel()
        raise PermanentError("refused")

    world.loads = cancel
    with pytest.raises(Cancelled, match="before there was a verdict"):
        world.prove()
    assert world.kept == []


def test_where_the_evidence_cannot_be_kept_the_failure_is_still_told(world: World) -> None:
    def away() -> None:
        world.bucket.away = True
        raise TemporaryError("connection reset")

    world.loads = away
    with pytest.raises(TemporaryError, match="connection reset"):
        world.prove()


# ---------------------------------------------------------------------- the pool's key
def test_the_key_is_the_last_line_that_is_no_comment(world: World) -> None:
    assert world.environment.verify_identity() == IDENTITY


@pytest.mark.parametrize("text", ["", "# only a comment\n", "AGE-SECRET-KEY-1X\n"])
def test_without_a_key_no_set_can_be_opened(text: str, world: World) -> None:
    world.secret("verify-identity", identity=text)
    with pytest.raises(PermanentError) as refused:
        world.environment.verify_identity()
    assert f"Secret {CONTROL}/verify-identity has no age private key under `identity`" in str(
        refused.value
    )
    assert "SECRET-KEY-1X" not in str(refused.value)
