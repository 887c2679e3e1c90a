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

EXPIRING = "keys that expire"


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
    found: dict[str, Digest] = {}
    ours = PROBE.encode()
    for key in read_keys(file):
        if key.name.startswith(ours):
            continue
        item = EXPIRING if key.expires else f"{key.kind}s"
        found.setdefault(item, Digest()).add(key.digest)
    return [digest.measure(unit, item, "artefact") for item, digest in sorted(found.items())]
