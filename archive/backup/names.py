"""Shortens long names in a manifest, so that one name cannot fail the whole backup."""

from __future__ import annotations

from hashlib import blake2b

ITEM_CHARACTERS = 4_000  # of a unit, an item: the bound of the manifest's first version
NAME_CHARACTERS = 1_000  # of a definition: a measure may list some hundreds
HASH_BYTES = 16


def short_name(name: str, most: int) -> str:
    """Return a name of bounded length: a longer one is its beginning and a hash of all of it.

    The result is always the same for the same name. A shortened name stays unchanged.

    Args:
        name: any text, including half of a surrogate pair.
        most: characters; more than the 33 of the hash.
    """
    if len(name) <= most:
        return name
    digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=HASH_BYTES).hexdigest()
    return f"{name[: most - len(digest) - 1]}~{digest}"
