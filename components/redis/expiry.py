"""Tells keys and fields of hashes whose time has come from those that are lost, where a restored cluster has fewer.

A moment a little ahead divides them: what expires after it must be there as the backup has it, what expires before may
have gone while it was compared. How many of the backup's that are is read from the backup, and only where some are
missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from archive.manifest import Measure
from components.redis.fingerprint import PASSING

AHEAD_SECONDS, SKEW_SECONDS = 120.0, 60.0  # clocks of ours and of the members' may differ


def measure_until_due(
    measure: Callable[[int], list[Measure]],
    clock: Callable[[], float] = time.time,
) -> tuple[list[Measure], int]:
    """Measure, and be done with it before the moment comes that divides the keys.

    Args:
        measure: the live keys, those that expire after a moment apart; gets Unix time in ms.
        clock: of this machine.

    Returns:
        What was found, and the moment.
    """
    ahead = AHEAD_SECONDS
    while True:
        begun = clock()
        due = round((begun + ahead) * 1000)
        found = measure(due)
        took = clock() - begun
        if took + SKEW_SECONDS <= ahead:
            return found, due
        ahead = 2 * took + SKEW_SECONDS


def as_promised(
    found: Iterable[Measure],
    promised: Iterable[Measure],
    stored: Callable[[], Iterable[Measure]],
) -> list[Measure]:
    """The live measures in the fingerprint's words: what went by right counts as if it was there.

    Args:
        found: in the live cluster, with what expires later.
        promised: by the backup's fingerprint.
        stored: measures the backup's data in the same way.
    """
    there = {one.item: one for one in found}
    wanted = {measure.item: measure for measure in promised if measure.item in PASSING}
    fewer = {
        item: there.pop(later, None)
        for item, later in PASSING.items()
        if item in wanted and (item not in there or there[item].count < wanted[item].count)
    }
    in_set = {one.item: one for one in stored()} if fewer else {}
    for item, later in fewer.items():
        kept = in_set.get(PASSING[item])
        if _same(kept, later):
            there[item] = wanted[item]
        else:
            count = wanted[item].count - _count(kept) + _count(later)
            there[item] = wanted[item].model_copy(update={"count": count, "digest": ""})
    return [one for item, one in there.items() if item not in PASSING.values()]


def _same(one: Measure | None, other: Measure | None) -> bool:
    if one is None or other is None:
        return one is other
    return (one.count, one.digest) == (other.count, other.digest)


def _count(one: Measure | None) -> int:
    return one.count if one is not None else 0
