"""Compares a restored engine with its source: the fingerprint of the manifest, item by item."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet

from archive.evidence import Difference
from archive.manifest import Measure
from archive.names import short_name
from config.printable import first_of

SHOWN = 10  # names of a kind
SHOWN_CHARACTERS = 200  # of a name
# Of what moved while it was stored, some may have come and gone between the two counts of it.
CHURN = 0.01


def compare(
    wanted: Iterable[Measure], found: Mapping[str, list[Measure]]
) -> tuple[Difference, ...]:
    """Return the differences.

    Args:
        wanted: the manifest's fingerprint.
        found: measures of each scratch engine, by its name.
    """
    table = {(one.unit, one.item): one for one in wanted}
    differences = []
    for name, measures in found.items():
        where = f"{name}: " if name else ""
        there = {(one.unit, one.item): one for one in measures}
        for key, one in table.items():
            what = _difference(one, there.get(key))
            if what:
                differences.append(Difference(unit=one.unit, item=one.item, what=where + what))
        for key, extra in there.items():
            if key not in table and extra.count:
                what = f"{where}{extra.count} were restored that the source did not have"
                differences.append(Difference(unit=extra.unit, item=extra.item, what=what))
    return tuple(differences)


def told(differences: tuple[Difference, ...], shown: int = 5) -> str:
    """The first differences, as text."""
    return "; ".join(first_of([f"{d.unit}, {d.item}: {d.what}" for d in differences], shown))


def _difference(wanted: Measure, found: Measure | None) -> str:
    if wanted.until is not None:
        return _outside(wanted.count, wanted.until, found.count if found else 0)
    if found is not None and found.until is not None:
        if found.count <= wanted.count <= found.until:  # clients have taken the others since
            return ""
        return f"from {found.count} to {found.until} instead of {wanted.count}"
    if found is None:
        return f"all {wanted.count} are missing" if wanted.count else ""
    if found.count != wanted.count:
        return f"{found.count} instead of {wanted.count}{_by_name(wanted, found)}"
    if wanted.digest and found.digest != wanted.digest:
        return f"same number ({wanted.count}), but different contents{_by_name(wanted, found)}"
    return ""


def _outside(before: int, after: int, found: int) -> str:
    """Whether the number is possible at any moment between two counts."""
    low, high = sorted((before, after))
    slack = math.ceil(high * CHURN)
    if max(low - slack, min(low, 1)) <= found <= high + slack:
        return ""
    return f"{found}, but the source held {before} before and {after} after it was stored"


def _by_name(wanted: Measure, found: Measure) -> str:
    """The names of different items, if the manifest has them."""
    if not wanted.names and not found.names:
        return ""
    was, there = wanted.names, found.names
    kinds = {
        "missing": was.keys() - there.keys(),
        "other": {name for name in was.keys() & there.keys() if was[name] != there[name]},
        "more": there.keys() - was.keys(),
    }
    words = [f"{kind} {_listed(names)}" for kind, names in kinds.items() if names]
    return f": {', '.join(words)}" if words else ""


def _listed(names: AbstractSet[str]) -> str:
    return " ".join(first_of([short_name(one, SHOWN_CHARACTERS) for one in sorted(names)], SHOWN))
