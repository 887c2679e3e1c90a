"""Distinguishes expired keys and hash fields from lost ones, if a restored cluster has fewer than the backup.

The comparison uses a moment shortly in the future. Items that expire after it must all exist. Items that expire before
it may have expired during the comparison. Their number is read from the backup, only if some are missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from archive.backup.manifest import Measure
from components.redis.fingerprint import PASSING

AHEAD_SECONDS, SKEW_SECONDS = (
    120.0,
    60.0,
)  # the clocks of this machine and of the members may differ


def measure_until_due(
    measure: Callable[[int], list[Measure]],
    clock: Callable[[], float] = time.time,
) -> tuple[list[Measure], int]:
    """Measure the live keys, and finish before the moment that separates early from late expiries.

    Args:
        measure: measures the live keys, with those that expire after a moment counted separately; called with that
            moment as Unix time in ms.
        clock: this machine's clock, in seconds.

    Returns:
        The measures, and the moment as Unix time in ms.
    """
    margin = AHEAD_SECONDS
    while True:
        begun = clock()
        due = round((begun + margin) * 1000)
        measures = measure(due)
        duration = clock() - begun
        if duration + SKEW_SECONDS <= margin:
            return measures, due
        margin = 2 * duration + SKEW_SECONDS


def as_promised(
    live_measures: Iterable[Measure],
    fingerprint: Iterable[Measure],
    stored: Callable[[], Iterable[Measure]],
) -> list[Measure]:
    """The live measures, as they compare with the fingerprint: items that have expired count as present.

    Args:
        live_measures: of the live cluster, with separate measures of items that expire later.
        fingerprint: the backup's fingerprint.
        stored: measures the backup's data in the same way.
    """
    live = {measure.item: measure for measure in live_measures}
    expected = {measure.item: measure for measure in fingerprint if measure.item in PASSING}
    reduced = {
        item: live.pop(later_item, None)
        for item, later_item in PASSING.items()
        if item in expected and (item not in live or live[item].count < expected[item].count)
    }
    in_backup = {measure.item: measure for measure in stored()} if reduced else {}
    for item, live_measure in reduced.items():
        backup_measure = in_backup.get(PASSING[item])
        if _same(backup_measure, live_measure):
            live[item] = expected[item]
        else:
            count = expected[item].count - _count(backup_measure) + _count(live_measure)
            live[item] = expected[item].model_copy(update={"count": count, "digest": ""})
    return [measure for item, measure in live.items() if item not in PASSING.values()]


def _same(first: Measure | None, second: Measure | None) -> bool:
    if first is None or second is None:
        return first is second
    return (first.count, first.digest) == (second.count, second.digest)


def _count(measure: Measure | None) -> int:
    return measure.count if measure is not None else 0
