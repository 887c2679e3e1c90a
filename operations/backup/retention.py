"""Decides which backups may be removed, lists them, and removes them only if asked to.

The object locks of kept backups are extended, so that each is locked for `backup.object_lock_days` at any time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from archive import locks
from archive.garbage import Garbage, collect_garbage, find_garbage
from archive.hidden import explain_hidden
from archive.locks import Extension
from archive.manifest import Manifest, set_prefix
from archive.retention import Verdict, decide
from cluster.lease import LeaseHeld, UnreadableNote
from config.printable import first_of
from errors import PermanentError
from operations.backup.component import selected
from operations.environment.environment import Environment
from operations.environment.leases import backup_lease
from operations.state.rebuild_state import is_of, unfinished
from operations.state.restore_journal import broken_off

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
    """

    verdicts: tuple[Verdict, ...]
    waste: Garbage
    hidden: dict[str, str] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)

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
        found = {one.id: one.prefix for one in self.staying}
        for one in self.staying:
            for needed in one.needs:
                found[needed] = set_prefix(one.environment, one.component, needed)
        return found

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
    return RetentionPlan(verdicts, waste, explain(environment, waste), unread)


def explain(environment: Environment, waste: Garbage) -> dict[str, str]:
    """Return the backups whose manifest was deleted: id → what happened, and what to do.

    Raises:
        TemporaryError: the store is away.
    """
    signers = environment.settings.backup.signers
    return {one.id: explain_hidden(environment.store, one, signers) for one in waste.hidden}


def apply_retention(environment: Environment, plan: RetentionPlan) -> dict[str, str]:
    """Remove backups: of each one the manifest first, so that a half-removed one is never listed.

    No backup of the component runs at the same time, which could depend on a removed one; a backup that is needed
    since the plan was made is kept.

    Returns:
        Backups that could not be removed yet → why: object lock, or the component is being backed up.
    """
    held: dict[str, str] = {}
    for component in dict.fromkeys(one.component for one in plan.going):
        mine = [one for one in plan.going if one.component == component]
        name = backup_lease(component)
        try:
            with environment.lease(name, "retention") as lease:
                now = {v.manifest.id: v.kept for v in _decide(environment, [component])[0]}
                for manifest in mine:
                    lease.ensure()
                    stays = now.get(manifest.id, ("its manifest can no longer be read",))
                    why = "; ".join(stays) or _remove(environment, manifest)
                    if why:
                        held[manifest.id] = why
        except LeaseHeld as exc:
            held.update({one.id: str(exc) for one in mine})
    collect_garbage(environment.store, plan.waste)
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
    found = locks.shortest(environment.store, plan.staying)
    return {name: date for name, date in found.items() if date is None or date < least}


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
        shown = {one.id: catalogue.verdict(one.id) for one in sets}
        wanted = _wanted(environment, name, sets)
        for one in decide(sets, environment.settings.backup.retention, shown, wanted):
            if unread[name] and not one.kept:
                why = f"{unread[name]} manifests of {name} cannot be read; their backups may depend on it"
                one = replace(one, kept=(why,))
            verdicts.append(one)
    return tuple(verdicts), catalogue.broken


def _component_of(key: str) -> str:
    """Whose manifest an object is."""
    return key.split("/")[1]


def _wanted(environment: Environment, component: str, sets: Iterable[Manifest]) -> dict[str, str]:
    """Return backups that an unfinished restore or rebuild needs → why; all of them if that is unknown."""
    found: dict[str, str] = {}
    try:
        restore = broken_off(environment.kube, environment.settings, component)
        rebuild = unfinished(environment.kube, environment.settings, component)
    except UnreadableNote as exc:
        return {one.id: str(exc) for one in sets}
    if restore is not None:
        found |= dict.fromkeys(restore.safety, "holds the data from before an interrupted restore")
        found[restore.backup] = "its restore was interrupted"
    if rebuild is not None:
        mine = {one.id for one in sets if is_of(one.slot, rebuild.id)}
        found |= dict.fromkeys(mine, f"the last backup before the rebuild {rebuild.id}")
        if rebuild.set:
            found[rebuild.set] = f"the rebuild {rebuild.id} restores it"
    return found


def _remove(environment: Environment, manifest: Manifest) -> str:
    """Remove one backup; returns why that failed, "" if it did not."""
    try:
        environment.store.purge(manifest.own_key)
    except PermanentError as exc:
        return str(exc)
    for key in dict.fromkeys(one.key for one in environment.store.versions(manifest.prefix)):
        with suppress(
            PermanentError
        ):  # locked for some seconds more: without a manifest it is waste
            environment.store.purge(key)
    return ""
