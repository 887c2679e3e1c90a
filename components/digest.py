"""Order-independent counts and digests: hashes are added and XORed, so that a restore may return items in any order.

The sum detects duplicates, the XOR detects exchanged items; both have 128 bits.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any, Literal

from archive.backup.manifest import Measure
from archive.backup.names import NAME_CHARACTERS, short_name
from errors import PermanentError

MASK = (1 << 128) - 1
# Beyond that many definitions of a kind the manifest counts them only.
NAMED = 500


class Digest:
    """A count and a digest that do not depend on order.

    Attributes:
        count: of the items added.
    """

    def __init__(self) -> None:
        self.count = self._total = self._crossed = 0
        self._names: dict[str, str] = {}

    def add(self, number: int) -> None:
        """Add an item by its hash of 128 bits."""
        self.count += 1
        self._total = (self._total + number) & MASK
        self._crossed ^= number

    def add_document(self, document: Any, name: str = "") -> None:
        """Add an item by the hash of its JSON; a definition with its name.

        Raises:
            PermanentError: it holds a value that JSON cannot express.
        """
        hashed = hash_of(document)
        self.add(hashed)
        if name and self.count <= NAMED:
            self._names[short_name(name, NAME_CHARACTERS)] = f"{hashed:032x}"[:8]

    def add_all(self, other: Digest) -> None:
        """Add all items of another digest; names are left out."""
        self.count += other.count
        self._total = (self._total + other._total) & MASK
        self._crossed ^= other._crossed

    @property
    def text(self) -> str:
        """Sum and XOR in hexadecimal; "" if empty."""
        return f"{self._total:032x}/{self._crossed:032x}" if self.count else ""

    def measure(
        self, unit: str, item: str, origin: Literal["source", "artefact"] = "source"
    ) -> Measure:
        """The measure, as the manifest has it."""
        names = self._names if len(self._names) == self.count else {}
        return Measure(
            unit=unit, item=item, count=self.count, digest=self.text, origin=origin, names=names
        )


def hash_of(document: Any) -> int:
    """The hash of 128 bits by which `Digest.add_document` adds a document.

    Raises:
        PermanentError: it holds a value that JSON cannot express.
    """
    return int.from_bytes(blake2b(_text(document), digest_size=16).digest(), "big")


def few(names: Mapping[str, str]) -> dict[str, str]:
    """Names for the manifest: none if there are too many, long ones shortened."""
    if len(names) > NAMED:
        return {}
    return {short_name(name, NAME_CHARACTERS): text for name, text in names.items()}


def part(document: Any) -> str:
    """Part of a document's digest: enough to detect a change.

    Raises:
        PermanentError: it holds a value that JSON cannot express.
    """
    return blake2b(_text(document), digest_size=4).hexdigest()


def expiring(unit: str, item: str, count: int) -> Measure:
    """The measure of items that expire: a restore may hold any number of them up to what the source held.

    Every engine counts such items separately, so that all others keep an exact count and digest.

    Args:
        unit: database, shard, stream, bucket or collection.
        item: name of that kind of item, `… that expire`.
        count: number of items that the source held.
    """
    return Measure(unit=unit, item=item, count=count, until=0, origin="source")


def settled(before: Iterable[Measure], after: Iterable[Measure]) -> list[Measure]:
    """Combine two measures of an engine that has no exact recovery point.

    Args:
        before: measures before the backup.
        after: measures after it.

    Returns:
        Unchanged measures as they are; changed ones with both counts and no digest, because it is unknown which state
        was stored.
    """
    before_by_key = {(measure.unit, measure.item): measure for measure in before}
    after_by_key = {(measure.unit, measure.item): measure for measure in after}
    results = []
    for key, latest in {**after_by_key, **before_by_key}.items():
        old, new = before_by_key.get(key), after_by_key.get(key)
        if old == new:
            results.append(latest)
            continue
        counts = {"count": old.count if old else 0, "until": new.count if new else 0}
        results.append(latest.model_copy(update={**counts, "digest": "", "names": {}}))
    return results


def summed(measures: Iterable[Measure], unit: str) -> list[Measure]:
    """Combine the measures of several units into one, for data that is distributed differently now.

    Args:
        measures: each with a digest of this module.
        unit: name of the combined unit.
    """
    by_item: dict[str, list[Measure]] = {}
    for measure in measures:
        by_item.setdefault(measure.item, []).append(measure)
    return [
        Measure(
            unit=unit,
            item=item,
            count=sum(part.count for part in parts),
            digest=_joined([part.digest for part in parts if part.count]),
            origin=parts[0].origin,
        )
        for item, parts in sorted(by_item.items())
    ]


def _text(document: Any) -> bytes:
    """A document as text for hashing. Only JSON values: the text of other objects is not stable."""
    return json.dumps(document, sort_keys=True, default=_unknown).encode()


def _unknown(value: Any) -> None:
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    raise PermanentError(
        f"a value of type {kind} cannot be digested: its engine's fingerprint has to define how"
    )


def _joined(digests: list[str]) -> str:
    """The combined digest; none if one measure has none."""
    if not digests or not all(digests):
        return ""
    total = crossed = 0
    for text in digests:
        added, mixed = (int(part, 16) for part in text.split("/"))
        total, crossed = (total + added) & MASK, crossed ^ mixed
    return f"{total:032x}/{crossed:032x}"
