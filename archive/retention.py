"""Which backups may be removed: grandfather, father, son, per component, by the recorded start of the run.

Not by name or by an engine's own numbers: those start again after an upgrade, and tools that sort by them have deleted
the new backups and kept the old. If a period has no complete backup, for example because an engine holds an object that
cannot be backed up, its last partial one is kept: it has everything else. A kept backup keeps what it depends on. The
newest complete backup and the last verified one are always kept.
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
    """The decision on a backup.

    Attributes:
        manifest: of the backup.
        kept: the reasons to keep it; it may be removed if there is none.
    """

    manifest: Manifest
    kept: tuple[str, ...]


def decide(
    sets: Iterable[Manifest],
    rules: RetentionSettings,
    verdicts: Mapping[str, str] | None = None,
    wanted: Mapping[str, str] | None = None,
) -> list[Verdict]:
    """Decide about the backups of one component.

    Args:
        sets: backups of that component.
        rules: how many of each age.
        verdicts: id of a backup → `pass` if its restore was verified, `partial` if that of a partial backup was.
        wanted: id of a backup that is in use now → why.

    Returns:
        A verdict for each, the oldest first.
    """
    ordered = sorted(sets, key=lambda one: one.begun)
    reasons: dict[str, list[str]] = {manifest.id: [] for manifest in ordered}
    whole = [manifest for manifest in ordered if manifest.outcome == "complete"]
    for name, period, key in PERIODS:
        number: int = getattr(rules, name)
        for manifest in _last(whole, key, number):
            reasons[manifest.id].append(f"last of its {period}")
        had = {key(manifest.begun) for manifest in whole}
        for manifest in _last(ordered, key, number):
            if key(manifest.begun) not in had:
                reasons[manifest.id].append(f"last of its {period}, which has no complete backup")
    if whole:
        reasons[whole[-1].id].append("newest complete backup")
    for verdict, words in (
        ("pass", "last verified backup"),
        ("partial", "last partly verified backup"),
    ):
        shown = [manifest for manifest in ordered if (verdicts or {}).get(manifest.id) == verdict]
        if shown:
            reasons[shown[-1].id].append(words)
    if ordered and (not whole or ordered[-1].begun > whole[-1].begun):
        reasons[ordered[-1].id].append("newest set")  # partial, and better than nothing
    for identity, why in (wanted or {}).items():
        if identity in reasons:
            reasons[identity].append(why)
    for manifest in reversed(ordered):  # needs are older, so those of a kept set are kept in turn
        if reasons[manifest.id]:
            for needed in manifest.needs:
                if needed in reasons:
                    reasons[needed].append(f"needed by {manifest.id}")
    return [Verdict(manifest, tuple(dict.fromkeys(reasons[manifest.id]))) for manifest in ordered]


# ---------------------------------------------------------------------- inside
def _last(sets: Iterable[Manifest], key: Period, number: int) -> list[Manifest]:
    """Return the last backup of each of the last periods that have one."""
    last: dict[object, Manifest] = {key(manifest.begun): manifest for manifest in sets}
    return list(last.values())[-number:] if number else []
