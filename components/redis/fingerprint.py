"""What a shard holds, by type, counted and digested from the very RDB that was stored.

Redis has no digest to ask for (`DEBUG` is off from version 7 on), and a second reading of a living shard would be of
another moment. Keys that expire are counted apart: between backup and comparison some may have gone by right.
"""

from __future__ import annotations

from typing import BinaryIO

from archive.manifest import Measure
from components.questions import PROBE
from components.redis.rdb import MASK, read_keys


def measure_rdb(file: BinaryIO, unit: str) -> list[Measure]:
    """Measure an RDB file.

    Args:
        file: from its beginning.
        unit: the shard.

    Returns:
        One measure for each type of key that stays, and one for all that expire.

    Raises:
        UnknownFormat, EOFError: it cannot be read.
    """
    counts: dict[str, int] = {}
    sums: dict[str, int] = {}
    crosses: dict[str, int] = {}
    ours = PROBE.encode()
    for key in read_keys(file):
        if key.name.startswith(ours):
            continue
        item = "keys that expire" if key.expires else f"{key.kind}s"
        counts[item] = counts.get(item, 0) + 1
        sums[item] = (sums.get(item, 0) + key.digest) & MASK
        crosses[item] = crosses.get(item, 0) ^ key.digest
    return [
        Measure(
            unit=unit,
            item=item,
            count=counts[item],
            digest=f"{sums[item]:032x}/{crosses[item]:032x}",
            origin="artefact",
        )
        for item in sorted(counts)
    ]
