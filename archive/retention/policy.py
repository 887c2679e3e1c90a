"""Decides which backups may be removed: grandfather-father-son for each component, by the recorded start of the run.

Names and an engine's own numbers are not used: they start again after an upgrade, and tools that sort by them have
deleted new backups and kept old ones. Backups between two nightly ones are kept for some hours; they stand for a period
only if it has no other complete backup. If a period has no complete backup, its last partial one is kept. A kept backup
keeps all backups that it depends on. The newest complete backup and the last verified one are always kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from archive.backup.manifest import Manifest
from config.sections.backups import RetentionSettings

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
        manifest: the backup's manifest.
        kept: the reasons to keep it; without one it may be removed.
    """

    manifest: Manifest
    kept: tuple[str, ...]


def decide(
    sets: Iterable[Manifest],
    rules: RetentionSettings,
    verdicts: Mapping[str, str] | None = None,
    in_use: Mapping[str, str] | None = None,
) -> list[Verdict]:
    """Decide about the backups of one component.

    Args:
        sets: backups of that component.
        rules: how many of each age.
        verdicts: id of a backup → `pass` if its restore was verified, `partial` if that of a partial backup was.
        in_use: id of a backup that is in use now → why.

    Returns:
        A verdict for each, the oldest first.
    """
    ordered = sorted(sets, key=lambda manifest: manifest.begun)
    reasons: dict[str, list[str]] = {manifest.id: [] for manifest in ordered}
    complete = [manifest for manifest in ordered if manifest.outcome == "complete"]
    for manifest in ordered:
        if manifest.interval and ordered[-1].begun - manifest.begun <= timedelta(
            hours=rules.recent_hours
        ):
            reasons[manifest.id].append(f"of the last {rules.recent_hours} hours")
    for name, period, key in PERIODS:
        number: int = getattr(rules, name)
        for manifest in _last(_nightly_first(complete, key), key, number):
            reasons[manifest.id].append(f"last of its {period}")
        periods = {key(manifest.begun) for manifest in complete}
        for manifest in _last(ordered, key, number):
            if key(manifest.begun) not in periods:
                reasons[manifest.id].append(f"last of its {period}, which has no complete backup")
    if complete:
        reasons[complete[-1].id].append("newest complete backup")
    for verdict, reason in (
        ("pass", "last verified backup"),
        ("partial", "last partly verified backup"),
    ):
        verified = [
            manifest for manifest in ordered if (verdicts or {}).get(manifest.id) == verdict
        ]
        if verified:
            reasons[verified[-1].id].append(reason)
    if ordered and (not complete or ordered[-1].begun > complete[-1].begun):
        reasons[ordered[-1].id].append("newest backup")  # a partial one
    for identity, why in (in_use or {}).items():
        if identity in reasons:
            reasons[identity].append(why)
    for manifest in reversed(ordered):  # newest first: a backup needs older ones only
        if reasons[manifest.id]:
            for needed in manifest.needs:
                if needed in reasons:
                    reasons[needed].append(f"needed by {manifest.id}")
    return [Verdict(manifest, tuple(dict.fromkeys(reasons[manifest.id]))) for manifest in ordered]


# ---------------------------------------------------------------------- inside
def _nightly_first(sets: Iterable[Manifest], key: Period) -> list[Manifest]:
    """Return backups without those between two nightly ones, except where a period has only such."""
    ordered = list(sets)
    nightly = {key(manifest.begun) for manifest in ordered if not manifest.interval}
    return [one for one in ordered if not one.interval or key(one.begun) not in nightly]


def _last(sets: Iterable[Manifest], key: Period, number: int) -> list[Manifest]:
    """Return the last backup of each of the last periods that have one."""
    last: dict[object, Manifest] = {key(manifest.begun): manifest for manifest in sets}
    return list(last.values())[-number:] if number else []
