"""A component's backup: when there is a set, what it says of itself, and that a failure leaves nothing behind."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyrage
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from archive.backup.manifest import Capabilities, Engine, Manifest, read_manifest
from archive.object_store.entries import Entry
from archive.signing import public_half
from cluster.command import CANCELLATION, Cancelled
from cluster.dag import Dag
from cluster.lease import LeaseHeld
from components import SETS
from components.base import BackupContent
from config.sections.backups import BackupSigner
from errors import ArgumentError, PermanentError, TemporaryError
from operations.backup import nightly
from operations.backup.component import BackupResult, back_up, selected
from operations.backup.nightly import BackupLine, BackupReport, run_backups
from operations.environment.environment import Environment
from operations.environment.leases import INTERVAL_BACKUP, after_interval_backup
from operations.runner.context import RunContext
from operations.runner.progress import NodeProgress
from operations.runner.walk import Start, Work
from operations.state.rebuild_state import Policy, RebuildState
from tests.environments import environment_with

from ..archive.test_retention import a_set
from ..stored import CONTROL, Stored, environment_of, settings_of

KEY = Ed25519PrivateKey.generate()
RECIPIENT = str(pyrage.x25519.Identity.generate().to_public())
ABLE = Capabilities(conditional_put=True, checksums=True, versioning=True, object_lock=True)
CONTENT = BackupContent(
    engine=Engine(name="Redis", version="8.2"),
    topology={"shards": 3},
    consistency=(),
    fingerprint=(),
    not_covered=("clients",),
    tools={"redis-cli": "8"},
)


class Bucket:
    """Objects by key, and the date until which those are locked that are written now.

    Attributes:
        objects: key → content.
        until: of new objects; None without a lock.
        locked: key → date.
    """

    address = "https://s3.example/backups"

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.parts: dict[str, list[bytes]] = {}
        self.until: datetime | None = None
        self.locked: dict[str, datetime] = {}

    def locking(self, until: datetime) -> Bucket:
        self.until = until
        return self

    def begin(self, key: str) -> str:
        self.parts[key] = []
        return key

    def put_part(self, key: str, upload: str, number: int, content: Any) -> str:
        self.parts[key].append(bytes(content))
        return str(number)

    def complete(self, key: str, upload: str, etags: Any, size: int) -> None:
        self.put(key, b"".join(self.parts.pop(key)))

    def abort(self, key: str, upload: str) -> None:
        self.parts.pop(key, None)

    def put(self, key: str, body: bytes, **_: Any) -> None:
        self.objects[key] = bytes(body)
        if self.until is not None:
            self.locked[key] = self.until

    def get(self, key: str, limit: int = 0, version: str = "") -> bytes:
        return self.objects[key]

    def locked_until(self, key: str, version: str = "") -> datetime | None:
        return self.locked.get(key)

    def list(self, prefix: str) -> list[Entry]:
        now = datetime.now(UTC)
        return [
            Entry(k, len(v), now) for k, v in sorted(self.objects.items()) if k.startswith(prefix)
        ]

    def purge(self, key: str) -> None:
        self.objects.pop(key, None)


class World:
    """An environment whose Redis answers a backup as a test wants it.

    Attributes:
        content: what the engine says of its backup.
        during: what happens while it is taken.
        asked: how often the engine was asked.
    """

    def __init__(self, spool: Path) -> None:
        self.kube, self.bucket = Stored(), Bucket()
        self.content, self.asked = CONTENT, 0
        self.during: Callable[[Any], None] = lambda writer: None
        self.signers: tuple[BackupSigner, ...] = (BackupSigner(key=public_half(KEY)),)
        self.spool, self.lock_days = spool, 0
        raw = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self.secret("isa-backup-signing", key=raw)

    def secret(self, name: str, **values: bytes) -> None:
        data = {key: b64encode(value).decode() for key, value in values.items()}
        self.kube.objects["Secret", name] = {"metadata": {"name": name}, "data": data}

    @property
    def environment(self) -> Environment:
        settings = settings_of(
            environment="test",
            backup=SimpleNamespace(
                signers=self.signers, age_recipients=(RECIPIENT,), object_lock_days=self.lock_days,
                spool=self.spool, signing_secret="isa-backup-signing", max_parallel=2,
            ),
            verify=SimpleNamespace(signers=()),
        )  # fmt: skip
        return environment_with(
            settings,
            kube=self.kube,
            store=cast(Any, self.bucket),
            cluster_uid="uid-of-the-namespace",
        )

    def engine(self, access: Any, writer: Any) -> BackupContent:
        self.asked += 1
        writer.add("shard-0.rdb", "shard 0", "RDB", [b"all that there is"])
        self.during(writer)
        return self.content

    def back_up(self, slot: str = "", **more: Any) -> BackupResult:
        return back_up(self.environment, RunContext("test"), "redis", ABLE, slot=slot, **more)

    def set_of(self, result: BackupResult) -> Manifest:
        document = self.bucket.objects[result.manifest]
        return read_manifest(document, result.manifest, self.signers)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path)
    monkeypatch.setitem(SETS, "redis", cast(Any, SimpleNamespace(back_up=made.engine)))
    return made


def test_a_set_exists_when_its_signed_manifest_is_written(world: World) -> None:
    result = world.back_up("2026-01-01")
    assert (result.component, result.outcome, result.good) == ("redis", "complete", True)
    made = world.set_of(result)
    names = {one.name for one in made.artefacts}
    assert names == {"shard-0.rdb.zst.age", "digests.json.zst.age"}
    assert (result.bytes_read, result.bytes_stored) == (made.plain_size, made.stored_size)
    assert made.id == result.id
    assert (made.environment, made.cluster) == ("test", "uid-of-the-namespace")
    assert (made.slot, made.kind, made.outcome) == ("2026-01-01", "full", "complete")
    assert (made.engine, made.tools) == (CONTENT.engine, CONTENT.tools)
    assert (made.topology, made.not_covered) == (CONTENT.topology, CONTENT.not_covered)
    assert (made.store, made.recipients) == (ABLE, (RECIPIENT,))
    assert made.begun <= made.ended
    assert list(world.bucket.objects)[-1] == result.manifest


def test_a_set_without_a_slot_is_its_own(world: World) -> None:
    result = world.back_up()
    assert world.set_of(result).slot == result.id


def test_a_slot_that_has_its_set_gets_no_other(world: World) -> None:
    first = world.back_up("2026-01-01")
    again = world.back_up("2026-01-01")
    assert (again.outcome, again.id, again.good) == ("exists", first.id, True)
    assert again.manifest == first.manifest
    assert again.reason == "a backup for 2026-01-01 exists already"
    assert world.asked == 1


def test_a_partial_set_is_no_slots_set(world: World) -> None:
    world.content = BackupContent(
        **{**vars(CONTENT), "missing": ("shard 2: away", "shard 3: away")}
    )
    first = world.back_up("2026-01-01")
    assert (first.outcome, first.good) == ("partial", False)
    assert first.reason == "shard 2: away; shard 3: away"
    world.content = CONTENT
    assert world.back_up("2026-01-01").outcome == "complete"


def test_a_set_that_rests_on_another_says_so(world: World) -> None:
    earlier = a_set(3)
    world.bucket.put(earlier.own_key, earlier.signed(KEY))
    world.content = BackupContent(**{**vars(CONTENT), "needs": (earlier.id,)})
    made = world.set_of(world.back_up())
    assert (made.kind, made.needs) == ("incremental", (earlier.id,))


def test_a_writer_is_told_of_earlier_sets_unless_a_full_one_is_wanted(world: World) -> None:
    first = world.back_up()
    told: list[tuple[str, ...]] = []
    world.during = lambda writer: told.append(tuple(one.id for one in writer.earlier))
    world.back_up()
    world.back_up(full=True)
    assert told == [(first.id,), ()]


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (PermanentError("no standby"), PermanentError),
        (KeyError("a client library's own"), TemporaryError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_a_failure_leaves_nothing_in_the_bucket(
    raised: BaseException, kind: type[BaseException], world: World
) -> None:
    def fail(writer: Any) -> None:
        raise raised

    world.during = fail
    with pytest.raises(kind):
        world.back_up()
    assert world.bucket.objects == {}


def test_a_cancelled_backup_is_not_committed(world: World) -> None:
    world.during = lambda writer: CANCELLATION.cancel()
    with pytest.raises(Cancelled, match=r"before the backup redis-.* was committed"):
        world.back_up()
    assert world.bucket.objects == {}


def test_objects_are_locked_for_the_days_of_the_settings(world: World) -> None:
    world.back_up()
    assert world.bucket.locked == {}
    world.lock_days = 30
    result = world.back_up()
    dates = {key: at for key, at in world.bucket.locked.items() if result.id in key}
    assert len(dates) == 3  # the data, the digests, the manifest
    for at in dates.values():
        assert abs(at - datetime.now(UTC) - timedelta(days=30)) < timedelta(minutes=5)


# ---------------------------------------------------------------------- the signing key
def test_without_a_signing_key_no_engine_is_touched(world: World) -> None:
    del world.kube.objects["Secret", "isa-backup-signing"]
    with pytest.raises(PermanentError, match=f"Secret {CONTROL}/isa-backup-signing, key `key`"):
        world.back_up()
    assert world.asked == 0


@pytest.mark.parametrize(
    "signers",
    [
        (),
        (BackupSigner(key=public_half(Ed25519PrivateKey.generate())),),
        (BackupSigner(key=public_half(KEY), until=datetime(2025, 1, 1, tzinfo=UTC)),),
    ],
)
def test_a_backup_that_would_not_count_is_not_taken(
    signers: tuple[BackupSigner, ...], world: World
) -> None:
    world.signers = signers
    with pytest.raises(PermanentError, match="no backup would count") as refused:
        world.back_up()
    assert f"{{key: {public_half(KEY)}}} (Secret isa-backup-signing)" in str(refused.value)
    assert world.asked == 0


def test_the_workers_key_may_stand_behind_others(world: World) -> None:
    world.signers = (BackupSigner(key=public_half(Ed25519PrivateKey.generate())), *world.signers)
    assert world.back_up().good


# ---------------------------------------------------------------------- which components
def test_components_are_taken_in_one_order_and_once() -> None:
    assert selected(["redis", "nats", "redis"]) == tuple(n for n in SETS if n in ("nats", "redis"))
    assert selected([]) == tuple(SETS)
    with pytest.raises(ArgumentError) as refused:
        selected(["moon", "redis", "sun"])
    assert [str(fault).partition("'")[2][:4] for fault in refused.value.faults] == ["moon", "sun'"]
    assert all("known: " in str(fault) for fault in refused.value.faults)


# ---------------------------------------------------------------------- a night
def inline(graph: Dag, work: Work) -> Start:
    def begin(node: str, done: Callable[[Any], None]) -> None:
        try:
            done(work(node))
        except Exception as exc:
            done(exc)

    return begin


@pytest.fixture
def night(world: World, monkeypatch: pytest.MonkeyPatch) -> Night:
    made = Night(world)
    monkeypatch.setattr(nightly, "check_store", lambda environment: made.check())
    monkeypatch.setitem(SETS, "nats", cast(Any, SimpleNamespace(back_up=world.engine)))
    return made


class Night:
    """Backups of two components."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.lines: list[list[NodeProgress]] = []
        self.trouble: Exception | None = None

    def check(self) -> Capabilities:
        if self.trouble:
            raise self.trouble
        return ABLE

    def run(
        self, slot: str = "2026-01-01", only: tuple[str, ...] = ("redis", "nats")
    ) -> BackupReport:
        context = RunContext("test", publish=lambda lines: self.lines.append([*lines]))
        return run_backups(self.world.environment, context, only=only, slot=slot, start=inline)

    def note(self, text: str) -> None:
        with environment_of(self.world.kube).lease("isa-rebuild-redis", "somebody") as lease:
            lease.note(text)


