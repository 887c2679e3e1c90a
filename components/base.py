"""What every component answers, in the same words: its workloads, its Secrets, and checks that are data.

A check says whether one thing is so, and what to do if not; it never prints and never decides. Gates, status and
artifacts are different renderings of the same checks (model: barman's `CheckStrategy`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from archive.cleanup_journal import CleanupJournal
from archive.evidence import Level
from archive.manifest import Consistency, Engine, Manifest, Measure
from archive.reader import SetReader
from archive.writer import SetWriter
from cluster.credentials import SecretSpec
from components.access import Access, Endpoint
from config.models import Settings


@dataclass(frozen=True)
class Check:
    """One answer.

    Attributes:
        name: what was asked, a few words.
        ok: the answer.
        hint: what was found, and what to do about it where it is not ok.
        seconds: time that asking took.
        critical: whether the component is of no use without it; if not, it is degraded only.
        unknown: the engine's own rules keep us from asking, `hint` says which: neither good nor bad, so `ok` is true
            and no gate waits for it.
    """

    name: str
    ok: bool
    hint: str = ""
    seconds: float = 0.0
    critical: bool = True
    unknown: bool = False

    def verdict(self, critical: str = "down", other: str = "degraded") -> str:
        """The answer in one word for people: ok, unknown, or one of the two words given."""
        if self.unknown:
            return "unknown"
        return "ok" if self.ok else critical if self.critical else other


@dataclass(frozen=True)
class Role:
    """What a member is to its engine.

    Attributes:
        member: pod name.
        role: the engine's own word: primary, standby, master, leader, follower.
        lag: how far it is behind, as a person reads it; "" where that means nothing.
    """

    member: str
    role: str
    lag: str = ""


@dataclass(frozen=True)
class Report:
    """What an engine says about itself.

    Attributes:
        checks: in the order in which they were asked.
        roles: of the members that answered.
    """

    checks: tuple[Check, ...]
    roles: tuple[Role, ...] = ()


@dataclass(frozen=True)
class Workload:
    """A StatefulSet or Deployment that must be there.

    Attributes:
        kind: `StatefulSet` or `Deployment`.
        name: its name.
        replicas: pods that must be ready.
        group: workloads of one group share the rule that no two pods are on one node; its own name by default.
    """

    kind: str
    name: str
    replicas: int
    group: str = ""


@dataclass(frozen=True)
class BackupContent:
    """What a backup says of itself beside its artefacts; all of it goes into the manifest.

    Attributes:
        engine: what was backed up.
        topology: members, shards, slots, replicas as they were.
        consistency: which moment each unit is of.
        fingerprint: what a restore is compared with.
        tools: programs that took part → version.
        not_covered: what such a backup never holds.
        missing: what should be in it and is not, with why; makes the set partial.
        needs: ids of earlier sets without which this one is of no use.
    """

    engine: Engine
    topology: dict[str, Any]
    consistency: tuple[Consistency, ...]
    fingerprint: tuple[Measure, ...]
    not_covered: tuple[str, ...]
    tools: dict[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Step:
    """What runs in a scratch pod between the data and the engine: a tool of the engine's own image.

    Attributes:
        name: of its container.
        command: words; the first is a program of the image.
        level: what it proves when it ends well, L2 or L3; a failure means that the data is bad.
    """

    name: str
    command: tuple[str, ...]
    level: Level


@dataclass(frozen=True)
class Scratch:
    """An engine that a set is restored into and that is thrown away afterwards: one pod of the release's own image.

    What it shall listen on is written as 0.0.0.0. Its volume is mounted at `/scratch`, `files` at `/config`.

    Attributes:
        name: tells the pods of one proof from each other; "" where there is one.
        workload: StatefulSet whose image it runs.
        container: of that.
        command: of the engine.
        port: that answers when it is ready.
        environ: of steps and engine; may be secret.
        files: configuration by file name; may be secret.
        secrets: Secret → key → value that its clients will look for, instead of the live ones.
        placed: plain names of the artefacts that are laid into the volume before it starts.
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
    """How a set becomes an engine's data again.

    Attributes:
        scratch: the engines that a proof of a set needs; gets a generated password.
        place: lays artefacts into a scratch engine's volume: reader, name of the scratch, directory.
        ask: version of one engine, once it serves; raises whatever its client raises until then.
        load: gives running engines what is not placed: where each scratch listens, by its name.
        measure: counts and digests what the engines hold, in the manifest's words; by scratch, where each holds all.
        highest: level that a proof can reach.
        version: prints the engine's version in its image, where data is placed before the engine can be asked.
        lacking: pattern of what an engine says that has not an extension or a module of the source.
    """

    scratch: Callable[[Settings, Manifest, str], tuple[Scratch, ...]]
    place: Callable[[SetReader, str, Path], None]
    ask: Callable[[Access, Endpoint], str]
    load: Callable[[Access, Mapping[str, Endpoint], SetReader], None]
    measure: Callable[[Access, Mapping[str, Endpoint], SetReader], Mapping[str, list[Measure]]]
    highest: Level = "L4"
    version: tuple[str, ...] = ()
    lacking: str = ""


