"""Counts and digests a shard's keys by type, from the same RDB that is stored.

Redis itself has no digest (`DEBUG` is off since version 7), and a second read of a live shard would be of another
moment. Keys and hash fields that expire are counted separately, because some may expire before the comparison. Each
shard has its own function libraries; combined measures count different ones once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import BinaryIO

from archive.backup.manifest import Measure
from components.digest import NAMED, Digest, few, summed
from components.questions import PROBE
from components.redis.keys.rdb import Key, read_keys

EXPIRING, LATER = "keys that expire", "keys that expire later"
FIELDS, FIELDS_LATER = "hash fields that expire", "hash fields that expire later"
# Item of things that expire → item of those that expire after a given moment.
PASSING = {EXPIRING: LATER, FIELDS: FIELDS_LATER}
FUNCTIONS = "functions"


def measure_rdb(
    file: BinaryIO, unit: str, due: int = 0, *, fields_apart: bool = True
) -> list[Measure]:
    """Measure an RDB file.

    Args:
        file: the file, at its beginning.
        unit: the shard.
        due: Unix time in ms; items that expire after it also get a measure of their own. 0: no such measure.
        fields_apart: count hash fields that expire separately.

    Returns:
        A measure for each type of key without expiry, one for keys that expire, and one for keys that expire later.

    Raises:
        UnknownFormat, EOFError: the file cannot be read.
    """
    digests: dict[str, Digest] = {}
    libraries: dict[str, str] = {}
    ours = PROBE.encode()
    for key in read_keys(file, due):
        if key.kind == "function":
            libraries[key.name.decode(errors="replace")] = f"{key.digest:032x}"
        if not key.name.startswith(ours):
            _count_key(digests, key, due, fields_apart)
    measures = {item: digest.measure(unit, item, "artefact") for item, digest in digests.items()}
    if FUNCTIONS in measures and len(libraries) == measures[FUNCTIONS].count <= NAMED:
        measures[FUNCTIONS] = measures[FUNCTIONS].model_copy(update={"names": few(libraries)})
    return [measures[item] for item in sorted(measures)]


def has_fields_apart(fingerprint: Iterable[Measure]) -> bool:
    """Whether a backup counted hash fields that expire separately. Older backups did not."""
    return any(measure.item == FIELDS for measure in fingerprint)


def together(measures: Iterable[Measure], unit: str) -> list[Measure]:
    """Combine the measures of all shards: keys are summed, equal function libraries count once.

    Args:
        measures: results of `measure_rdb`.
        unit: name of the combined unit.
    """
    all_measures = list(measures)
    united = _united(
        [measure for measure in all_measures if measure.item == FUNCTIONS and measure.count], unit
    )
    return [
        *summed((measure for measure in all_measures if measure.item != FUNCTIONS), unit),
        *united,
    ]


# ---------------------------------------------------------------------- inside
def _count_key(digests: dict[str, Digest], key: Key, due: int, fields_apart: bool) -> None:
    """Add a key, and its fields that expire, to the digests."""
    digest = key.lasting if fields_apart else key.digest
    if digest is not None:
        digests.setdefault(EXPIRING if key.expires else f"{key.kind}s", Digest()).add(digest)
        if due and key.expires > due:
            digests.setdefault(LATER, Digest()).add(digest)
    if fields_apart and key.fields is not None:
        digests.setdefault(FIELDS, Digest()).add_all(key.fields)
        if key.later is not None and key.later.count:
            digests.setdefault(FIELDS_LATER, Digest()).add_all(key.later)


def _united(shards: list[Measure], unit: str) -> list[Measure]:
    """The libraries of all shards, each once."""
    if not shards:
        return []
    if len({(shard.count, shard.digest) for shard in shards}) == 1:
        return [shards[0].model_copy(update={"unit": unit})]
    if not all(
        shard.names for shard in shards
    ):  # an older backup without names, and the shards differ
        counts = {
            "count": max(shard.count for shard in shards),
            "until": sum(shard.count for shard in shards),
        }
        return [shards[0].model_copy(update={"unit": unit, "digest": "", **counts})]
    different = {(name, text) for shard in shards for name, text in shard.names.items()}
    total = Digest()
    names: dict[str, str] = {}
    for name, text in sorted(different):
        total.add(int(text, 16))
        names[f"{name} ({text[:8]})" if name in names else name] = text
    measure = total.measure(unit, FUNCTIONS, "artefact")
    return [measure.model_copy(update={"names": names})]
