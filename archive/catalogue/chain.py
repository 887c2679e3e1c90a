"""Finds the earlier backups that an incremental backup can depend on."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import takewhile

from archive.backup.manifest import Manifest

NIGHT = timedelta(hours=1)  # tolerance: nightly runs do not start at the same minute


def dependable(
    earlier: Sequence[Manifest], recipients: Collection[str], cluster: str
) -> tuple[Manifest, ...]:
    """Return the backups since the last one with other recipients or of another cluster: a new one may need these.

    A backup that depends on one with other recipients could only be restored with the keys of both.

    Args:
        earlier: a component's backups, the oldest first.
        recipients: age public keys of the new backup.
        cluster: uid of the engines' namespace.
    """
    newest_first = takewhile(
        lambda one: set(one.recipients) == set(recipients) and one.cluster == cluster,
        reversed(earlier),
    )
    return tuple(reversed(list(newest_first)))


def nightly(backups: Sequence[Manifest]) -> tuple[Manifest, ...]:
    """Return backups without those between two nightly ones, unless there are no others."""
    return tuple(one for one in backups if not one.interval) or tuple(backups)


def open_chain(
    earlier: Iterable[Manifest],
    full_every_days: int,
    now: datetime | None = None,
    *,
    interval: bool = False,
) -> tuple[Manifest, ...]:
    """Return the newest complete backup and all that it depends on, unless a full backup is due.

    Args:
        earlier: a component's committed backups whose verification did not fail, the oldest first.
        full_every_days: days after which a chain ends.
        now: the present by default.
        interval: the next backup is one between two nightly ones. It leaves the full backup to the night: only if that
            is late, it is a full one.

    Returns:
        The full backup first, the newest last. Empty if the next backup must be full: because it is due, or because a
        backup of the chain was deleted, cannot be read, or failed its verification.
    """
    complete = {manifest.id: manifest for manifest in earlier if manifest.outcome == "complete"}
    newest = next(reversed(complete.values()), None)
    if newest is None or any(needed not in complete for needed in newest.needs):
        return ()
    chain = (*(complete[needed] for needed in newest.needs), newest)
    due = chain[0].begun + timedelta(days=full_every_days) + (NIGHT if interval else -NIGHT)
    return () if (now or datetime.now(UTC)) >= due else chain
