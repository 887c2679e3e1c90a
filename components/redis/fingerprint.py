"""What a shard holds, by type, counted and digested from the very RDB that was stored.

Redis has no digest to ask for (`DEBUG` is off from version 7 on), and a second reading of a living shard would be of
another moment. Keys that expire are counted apart: between backup and comparison some may have gone by right.
"""

from __future__ import annotations

from typing import BinaryIO

from archive.manifest import Measure
from components.digest import Digest
from components.questions import PROBE
from components.redis.rdb import read_keys

EXPIRING, LATER = "keys that expire", "keys that expire later"


def measure_rdb(file: BinaryIO, unit: str, due: int = 0) -> list[Measure]:
    """Measure an RDB file.

    Args:
        file: from its beginning.
        unit: the shard.
        due: Unix time in ms; keys that expire after it are counted a second time, by themselves. 0: none.

    Returns:
        One measure for each type of key that stays, one for all that expire, and one for those that expire later.

    Raises:
        UnknownFormat, EOFError: it cannot be read.
    """
    found: dict[str, Digest] = {}
    ours = PROBE.encode()
    for key in read_keys(file):
        if key.name.startswith(ours):
            continue
        item = EXPIRING if key.expires else f"{key.kind}s"
        found.setdefault(item, Digest()).add(key.digest)
        if due and key.expires > due:
            found.setdefault(LATER, Digest()).add(key.digest)
    return [digest.measure(unit, item, "artefact") for item, digest in sorted(found.items())]