def test_a_night_tells_of_each_component(night: Night) -> None:
    report = night.run()
    assert {one.component: one.outcome for one in report.backups} == {
        "redis": "complete",
        "nats": "complete",
    }
    assert report.state == "completed"
    assert report.summary.startswith("2 complete in ")
    read = sum(one.bytes_read for one in report.backups)
    assert f"{read} B read, " in report.summary
    last = {line.name: line for line in night.lines[-1]}
    for one in report.backups:
        line = last[one.component]
        assert isinstance(line, BackupLine)
        assert (line.outcome, line.id, line.manifest) == (one.outcome, one.id, one.manifest)
        assert (line.bytes_read, line.bytes_stored) == (one.bytes_read, one.bytes_stored)
        assert line.note.startswith(f"{one.bytes_read} B read, ")
    assert all(line.phase == "waiting" for line in night.lines[0])


def test_one_that_fails_stops_no_other(night: Night) -> None:
    def fail_once(writer: Any) -> None:
        night.world.during = lambda writer: None
        raise PermanentError("no standby")

    night.world.during = fail_once
    report = night.run()
    (failed,) = (one for one in report.backups if not one.good)
    assert (failed.outcome, failed.reason) == ("failed", "no standby")
    assert report.state == "failed"
    assert report.summary.endswith(f". {failed.component}: no standby")
    assert "1 complete" in report.summary and "1 failed" in report.summary
    assert sum(one.good for one in report.backups) == 1


