"""One component's backup from beginning to end.

No engine is touched before the store, the keys and the spool were tested. The backup exists when its manifest is
written; until then a failure deletes what was stored, and garbage collection removes what a killed run leaves.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from archive.backup.manifest import (
    Artefact,
    Capabilities,
    Manifest,
    component_of,
    is_interval,
    new_identity,
    set_prefix,
)
from archive.backup.writer import SetWriter
from archive.catalogue.chain import dependable
from archive.catalogue.listing import Catalogue
from archive.retention.locks import shortest
from cluster.lease import Lease
from components import SETS
from components.access import Access
from components.base import BackupContent
from config.models import Settings
from errors import ArgumentError, Fault, IsaError, PermanentError, TemporaryError
from operations.backup.prerequisites import valid_worker_key
from operations.backup.slot import fills
from operations.documents.runs import ComponentBackup
from operations.environment.environment import Environment
from operations.environment.leases import INTERVAL_BACKUP, after_interval_backup, backup_lease
from operations.runner.context import RunContext
from operations.runner.transfer import Transfer, watched
from operations.state.restore_journal import InterruptedRestore, doubt_of, journal_on

Take = Callable[[Access, SetWriter], BackupContent]
log = logging.getLogger(__name__)

LATE = timedelta(hours=30)  # retention extends locks once a day
COMPLETE, PARTIAL, EXISTS, FAILED = "complete", "partial", "exists", "failed"
SKIPPED = "skipped"


@dataclass(frozen=True)
class BackupResult:
    """How a component's backup ended.

    Attributes:
        component: its name.
        outcome: complete, partial, exists (there is one for this slot already), skipped (another backup of it is
            running, and this one was between two nightly ones) or failed.
        id: of the set; "" if there is none.
        bytes_read: plain bytes.
        bytes_stored: bytes in the bucket.
        seconds: wall time.
        manifest: its key in the bucket.
        reason: why it is not complete.
    """

    component: str
    outcome: str
    id: str = ""
    bytes_read: int = 0
    bytes_stored: int = 0
    seconds: float = 0.0
    manifest: str = ""
    reason: str = ""

    @property
    def good(self) -> bool:
        """Whether there is a complete backup for the slot, or none is needed."""
        return self.outcome in (COMPLETE, EXISTS, SKIPPED)

    def document(self) -> ComponentBackup:
        """The result as `isa backup --json` prints it."""
        return ComponentBackup(**{**vars(self), "seconds": round(self.seconds, 2)})


def selected(only: Iterable[str]) -> tuple[str, ...]:
    """Names of the components to back up; all if none is given.

    Raises:
        ArgumentError: one is unknown.
    """
    unknown = [name for name in only if name not in SETS]
    if unknown:
        known = f"known: {', '.join(SETS)}"
        raise ArgumentError([Fault("component", f"unknown: {name!r}", known) for name in unknown])
    names = set(only)
    return tuple(name for name in SETS if not names or name in names)


class Unneeded(PermanentError):
    """A set holds nothing that is worth keeping."""


def back_up(
    environment: Environment,
    context: RunContext,
    component: str,
    able: Capabilities,
    *,
    slot: str,
    full: bool = False,
    doubts: Iterable[str] = (),
    take: Take | None = None,
    needed: Callable[[Manifest], bool] = lambda _: True,
) -> BackupResult:
    """Back up one component.

    Args:
        environment: opened.
        context: of the run; gets told of bytes.
        component: name.
        able: tested features of the store.
        slot: idempotency key; "" always takes a backup.
        full: whether to take a full backup.
        doubts: why the engine may not hold all of its data now: the backup is then partial.
        take: writes the artefacts; the component's own backup of the live engine by default.
        needed: whether a set is kept, by what it holds.

    Raises:
        Unneeded: it is not; what was stored of it is deleted.
        LeaseHeld: another backup of this component is running.
        TemporaryError, PermanentError: no backup was taken.
    """
    clock = context.clock
    started, signing_key = clock(), valid_worker_key(environment)
    # beside the deploy's: a backup changes nothing
    with _exclusive(environment, context, component, slot) as lease:
        catalogue = environment.catalogue([component])
        existing = slot_taken(catalogue, component, slot, environment.settings.schedules.timezone)
        if existing is not None:
            return _result(
                existing, EXISTS, clock() - started, f"a backup for {slot} exists already"
            )
        begun = datetime.now(UTC)
        identity = new_identity(component, begun, secrets.token_hex(3))
        earlier = () if full else _earlier(environment, catalogue, component, slot)
        writer = _writer(environment, context, identity, earlier, lease, signing_key, slot)
        try:
            with (
                environment.access() as access,
                explained(component),
            ):
                content = (take or environment.backup_targets[component].back_up)(access, writer)
            missing = (*content.missing, *doubts, *_left(lease, environment.settings, component))
            with explained(component):  # a text of the engine's may be longer than any
                manifest = _manifest(
                    environment,
                    identity,
                    content,
                    slot=slot,
                    begun=begun,
                    missing=missing,
                    artefacts=writer.artefacts,
                    store=able,
                )
            context.cancellation.check(f"before the backup {identity} was committed")
            if not needed(manifest):
                raise Unneeded(f"the set {identity} was not kept: nobody needs what it holds")
            manifest = writer.commit(manifest)
        except BaseException:
            writer.discard()
            raise
    return _result(manifest, manifest.outcome, clock() - started, "; ".join(manifest.missing))


def _manifest(
    environment: Environment,
    identity: str,
    content: BackupContent,
    *,
    slot: str,
    begun: datetime,
    missing: tuple[str, ...],
    artefacts: tuple[Artefact, ...],
    store: Capabilities,
) -> Manifest:
    """Build the manifest of a backup that has just ended."""
    return Manifest(
        id=identity,
        component=component_of(identity),
        environment=environment.settings.environment,
        cluster=environment.cluster_uid,
        slot=slot or identity,
        kind="incremental" if content.needs else "full",
        needs=content.needs,
        begun=begun,
        ended=datetime.now(UTC),
        outcome="partial" if missing else "complete",
        missing=missing,
        not_covered=content.not_covered,
        engine=content.engine,
        tools=content.tools,
        topology=content.topology,
        consistency=content.consistency,
        artefacts=artefacts,
        fingerprint=content.fingerprint,
        states=content.states,
        store=store,
        recipients=environment.settings.backup.age_recipients,
    )


def slot_taken(catalogue: Catalogue, component: str, slot: str, timezone: str) -> Manifest | None:
    """Return the complete backup that a slot already has; a backup that began before that date does not count."""
    return next(
        (
            manifest
            for manifest in reversed(catalogue.of(component))
            if slot and manifest.slot == slot and manifest.outcome == "complete"
            if fills(slot, manifest.begun, timezone)
        ),
        None,
    )


@contextmanager
def explained(component: str) -> Iterator[None]:
    """Convert what a client library raises during a backup into the project's errors.

    Seven libraries have errors of their own. A backup changes nothing, so an unknown error is tried again.
    """
    try:
        yield
    except IsaError:
        raise
    except Exception as exc:
        raise TemporaryError(f"{component}: {type(exc).__name__}", said=str(exc)) from exc


# ---------------------------------------------------------------------- inside
def _exclusive(
    environment: Environment, context: RunContext, component: str, slot: str
) -> AbstractContextManager[Lease]:
    """The component's backup Lease. Only a backup between two nights does not wait for another such one."""
    name = backup_lease(component)
    if is_interval(slot):
        return environment.lease(name, f"{INTERVAL_BACKUP}, {context.who}")
    return after_interval_backup(environment.lease(name, context.who))