@dataclass(frozen=True)
class RunningScratch:
    """A set that scratch engines serve, to be copied from.

    Attributes:
        access: the way to them.
        at: where each listens, by its name.
    """

    access: Access
    at: Mapping[str, Endpoint]


def _fingerprint(reader: SetReader, chosen: Iterable[str]) -> list[Measure]:
    wanted = set(chosen)
    return [one for one in reader.manifest.fingerprint if one.unit in wanted]


def without_fence(clients: str) -> Callable[[Access, Iterable[str]], AbstractContextManager[str]]:
    """The fence of an engine that keeps nobody away.

    Args:
        clients: what they see meanwhile, in words.
    """
    return lambda access, chosen: nullcontext(clients)


def _takes_all(access: Access, reader: SetReader, chosen: Iterable[str]) -> list[str]:
    return []


@dataclass(frozen=True)
class Live:
    """How a set replaces what the live engine holds.

    Attributes:
        units: what can be restored by itself → its size in bytes.
        fence: keeps writers away from units while it is entered; gives what they see, in words.
        replace: removes units and restores them, from scratch engines if it wants some; notes what the engine holds
            for it meanwhile, and returns what is kept of the old data, for people.
        measure: counts and digests the units as they are now.
        can_take: why the live engine would refuse units of a set, as if what it holds of them were away: its limits,
            sizes, accounts, room, peers, licences. `UNIT: reason` each; empty if it takes them. It changes nothing.
        remarks: what a plan lists by name of what else a restore of units changes, or leaves; asked of the engine and
            of the manifest, before anybody opens the set. Nothing is asked if not given.
        writers: what happens to writers from the beginning to the end, for whoever has to approve it.
        wanted: what the units must hold then; the manifest's own measures of them by default.
        scratch: whether the set must be served by scratch engines for it.
        server_wide: units of the engine as a whole, as a person may have changed it since: left as they are unless they
            are asked for, or the engine is a new one (a rebuild on new volumes, another cluster).
        by_hand: why this environment's engine can only be restored by hand; "" where it is not so.
        fences: whether `fence` keeps writers away; others have none that does, and what they take meanwhile is lost.
        accounts: whose passwords are the set's afterwards, for whoever has to approve it; "" where nobody's are.
        beside: whether `replace` lets what is there be until all of the set is restored beside it.
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


class ReadinessModule(Protocol):
    """What `components/ENGINE/readiness.py` answers; `settings_read` is in it only where an engine reads them again."""

    def workloads(self, settings: Settings, /) -> tuple[Workload, ...]:
        """What Kubernetes must run for it."""

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
        """Writes the artefacts of one set."""
        module: BackupModule = self._file("backup")
        return module.back_up

    @property
    def restore(self) -> Restore:
        """Brings them back, somewhere else."""
        module: RestoreModule = self._file("restore")
        return module.RESTORE

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
        """What Kubernetes must run for it."""
        module: ReadinessModule = self._file("readiness")
        return module.workloads

    @property
    def ask(self) -> Callable[[Access], Report]:
        """Asks the engine: quorum, replication, and a transaction of its own that is cleaned up."""
        module: ReadinessModule = self._file("readiness")
        return module.ask

    @property
    def settings_read(self) -> Callable[[Access], Mapping[str, str]] | None:
        """When each member has read its settings; None of an engine that does so at its start only."""
        verb: Callable[[Access], Mapping[str, str]] | None = getattr(
            self._file("readiness"), "settings_read", None
        )
        return verb

    @property
    def live(self) -> Live:
        """Puts a set's data in the place of what is there."""
        module: LiveModule = self._file("live")
        return module.LIVE


def worst(checks: Iterable[Check]) -> Check | None:
    """The check that matters most: a critical one that is not ok, else any that is not; None if all is well."""
    failed = [check for check in checks if not check.ok]
    return next((check for check in failed if check.critical), failed[0] if failed else None)
