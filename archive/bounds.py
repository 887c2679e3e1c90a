"""Limits the memory that a document of the bucket may use before its signature is checked.

A signature is inside its document, over the canonical form of the rest, so it can be checked only after the JSON is
parsed. A parsed value uses up to 300 bytes, whatever its size in the document: 32 MiB of `{},` become 900 MiB. So the
bytes are limited, and the values are counted in the bytes before parsing. Measured on the largest manifests
that this project can have to write:

| | bytes | values | memory, parsed and checked |
|---|---|---|---|
| PostgreSQL, 100,000 tables in 100 databases | 20 MiB | 0.9 million | 210 MiB |
| Qdrant, 10,000 collections with six measures each | 19 MiB | 0.9 million | 180 MiB |
"""

from __future__ import annotations

import json
from typing import Any

MANIFEST_BYTES = 32 << 20  # names of tables may be twice as long as measured
MANIFEST_VALUES = 2_000_000  # as we write them, a value with its indentation has 16 bytes or more
AT_ONCE_BYTES = 1 << 20  # documents up to this size are read several at a time
EVIDENCE_BYTES = 1 << 20  # a verdict with its first thousand differences
PROOFS = 500  # documents of evidence of one backup: more than one a day for a year


def excess(document: bytes) -> str:
    """Return why a document is not parsed; "" if it can be."""
    if len(document) > MANIFEST_BYTES:
        return f"it has {len(document)} bytes, more than {MANIFEST_BYTES}"
    values = sum(document.count(mark) for mark in (b",", b"[", b"{"))  # begins or follows one
    if values > MANIFEST_VALUES:
        return f"it has {values} values, more than {MANIFEST_VALUES}"
    return ""


def parse(document: bytes) -> Any:
    """Parse JSON from an untrusted writer.

    Raises:
        ValueError: it has too many bytes or values, or is not JSON.
    """
    if why := excess(document):
        raise ValueError(f"it was not parsed: {why}")
    return json.loads(document)
