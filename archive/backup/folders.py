"""Converts names of tenants' objects into folder names in a bucket, each unique.

A valid name in an engine may be invalid in a path: it may have slashes, control characters, or be `..`.
"""

from __future__ import annotations

from hashlib import blake2b

from config.text.urls import path_part

# Many stores take no more than 255 bytes between slashes; a byte of a name may be three characters here.
FOLDER_BYTES = 200
HASH_BYTES = 16


def folder_name(name: str) -> str:
    """Return the folder for a name: percent-encoded; a long name is shortened to its beginning and a hash.

    Args:
        name: of a stream or a collection. The unit in the manifest has it unchanged.
    """
    quoted = path_part(name).replace("~", "%7E")  # which stands before a hash
    if len(quoted) <= FOLDER_BYTES:
        return quoted
    digest = blake2b(name.encode(), digest_size=HASH_BYTES).hexdigest()
    return f"{quoted[: FOLDER_BYTES - len(digest) - 1]}~{digest}"
