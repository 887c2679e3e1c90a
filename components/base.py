"""What every component provides: its workloads, its Secrets, and checks that are data.

A check says whether one condition holds, and what to do if not; it never prints and never decides. Gates, status and
artifacts are different renderings of the same checks (model: barman's `CheckStrategy`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from archive.backup.cleanup_journal import CleanupJournal
from archive.backup.manifest import Consistency, Engine, Manifest, Measure
from archive.backup.reader import SetReader
from archive.backup.writer import SetWriter
from archive.evidence.verdicts import Difference, Level
from archive.wal.bucket import WalReader
from archive.wal.point import Point
from cluster.credentials import SecretSpec
from components.access import Access, Endpoint
from config.models import Settings


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        name: what was checked, a few words.
        ok: whether it passed.
        hint: what was found, and what to do about it if it did not pass.
        seconds: duration.
        critical: whether the component is down if it fails; if not, it is degraded only.
        unknown: the engine's own rules prevent the check, `hint` names them. It is neither good nor bad, so `ok` is
            true and no gate waits for it.
    """

    name: str
    ok: bool
    hint: str = ""
    seconds: float = 0.0
    critical: bool = True
    unknown: bool = False

    def verdict(self, critical: str = "down", other: str = "degraded") -> str:
        """The result in one word for people: ok, unknown, or one of the two words passed."""
        if self.unknown:
            return "unknown"
        return "ok" if self.ok else critical if self.critical else other


@dataclass(frozen=True)
class Role:
    """The role of a member.

    Attributes:
        member: pod name.
        role: the engine's own term: primary, standby, master, leader, follower.
        lag: how far it is behind, for people; "" if that has no meaning.
    """

    member: str
    role: str
    lag: str = ""


@dataclass(frozen=True)
class Report:
    """The checks and roles of an engine.

    Attributes:
        checks: in the order in which they were run.
        roles: of the members that answered.
    """

    checks: tuple[Check, ...]
    roles: tuple[Role, ...] = ()


@dataclass(frozen=True)
class Workload:
    """A StatefulSet or Deployment that must exist.

    Attributes:
        kind: `StatefulSet` or `Deployment`.
        name: its name.
        replicas: pods that must be ready.
        group: no two pods of workloads with the same group may share a node; its own name by default.
    """

    kind: str
    name: str
    replicas: int
    group: str = ""


@dataclass(frozen=True)
class BackupContent:
    """The description of a backup beside its artefacts; all of it goes into the manifest.

    Attributes:
        engine: what was backed up.
        topology: state of members, shards, slots, replicas.
        consistency: the recovery point of each unit.
        fingerprint: what a restore is compared with.
        tools: programs that were used → version.
        not_covered: what such a backup never holds.
        missing: what is missing from it, with the reason; makes the backup partial.
        needs: ids of earlier backups that this one depends on.
        states: unit → keyed digest of its state; an unchanged unit is not stored again (`archive.backup.references`).
    """

    engine: Engine
    topology: dict[str, Any]
    consistency: tuple[Consistency, ...]
    fingerprint: tuple[Measure, ...]
    not_covered: tuple[str, ...]
    tools: dict[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    states: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """A step in a scratch pod between the data and the engine: a tool of the engine's own image.

    Attributes:
        name: of its container.
        command: words; the first is a program of the image.
        level: what it proves if it succeeds, L2 or L3; a failure means that the data is bad.
    """

    name: str
    command: tuple[str, ...]
    level: Level


@dataclass(frozen=True)
class Scratch:
    """A temporary engine that a backup is restored into: one pod of the release's own image.

    Its listen address is written as 0.0.0.0. Its volume is mounted at `/scratch`, `files` at `/config`.

    Attributes:
        name: distinguishes the pods of one verification; "" if there is only one.
        workload: StatefulSet whose image it runs.
        container: of that.
        command: of the engine.
        port: that answers when it is ready.
        environ: of steps and engine; may be secret.
        files: configuration by file name; may be secret.
        secrets: Secret → key → value that its clients use instead of the live ones.
        placed: plain names of the artefacts that are written to the volume before it starts.
        steps: in order.
    """

    name: str
    workload: str
    container: str
    command: tuple[str, ...]
    port: int
    environ: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    placed: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True)