def test_where_the_store_cannot_be_used_no_engine_is_touched(night: Night) -> None:
    night.trouble = PermanentError("the bucket is not there")
    with pytest.raises(PermanentError, match="bucket is not there"):
        night.run()
    assert night.world.asked == 0


def test_a_night_to_come_is_refused(night: Night) -> None:
    with pytest.raises(ArgumentError, match="is in the future"):
        night.run("9999-12-31")
    assert night.world.asked == 0


def test_a_component_whose_rebuild_has_not_restored_the_data_is_not_backed_up(night: Night) -> None:
    done = ["fence", "backup", "proof", "uninstall", "volumes", "install"]
    set_id = a_set(0).id
    night.note(RebuildState("rebuild-20260101t000000z-00ab", Policy("redis"), set_id, done).text())
    report = night.run()
    found = {one.component: one for one in report.backups}
    assert found["redis"].outcome == "failed"
    assert found["redis"].reason.startswith(
        "rebuild-20260101t000000z-00ab has not restored the data yet"
    )
    assert "`isa rebuild undo redis`" in found["redis"].reason
    assert found["nats"].outcome == "complete"


def test_what_may_be_all_that_there_is_is_taken_as_partial(night: Night) -> None:
    night.note("x")
    found = {one.component: one for one in night.run().backups}
    assert found["redis"].outcome == "partial"
    assert "isa-rebuild-redis" in found["redis"].reason
    assert found["nats"].outcome == "complete"


