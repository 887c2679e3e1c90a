"""Which earlier sets an incremental one may rest on."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from archive.manifest import Manifest

NIGHT = timedelta(hours=1)  # nights are not to the minute


def open_chain(
    earlier: Iterable[Manifest], full_every_days: int, now: datetime | None = None
) -> tuple[Manifest, ...]:
    """The newest whole set with all that it needs, if a full one is not due.

    Args:
        earlier: a component's committed sets that did not fail their proof, the oldest first.
        full_every_days: days after which a chain ends.
        now: the present by default.

    Returns:
        The full set first, the newest last; nothing where the next set must be full, since it is time, or since one
        of the chain was deleted or cannot be read, or has failed its proof.
    """
    whole = {one.id: one for one in earlier if one.outcome == "complete"}
    last = next(reversed(whole.values()), None)
    if last is None or any(needed not in whole for needed in last.needs):
        return ()
    chain = (*(whole[needed] for needed in last.needs), last)
    due = chain[0].begun + timedelta(days=full_every_days) - NIGHT
    return () if (now or datetime.now(UTC)) >= due else chain