class Restore:
    """How a backup is loaded into scratch engines and compared.

    Attributes:
        scratch: returns the scratch engines for a backup; gets a generated password.
        place: writes artefacts to a scratch engine's volume: reader, name of the scratch engine, directory.
        ask: returns the version of an engine once it accepts connections; raises its client's exceptions until then.
        load: sends running engines what is not in `placed`: addresses of the scratch engines, by name.
        measure: counts and digests what the engines hold, as in the manifest; by scratch engine, if each holds
            everything.
        highest: highest level that a verification can reach.
        version: prints the engine's version in its image, for engines whose data is placed before they start.
        lacking: pattern of the engine's message if it lacks an extension or a module of the source.
        reads_all: whether a verification reads the artefacts that no engine needs, too.
    """

    scratch: Callable[[Settings, Manifest, str], tuple[Scratch, ...]]
    place: Callable[[SetReader, str, Path], None]
    ask: Callable[[Access, Endpoint], str]
    load: Callable[[Access, Mapping[str, Endpoint], SetReader], None]
    measure: Callable[[Access, Mapping[str, Endpoint], SetReader], Mapping[str, list[Measure]]]
    highest: Level = "L4"
    version: tuple[str, ...] = ()
    lacking: str = ""
    reads_all: bool = True


@dataclass(frozen=True)
class Recovered:
    """What a scratch engine that was recovered to a point says of itself.

    Attributes:
        lsn: behind the last record that was replayed.
        last: time of the last commit that was replayed; None if none was.
        stopped: time of the commit before which it stopped; None if the target is no time.
        databases: how many it has.
        checked: tables and indexes that were checked.
        faults: where it is not at its target, and damaged tables and indexes.
        messages: of the engine about damaged ones; may quote data.
        unchecked: why tables and indexes could not be checked; "" if they were.
    """

    lsn: str
    last: datetime | None
    stopped: datetime | None
    databases: int
    checked: int
    faults: tuple[Difference, ...] = ()
    messages: tuple[str, ...] = ()
    unchecked: str = ""

    @property
    def words(self) -> str:
        """Where it is, for people."""
        parts = [f"LSN {self.lsn}"]
        if self.last is not None:
            parts.append(f"last commit {self.last:%Y-%m-%d %H:%M:%S.%f}")
        if self.stopped is not None:
            parts.append(f"stopped before the commit of {self.stopped:%Y-%m-%d %H:%M:%S.%f} UTC")
        return ", ".join(parts)


@dataclass(frozen=True)
class RunningScratch:
    """A backup served by scratch engines, to be copied from.

    Attributes:
        access: access to them.
        at: their addresses, by name.
    """

    access: Access
    at: Mapping[str, Endpoint]


def _fingerprint(reader: SetReader, chosen: Iterable[str]) -> list[Measure]:
    wanted = set(chosen)
    return [measure for measure in reader.manifest.fingerprint if measure.unit in wanted]


def without_fence(clients: str) -> Callable[[Access, Iterable[str]], AbstractContextManager[str]]:
    """The fence of an engine that cannot block clients.

    Args:
        clients: what clients see during the restore, for the plan.
    """
    return lambda access, chosen: nullcontext(clients)


def _takes_all(access: Access, reader: SetReader, chosen: Iterable[str]) -> list[str]:
    return []


@dataclass(frozen=True)
class Live:
    """How a backup replaces what the live engine holds.

    Attributes:
        units: what can be restored by itself → its size in bytes.
        fence: blocks writers of units inside its `with` block; returns the effect on writers, as text.
        replace: removes units and restores them, from scratch engines if it needs some. It records resources that the
            engine holds during the restore, and returns what is kept of the old data, for people.
        measure: counts and digests the units as they are now.
        can_take: why the live engine would refuse units of a backup, assuming that it does not hold them yet: its
            limits, sizes, accounts, space, peers, licences. One `UNIT: reason` each; empty if it accepts them. It
            changes nothing.
        remarks: further effects of a restore that a plan lists by name; read from the engine and the manifest, before
            the backup is decrypted. None if not given.
        writers: the effect on writers from the beginning to the end, for the person who approves it.
        wanted: expected measures of the units after the restore; the manifest's own by default.
        scratch: whether the backup must be served by scratch engines for it.
        server_wide: units that belong to the engine as a whole. They are not changed unless they are named, or the
            engine is a new one (a rebuild on new volumes, another cluster).
        by_hand: why this environment's engine can only be restored by hand; "" if it can be restored by isa.
        fences: whether `fence` blocks writers; if not, what clients write during a restore is lost.
        accounts: accounts that get the backup's passwords, for the person who approves it; "" if none do.
        beside: whether `replace` keeps the current data until all of the backup is restored beside it.
    """

    units: Callable[[SetReader], dict[str, int]]
    fence: Callable[[Access, Iterable[str]], AbstractContextManager[str]]
    replace: Callable[
        [Access, RunningScratch | None, SetReader, Iterable[str], CleanupJournal], list[str]
    ]
    measure: Callable[[Access, SetReader, Iterable[str]], list[Measure]]
    writers: str
    wanted: Callable[[SetReader, Iterable[str]], list[Measure]] = _fingerprint
    can_take: Callable[[Access, SetReader, Iterable[str]], list[str]] = _takes_all
    scratch: bool = False
    server_wide: tuple[str, ...] = ()
    remarks: Callable[[Access, Manifest, Iterable[str]], list[str]] | None = None
    by_hand: Callable[[Settings], str] = lambda settings: ""
    fences: bool = False
    accounts: str = ""
    beside: bool = False