def _earlier(
    environment: Environment, catalogue: Catalogue, component: str, slot: str
) -> tuple[Manifest, ...]:
    """Return the earlier backups that a new one may depend on.

    A nightly backup depends on none between two nightly ones, so that these can be removed after a day or two. With
    object locks it depends on none that the store could delete sooner than it: a full one is due then.
    """
    backup = environment.settings.backup
    sets = dependable(catalogue.sound(component), backup.age_recipients, environment.cluster_uid)
    earlier = tuple(one for one in sets if is_interval(slot) or not one.interval)
    if not earlier or not backup.object_lock_days:
        return earlier
    chain = [one for one in earlier if one.id in (earlier[-1].id, *earlier[-1].needs)]
    until = datetime.now(UTC) + timedelta(days=backup.object_lock_days) - LATE
    try:
        dates = shortest(environment.store, chain).values()
    except PermanentError as exc:
        log.warning("the locks of earlier backups are unknown, so this one is full: %s", exc)
        return ()
    return earlier if all(date is not None and date >= until for date in dates) else ()


def _result(manifest: Manifest, outcome: str, seconds: float, reason: str) -> BackupResult:
    return BackupResult(
        component=manifest.component,
        outcome=outcome,
        id=manifest.id,
        bytes_read=manifest.plain_size,
        bytes_stored=manifest.stored_size,
        seconds=seconds,
        manifest=manifest.own_key,
        reason=reason,
    )


def _left(lease: Lease, settings: Settings, component: str) -> list[str]:
    """Return why the engine may hold neither the old data nor the new, after an interrupted run."""
    text = lease.previous_operation
    interrupted, doubt = InterruptedRestore.read(text), doubt_of(text, settings, component)
    return [*([interrupted.words] if interrupted else []), *([str(doubt)] if doubt else [])]


def _writer(
    environment: Environment,
    context: RunContext,
    identity: str,
    earlier: tuple[Manifest, ...],
    lease: Lease,
    signing_key: Ed25519PrivateKey,
    slot: str,
) -> SetWriter:
    backup, store = environment.settings.backup, environment.store
    if backup.object_lock_days:
        store = store.locking(datetime.now(UTC) + timedelta(days=backup.object_lock_days))

    component = component_of(identity)
    prefix = set_prefix(environment.settings.environment, component, identity)
    return SetWriter(
        store,
        prefix,
        backup.age_recipients,
        signing_key,
        backup.spool,
        earlier,
        watched(Transfer(context.tell, context.clock), component),
        journal_on(lease),
        interval=is_interval(slot),
    )
