"""What a shard holds, by type, counted and digested from the very RDB that was stored.

Redis has no digest to ask for (`DEBUG` is off from version 7 on), and a second reading of a living shard would be of
another moment. Keys that expire are counted apart, and so are fields of hashes that do: between backup and comparison
some may have gone by right. Function libraries are each member's own: of several shards the different ones count.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import BinaryIO

from archive.manifest import Measure
from components.digest import NAMED, Digest, few, summed
from components.questions import PROBE
from components.redis.rdb import Key, read_keys

EXPIRING, LATER = "keys that expire", "keys that expire later"
FIELDS, FIELDS_LATER = "hash fields that expire", "hash fields that expire later"
# What expires → those of it that expire after a moment.
PASSING = {EXPIRING: LATER, FIELDS: FIELDS_LATER}
FUNCTIONS = "functions"


def measure_rdb(
    file: BinaryIO, unit: str, due: int = 0, *, fields_apart: bool = True
) -> list[Measure]:
    """Measure an RDB file.

    Args:
        file: from its beginning.
        unit: the shard.
        due: Unix time in ms; what expires after it is counted a second time, by itself. 0: nothing is.
        fields_apart: whether fields that expire are counted apart from their hashes.

    Returns:
        One measure for each type of key that stays, one for all that expire, and one for those that expire later.

    Raises:
        UnknownFormat, EOFError: it cannot be read.
    """
    found: dict[str, Digest] = {}
    libraries: dict[str, str] = {}
    ours = PROBE.encode()
    for key in read_keys(file, due):
        if key.kind == "function":
            libraries[key.name.decode(errors="replace")] = f"{key.digest:032x}"
        if not key.name.startswith(ours):
            _count_key(found, key, due, fields_apart)
    measures = {item: digest.measure(unit, item, "artefact") for item, digest in found.items()}
    if FUNCTIONS in measures and len(libraries) == measures[FUNCTIONS].count <= NAMED:
        measures[FUNCTIONS] = measures[FUNCTIONS].model_copy(update={"names": few(libraries)})
    return [measures[item] for item in sorted(measures)]


def has_fields_apart(fingerprint: Iterable[Measure]) -> bool:
    """Whether a backup was measured with fields that expire apart; older ones have them in their hashes."""
    return any(measure.item == FIELDS for measure in fingerprint)


def together(measures: Iterable[Measure], unit: str) -> list[Measure]:
    """Measures of all shards as those of one: keys are summed, function libraries united.

    Args:
        measures: of `measure_rdb`.
        unit: name of the one.
    """
    found = list(measures)
    united = _united([one for one in found if one.item == FUNCTIONS and one.count], unit)
    return [*summed((one for one in found if one.item != FUNCTIONS), unit), *united]


# ---------------------------------------------------------------------- inside
def _count_key(found: dict[str, Digest], key: Key, due: int, fields_apart: bool) -> None:
    """Add a key where it counts, and its parts."""
    digest = key.lasting if fields_apart else key.digest
    if digest is not None:
        found.setdefault(EXPIRING if key.expires else f"{key.kind}s", Digest()).add(digest)
        if due and key.expires > due:
            found.setdefault(LATER, Digest()).add(digest)
    if fields_apart and key.fields is not None:
        found.setdefault(FIELDS, Digest()).add_all(key.fields)
        if key.later is not None and key.later.count:
            found.setdefault(FIELDS_LATER, Digest()).add_all(key.later)


def _united(shards: list[Measure], unit: str) -> list[Measure]:
    """The libraries of all shards, each once."""
    if not shards:
        return []
    if len({(shard.count, shard.digest) for shard in shards}) == 1:
        return [shards[0].model_copy(update={"unit": unit})]
    if not all(shard.names for shard in shards):  # an older backup, whose shards had different ones
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