class BackupModule(Protocol):
    """What `components/NAME/backup.py` answers."""

    def back_up(self, access: Access, writer: SetWriter, /) -> BackupContent:
        """Write the artefacts of one set."""


class RestoreModule(Protocol):
    """What `components/NAME/restore.py` answers."""

    RESTORE: Restore


class PointModule(Protocol):
    """What `components/NAME/point.py` answers, where changes are stored between two backups."""

    def place_wal(self, point: Point, reader: WalReader, directory: Path, /) -> None:
        """Write what leads from a base backup to a point, and the settings of the recovery, into a volume."""

    def restore_to(
        self, point: Point, done: Callable[[Recovered], None], /, *, check: bool = True
    ) -> Restore:
        """Restore into a scratch engine that recovers to a point; `done` gets what it says of itself."""

    def dump(
        self,
        served: RunningScratch,
        writer: SetWriter,
        reader: SetReader,
        point: Point,
        recovered: Recovered,
        /,
    ) -> BackupContent:
        """Back up what such an engine has, so that it can be restored as any backup."""


class ReadinessModule(Protocol):
    """What `components/ENGINE/readiness.py` answers; `settings_read` is in it only where an engine reads them again."""

    def workloads(self, settings: Settings, /) -> tuple[Workload, ...]:
        """The workloads that Kubernetes must run for it."""

    def ask(self, access: Access, /) -> Report:
        """Ask the engine: quorum, replication, and a transaction of its own that is cleaned up."""


class CredentialsModule(Protocol):
    """What `components/ENGINE/credentials.py` answers."""

    @property
    def SECRETS(self) -> tuple[SecretSpec, ...]:  # noqa: N802
        """What must exist before its releases."""


class LiveModule(Protocol):
    """What `components/ENGINE/live.py` answers."""

    LIVE: Live


@dataclass(frozen=True)
class BackupTarget:
    """What sets are made of; its verbs are in the files of its folder, each of which answers a protocol.

    A file is imported when its verb is first asked for: the clients of all seven engines take 1.2 s of a core, and a
    command that has to do with one of them, or with none, needs not wait for the others. Whether all files answer
    their protocols, mypy sees in tests/unit/components/test_verbs.py.

    Attributes:
        name: as in settings, labels and commands, and of its folder.
    """

    name: str

    @property
    def back_up(self) -> Callable[[Access, SetWriter], BackupContent]:
        """Writes the artefacts of one backup."""
        module: BackupModule = self._file("backup")
        return module.back_up

    @property
    def restore(self) -> Restore:
        """Restores backups into scratch engines."""
        module: RestoreModule = self._file("restore")
        return module.RESTORE

    @property
    def point(self) -> PointModule | None:
        """Recovers to a point between two backups; None where changes are not stored between them."""
        if find_spec(f"components.{self.name}.point") is None:
            return None
        module: PointModule = self._file("point")
        return module

    def _file(self, name: str) -> Any:
        return import_module(f"components.{self.name}.{name}")


@dataclass(frozen=True)
class Component(BackupTarget):
    """One engine of the platform."""

    @property
    def secrets(self) -> tuple[SecretSpec, ...]:
        """What must exist before its releases."""
        module: CredentialsModule = self._file("credentials")
        return module.SECRETS

    @property
    def workloads(self) -> Callable[[Settings], tuple[Workload, ...]]:
        """The workloads that Kubernetes must run for it."""
        module: ReadinessModule = self._file("readiness")
        return module.workloads

    @property
    def ask(self) -> Callable[[Access], Report]:
        """Checks the engine: quorum, replication, and a write of its own that is cleaned up."""
        module: ReadinessModule = self._file("readiness")
        return module.ask

    @property
    def settings_read(self) -> Callable[[Access], Mapping[str, str]] | None:
        """When each member has loaded its settings; None for an engine that loads them at its start only."""
        verb: Callable[[Access], Mapping[str, str]] | None = getattr(
            self._file("readiness"), "settings_read", None
        )
        return verb

    @property
    def live(self) -> Live:
        """Restores backups into the live engine."""
        module: LiveModule = self._file("live")
        return module.LIVE


def worst(checks: Iterable[Check]) -> Check | None:
    """Return the most important failed check: a critical one, else any; None if all passed."""
    failed = [check for check in checks if not check.ok]
    return next((check for check in failed if check.critical), failed[0] if failed else None)
