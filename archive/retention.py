"""Which sets may go: grandfather, father, son, for each component by itself, by the recorded start of the run.

Not by name or by an engine's own numbers: those start anew after an upgrade, and tools that sort by them have deleted
the new backups and kept the old. Where a period has no whole set, as when an engine holds something that no backup
takes, its last partial one stays: it has everything else. What is kept keeps what it needs; the newest whole set and
the last proven one stay in any case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from archive.manifest import Manifest
from config.backups import RetentionSettings

Period = Callable[[datetime], object]
PERIODS: tuple[tuple[str, str, Period], ...] = (
    ("daily", "day", lambda at: at.date()),
    ("weekly", "week", lambda at: at.isocalendar()[:2]),
    ("monthly", "month", lambda at: (at.year, at.month)),
    ("yearly", "year", lambda at: at.year),
)


@dataclass(frozen=True)
class Verdict:
    """What becomes of a set.

    Attributes:
        manifest: of the set.
        kept: why it stays, one reason each; it goes if there is none.
    """

    manifest: Manifest
    kept: tuple[str, ...]


def decide(
    sets: Iterable[Manifest],
    rules: RetentionSettings,
    verdicts: Mapping[str, str] | None = None,
    wanted: Mapping[str, str] | None = None,
) -> list[Verdict]:
    """Decide about the sets of one component.

    Args:
        sets: of that component.
        rules: how many of which age.
        verdicts: id of a set → `pass` if its restore was proven, `partial` if that of all that it has was.
        wanted: id of a set that somebody needs now → why.

    Returns:
        A verdict each, the oldest first.
    """
    ordered = sorted(sets, key=lambda one: one.begun)
    reasons: dict[str, list[str]] = {one.id: [] for one in ordered}
    whole = [one for one in ordered if one.outcome == "complete"]
    for name, period, key in PERIODS:
        number: int = getattr(rules, name)
        for one in _last(whole, key, number):
            reasons[one.id].append(f"last of its {period}")
        had = {key(one.begun) for one in whole}
        for one in _last(ordered, key, number):
            if key(one.begun) not in had:
                reasons[one.id].append(f"last of its {period}, which has no whole one")
    if whole:
        reasons[whole[-1].id].append("newest whole set")
    for verdict, words in (("pass", "last proven set"), ("partial", "last set proven in part")):
        shown = [one for one in ordered if (verdicts or {}).get(one.id) == verdict]
        if shown:
            reasons[shown[-1].id].append(words)
    if ordered and (not whole or ordered[-1].begun > whole[-1].begun):
        reasons[ordered[-1].id].append("newest set")  # partial, and better than nothing
    for identity, why in (wanted or {}).items():
        if identity in reasons:
            reasons[identity].append(why)
    for one in reversed(ordered):  # needs are older, so those of a kept set are kept in turn
        if reasons[one.id]:
            for needed in one.needs:
                if needed in reasons:
                    reasons[needed].append(f"needed by {one.id}")
    return [Verdict(one, tuple(dict.fromkeys(reasons[one.id]))) for one in ordered]


# ---------------------------------------------------------------------- inside
def _last(sets: Iterable[Manifest], key: Period, number: int) -> list[Manifest]:
    """The last set of each of the last periods that have one."""
    last: dict[object, Manifest] = {key(one.begun): one for one in sets}
    return list(last.values())[-number:] if number else []