# ---------------------------------------------------------------------- between two nightly ones
def test_a_nightly_set_never_depends_on_one_between_two_nights(world: World) -> None:
    night = world.back_up("2026-01-01")
    between = world.back_up("interval-20260101T0615Z")
    told: list[tuple[tuple[str, ...], bool]] = []
    world.during = lambda w: told.append((tuple(one.id for one in w.earlier), w.interval))
    world.back_up("interval-20260101T0630Z")
    world.back_up("2026-01-02")
    assert told == [((night.id, between.id), True), ((night.id,), False)]


class Held:
    """A Lease that somebody else holds for so many attempts."""

    def __init__(self, purpose: str, attempts: int) -> None:
        self.purpose, self.left = purpose, attempts

    def __enter__(self) -> Held:
        self.left -= 1
        if self.left >= 0:
            raise LeaseHeld("isa-backup-redis", "another worker", self.purpose, "01:00", 5)
        return self

    def __exit__(self, *_: object) -> None:
        """It is released."""


def test_a_run_between_two_nights_that_finds_another_one_running_makes_no_set(
    night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Environment, "lease", lambda *_: Held("the nightly run", 1))
    report = night.run("interval-20260101T0615Z", only=("redis",))
    (skipped,) = report.backups
    assert (skipped.outcome, skipped.good, report.state) == ("skipped", True, "completed")
    assert "another worker (the nightly run)" in skipped.reason
    assert night.world.asked == 0
    assert night.run("2026-01-01", only=("redis",)).state == "failed"


def test_one_between_two_nights_is_waited_for_and_no_other_run() -> None:
    waited: list[float] = []
    with after_interval_backup(cast(Any, Held(INTERVAL_BACKUP, 3)), sleep=waited.append):
        assert len(waited) == 3
    with (
        pytest.raises(LeaseHeld),
        after_interval_backup(cast(Any, Held("retention", 1)), sleep=waited.append),
    ):
        pass


def test_a_set_depends_on_none_that_the_store_could_delete_sooner(world: World) -> None:
    told: list[int] = []
    world.during = lambda writer: told.append(len(writer.earlier))
    world.back_up()
    world.lock_days = 30
    first = world.back_up()
    second = world.back_up()
    assert world.set_of(second).prefix != world.set_of(first).prefix
    del world.bucket.locked[first.manifest], world.bucket.locked[second.manifest]
    world.back_up()
    assert told == [0, 0, 2, 0]
