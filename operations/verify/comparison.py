"""Compares a restored engine with its source: the fingerprint of the manifest, item by item."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet

from archive.backup.manifest import Measure
from archive.backup.names import short_name
from archive.evidence.verdicts import Difference
from config.text.printable import first_of

SHOWN = 10  # names of a kind
SHOWN_CHARACTERS = 200  # of a name
# Of what moved while it was stored, some may have come and gone between the two counts of it.
CHURN = 0.01


def compare(
    expected: Iterable[Measure], restored: Mapping[str, list[Measure]]
) -> tuple[Difference, ...]:
    """Return the differences.

    Args:
        expected: the manifest's fingerprint.
        restored: measures of each scratch engine, by its name.
    """
    source_measures = {(measure.unit, measure.item): measure for measure in expected}
    differences = []
    for name, measures in restored.items():
        where = f"{name}: " if name else ""
        engine_measures = {(measure.unit, measure.item): measure for measure in measures}
        for key, measure in source_measures.items():
            what = _difference(measure, engine_measures.get(key))
            if what:
                differences.append(
                    Difference(unit=measure.unit, item=measure.item, what=where + what)
                )
        for key, extra in engine_measures.items():
            if key not in source_measures and extra.count:
                what = f"{where}{extra.count} were restored that the source did not have"
                differences.append(Difference(unit=extra.unit, item=extra.item, what=what))
    return tuple(differences)


def describe(differences: tuple[Difference, ...], limit: int = 5) -> str:
    """The first differences, as text."""
    return "; ".join(first_of([f"{d.unit}, {d.item}: {d.what}" for d in differences], limit))


def _difference(expected: Measure, restored: Measure | None) -> str:
    if expected.until is not None:
        return _outside(expected.count, expected.until, restored.count if restored else 0)
    if restored is not None and restored.until is not None:
        if (
            restored.count <= expected.count <= restored.until
        ):  # clients have taken the others since
            return ""
        return f"from {restored.count} to {restored.until} instead of {expected.count}"
    if restored is None:
        return f"all {expected.count} are missing" if expected.count else ""
    if restored.count != expected.count:
        return f"{restored.count} instead of {expected.count}{_by_name(expected, restored)}"
    if expected.digest and restored.digest != expected.digest:
        return (
            f"same number ({expected.count}), but different contents{_by_name(expected, restored)}"
        )
    return ""


def _outside(before: int, after: int, count: int) -> str:
    """Whether the number is possible at any moment between two counts."""
    low, high = sorted((before, after))
    slack = math.ceil(high * CHURN)
    if max(low - slack, min(low, 1)) <= count <= high + slack:
        return ""
    return f"{count}, but the source held {before} before and {after} after it was stored"


def _by_name(expected: Measure, restored: Measure) -> str:
    """The names of different items, if the manifest has them."""
    if not expected.names and not restored.names:
        return ""
    expected_names, restored_names = expected.names, restored.names
    kinds = {
        "missing": expected_names.keys() - restored_names.keys(),
        "other": {
            name
            for name in expected_names.keys() & restored_names.keys()
            if expected_names[name] != restored_names[name]
        },
        "more": restored_names.keys() - expected_names.keys(),
    }
    differences = [f"{kind} {_listed(names)}" for kind, names in kinds.items() if names]
    return f": {', '.join(differences)}" if differences else ""


def _listed(names: AbstractSet[str]) -> str:
    return " ".join(first_of([short_name(name, SHOWN_CHARACTERS) for name in sorted(names)], SHOWN))
