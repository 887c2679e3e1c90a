"""Counts and digests what comes in any order: hashes are summed and crossed, so that a restore may give it in another.

The sum sees what is there twice, the exclusive-or what changed places with something else; both are of 128 bits.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any, Literal

from archive.manifest import Measure
from archive.names import NAME_CHARACTERS, short_name
from errors import PermanentError

MASK = (1 << 128) - 1
# Beyond that many definitions of a kind the manifest counts them only.
NAMED = 500


class Digest:
    """A count and a digest that do not depend on order.

    Attributes:
        count: of what was added.
    """

    def __init__(self) -> None:
        self.count = self._total = self._crossed = 0
        self._names: dict[str, str] = {}

    def add(self, number: int) -> None:
        """Add something by its hash of 128 bits."""
        self.count += 1
        self._total = (self._total + number) & MASK
        self._crossed ^= number

    def add_document(self, document: Any, name: str = "") -> None:
        """Add something by the hash of its JSON; a definition with its name.

        Raises:
            PermanentError: it holds a value that JSON has no form for.
        """
        hashed = hash_of(document)
        self.add(hashed)
        if name and self.count <= NAMED:
            self._names[short_name(name, NAME_CHARACTERS)] = f"{hashed:032x}"[:8]

    def add_all(self, other: Digest) -> None:
        """Add everything that was added to another one; names are left out."""
        self.count += other.count
        self._total = (self._total + other._total) & MASK
        self._crossed ^= other._crossed

    @property
    def text(self) -> str:
        """Sum and exclusive-or in hexadecimal; "" of nothing."""
        return f"{self._total:032x}/{self._crossed:032x}" if self.count else ""

    def measure(
        self, unit: str, item: str, origin: Literal["source", "artefact"] = "source"
    ) -> Measure:
        """What was added, as the manifest has it."""
        names = self._names if len(self._names) == self.count else {}
        return Measure(
            unit=unit, item=item, count=self.count, digest=self.text, origin=origin, names=names
        )


def hash_of(document: Any) -> int:
    """The hash of 128 bits by which `Digest.add_document` adds a document.

    Raises:
        PermanentError: it holds a value that JSON has no form for.
    """
    return int.from_bytes(blake2b(_text(document), digest_size=16).digest(), "big")


def few(names: Mapping[str, str]) -> dict[str, str]:
    """Names for the manifest: none of too many, long ones shortened."""
    if len(names) > NAMED:
        return {}
    return {short_name(name, NAME_CHARACTERS): text for name, text in names.items()}


def part(document: Any) -> str:
    """Part of a document's digest: enough to see whether it is another one.

    Raises:
        PermanentError: it holds a value that JSON has no form for.
    """
    return blake2b(_text(document), digest_size=4).hexdigest()


def expiring(unit: str, item: str, count: int) -> Measure:
    """The measure of what goes at its own time (a lifetime, an end, a ban): a restore may hold any number of it up to
    what the source held. Every engine counts such things by themselves, so that the others keep count and digest.

    Args:
        unit: database, shard, stream, bucket or collection.
        item: name of that kind of thing, `… that expire`.
        count: of what the source held.
    """
    return Measure(unit=unit, item=item, count=count, until=0, origin="source")


def settled(before: Iterable[Measure], after: Iterable[Measure]) -> list[Measure]:
    """What an engine without a moment to ask at held while it was backed up.

    Args:
        before: measured before the backup.
        after: and after it.

    Returns:
        What stood still as it is; of what moved both counts and no digest, since nobody knows which was stored.
    """
    first = {(one.unit, one.item): one for one in before}
    later = {(one.unit, one.item): one for one in after}
    found = []
    for key, either in {**later, **first}.items():
        was, then = first.get(key), later.get(key)
        if was == then:
            found.append(either)
            continue
        counts = {"count": was.count if was else 0, "until": then.count if then else 0}
        found.append(either.model_copy(update={**counts, "digest": "", "names": {}}))
    return found


def summed(measures: Iterable[Measure], unit: str) -> list[Measure]:
    """Measures of several units as those of one, for data that is spread otherwise now.

    Args:
        measures: each with a digest of this module.
        unit: name of the one.
    """
    found: dict[str, list[Measure]] = {}
    for one in measures:
        found.setdefault(one.item, []).append(one)
    return [
        Measure(
            unit=unit,
            item=item,
            count=sum(one.count for one in parts),
            digest=_joined([one.digest for one in parts if one.count]),
            origin=parts[0].origin,
        )
        for item, parts in sorted(found.items())
    ]


def _text(document: Any) -> bytes:
    """A document as it is hashed: values alone, never how a client's objects happen to print themselves."""
    return json.dumps(document, sort_keys=True, default=_unknown).encode()


def _unknown(value: Any) -> None:
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    raise PermanentError(
        f"a value of type {kind} cannot be digested: its engine's fingerprint must say what of it counts"
    )


def _joined(digests: list[str]) -> str:
    """The digest of everything together; none if one lacks its own."""
    if not digests or not all(digests):
        return ""
    total = crossed = 0
    for text in digests:
        added, mixed = (int(part, 16) for part in text.split("/"))
        total, crossed = (total + added) & MASK, crossed ^ mixed
    return f"{total:032x}/{crossed:032x}"
