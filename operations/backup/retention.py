"""Decides which backups may be removed, lists them, and removes them only if asked to.

The object locks of kept backups are extended, so that each is locked for `backup.object_lock_days` at any time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from archive.backup.manifest import Manifest, component_of, set_prefix
from archive.catalogue.hidden import explain_hidden
from archive.retention import locks
from archive.retention.garbage import Garbage, collect_garbage, find_garbage
from archive.retention.locks import Extension
from archive.retention.policy import Verdict, decide
from archive.wal.bucket import list_wal
from archive.wal.names import COMPONENT as WAL
from archive.wal.names import WalObject
from archive.wal.retention import expired_wal
from cluster.lease import LeaseHeld, UnreadableNote
from config.text.printable import first_of
from errors import PermanentError
from operations.backup.component import selected
from operations.environment.environment import Environment
from operations.environment.leases import backup_lease
from operations.state.rebuild_state import is_of, unfinished_rebuild
from operations.state.restore_journal import interrupted_restore

LATE = timedelta(hours=30)  # locks are extended once a day
LISTED = 5  # manifests in one message


@dataclass(frozen=True)
class RetentionPlan:
    """The plan of a retention run.

    Attributes:
        verdicts: one per backup.
        waste: orphaned objects and uploads.
        hidden: id of a backup whose manifest was deleted → what to do; it is not removed.
        unread: key of a manifest that cannot be read → why; no backup of its component is removed.
        wal: stored WAL that no kept backup needs.
    """

    verdicts: tuple[Verdict, ...]
    waste: Garbage
    hidden: dict[str, str] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)
    wal: tuple[WalObject, ...] = ()

    @property
    def going(self) -> tuple[Manifest, ...]:
        """Backups to remove; those that depend on others come first."""
        return tuple(v.manifest for v in reversed(self.verdicts) if not v.kept)

    @property
    def staying(self) -> tuple[Manifest, ...]:
        """Backups to keep, including those that they depend on."""
        return tuple(v.manifest for v in self.verdicts if v.kept)

    @property
    def locked(self) -> dict[str, str]:
        """Id → prefix of the backups to keep locked: kept ones, and those that they depend on, readable or not."""
        prefixes = {manifest.id: manifest.prefix for manifest in self.staying}
        for manifest in self.staying:
            for needed in manifest.needs:
                prefixes[needed] = set_prefix(manifest.environment, manifest.component, needed)
        return prefixes

    @property
    def problem(self) -> str:
        """Why the run did not do everything; "" if it did."""
        if not self.unread:
            return ""
        names = ", ".join(dict.fromkeys(_component_of(key) for key in self.unread))
        listed = "; ".join(first_of([*self.unread.values()], LISTED))
        return f"no backup of {names} is removed, because manifests cannot be read: {listed}"


def plan_retention(
    environment: Environment, only: Iterable[str] = (), now: datetime | None = None
) -> RetentionPlan:
    """Decide about all backups of some components.

    An unreadable manifest keeps all backups of its component, because it may depend on any; others are handled as
    usual.

    Raises:
        TemporaryError, PermanentError: the bucket or the cluster does not answer.
    """
    verdicts, unread = _decide(environment, selected(only))
    grace = timedelta(hours=environment.settings.backup.retention.grace_hours)
    before = (now or datetime.now(UTC)) - grace
    waste = find_garbage(environment.store, environment.settings.environment, before)
    wal = _expired_wal(environment, verdicts, unread, before)
    return RetentionPlan(verdicts, waste, explain(environment, waste), unread, wal)


def explain(environment: Environment, waste: Garbage) -> dict[str, str]:
    """Return the backups whose manifest was deleted: id → what happened, and what to do.

    Raises:
        TemporaryError: the store is away.
    """
    signers = environment.settings.backup.signers
    return {
        hidden.id: explain_hidden(environment.store, hidden, signers) for hidden in waste.hidden
    }


def apply_retention(environment: Environment, plan: RetentionPlan) -> dict[str, str]:
    """Remove backups: of each one the manifest first, so that a half-removed one is never listed.

    No backup of the component runs at the same time, which could depend on a removed one; a backup that is needed
    since the plan was made is kept.

    Returns:
        Backups that could not be removed yet → why: object lock, or the component is being backed up.
    """
    held: dict[str, str] = {}
    for component in dict.fromkeys(manifest.component for manifest in plan.going):
        removable = [manifest for manifest in plan.going if manifest.component == component]
        name = backup_lease(component)
        try:
            with environment.lease(name, "retention") as lease:
                reasons = {v.manifest.id: v.kept for v in _decide(environment, [component])[0]}
                for manifest in removable:
                    lease.ensure()
                    stays = reasons.get(manifest.id, ("its manifest can no longer be read",))
                    why = "; ".join(stays) or _remove(environment, manifest)
                    if why:
                        held[manifest.id] = why
        except LeaseHeld as exc:
            held.update({manifest.id: str(exc) for manifest in removable})
    collect_garbage(environment.store, plan.waste)
    if plan.wal and not any(component_of(identity) == WAL for identity in held):
        _remove_wal(environment, plan.wal)
    return held


def extend_locks(
    environment: Environment, plan: RetentionPlan, now: datetime | None = None
) -> Extension:
    """Lock every kept backup for `backup.object_lock_days` from now; a lock cannot be shortened.

    Raises:
        TemporaryError: the store is away.
    """
    days = environment.settings.backup.object_lock_days
    if not days:
        return Extension()
    until = (now or datetime.now(UTC)) + timedelta(days=days)
    return locks.extend(environment.store, plan.locked, until)


def short_locks(
    environment: Environment, plan: RetentionPlan, now: datetime | None = None
) -> dict[str, datetime | None]:
    """Return kept backups whose lock was not extended for more than a day → until when they are locked.

    Raises:
        TemporaryError, PermanentError: the store does not answer.
    """
    days = environment.settings.backup.object_lock_days
    if not days:
        return {}
    least = (now or datetime.now(UTC)) + timedelta(days=days) - LATE
    dates = locks.shortest(environment.store, plan.staying)
    return {name: date for name, date in dates.items() if date is None or date < least}


# ---------------------------------------------------------------------- inside
def _decide(
    environment: Environment, components: Iterable[str]
) -> tuple[tuple[Verdict, ...], dict[str, str]]:
    """Return a verdict on each backup of some components; and key of each unreadable manifest → why."""
    catalogue = environment.catalogue(components)
    unread: dict[str, int] = Counter(_component_of(key) for key in catalogue.broken)
    verdicts: list[Verdict] = []
    for name in components:
        sets = catalogue.of(name)
        verdicts_by_id = {manifest.id: catalogue.verdict(manifest.id) for manifest in sets}
        needed = _wanted(environment, name, sets)
        for verdict in decide(sets, environment.settings.backup.retention, verdicts_by_id, needed):
            if unread[name] and not verdict.kept:
                why = f"{unread[name]} manifests of {name} cannot be read; their backups may depend on it"
                verdict = replace(verdict, kept=(why,))
            verdicts.append(verdict)
    return tuple(verdicts), catalogue.broken


def _expired_wal(
    environment: Environment,
    verdicts: Iterable[Verdict],
    unread: Iterable[str],
    before: datetime,
) -> tuple[WalObject, ...]:
    """Return the WAL that no kept backup needs; none if a backup of PostgreSQL cannot be read."""
    kept = [v.manifest for v in verdicts if v.manifest.component == WAL and v.kept]
    if not kept or any(_component_of(key) == WAL for key in unread):
        return ()
    settings = environment.settings
    listing = list_wal(environment.store, settings.environment, settings.backup.signers)
    return expired_wal(listing, kept, before)


def _remove_wal(environment: Environment, wal: Iterable[WalObject]) -> None:
    """Remove WAL unless a backup needs it since the plan was made; the oldest first, so that no hole is left."""
    verdicts, unread = _decide(environment, [WAL])
    expired = set(_expired_wal(environment, verdicts, unread, datetime.now(UTC)))
    for one in sorted(expired.intersection(wal), key=lambda item: (item.start, item.end)):
        with suppress(PermanentError):  # an object lock holds it; the next run tries again
            environment.store.purge(one.key)


def _component_of(key: str) -> str:
    """Whose manifest an object is."""
    return key.split("/")[1]


def _wanted(environment: Environment, component: str, sets: Iterable[Manifest]) -> dict[str, str]:
    """Return backups that an unfinished restore or rebuild needs → why; all of them if that is unknown."""
    needed: dict[str, str] = {}
    try:
        restore = interrupted_restore(environment.kube, environment.settings, component)
        rebuild = unfinished_rebuild(environment.kube, environment.settings, component)
    except UnreadableNote as exc:
        return {manifest.id: str(exc) for manifest in sets}
    if restore is not None:
        needed |= dict.fromkeys(restore.safety, "holds the data from before an interrupted restore")
        needed[restore.backup] = "its restore was interrupted"
    if rebuild is not None:
        own = {manifest.id for manifest in sets if is_of(manifest.slot, rebuild.id)}
        needed |= dict.fromkeys(own, f"the last backup before the rebuild {rebuild.id}")
        if rebuild.set:
            needed[rebuild.set] = f"the rebuild {rebuild.id} restores it"
    return needed


def _remove(environment: Environment, manifest: Manifest) -> str:
    """Remove one backup; returns why that failed, "" if it did not."""
    try:
        environment.store.purge(manifest.own_key)
    except PermanentError as exc:
        return str(exc)
    for key in dict.fromkeys(
        version.key for version in environment.store.versions(manifest.prefix)
    ):
        with suppress(
            PermanentError
        ):  # locked for some seconds more: without a manifest it is waste
            environment.store.purge(key)
    return ""
