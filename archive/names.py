"""Names in a manifest: long ones are shortened, so that one name never costs the backup of everything else."""

from __future__ import annotations

from hashlib import blake2b

ITEM_CHARACTERS = 4_000  # of a unit, an item: the bound of the manifest's first version
NAME_CHARACTERS = 1_000  # of a definition: a measure may list some hundreds
HASH_BYTES = 16


def short_name(name: str, most: int) -> str:
    """A name of a bounded length: a longer one as its beginning and a hash of all of it.

    The same name is shortened alike at every time. What was shortened stays as it is.

    Args:
        name: any text, half of a surrogate pair too.
        most: characters; more than the 33 of the hash.
    """
    if len(name) <= most:
        return name
    digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=HASH_BYTES).hexdigest()
    return f"{name[: most - len(digest) - 1]}~{digest}"
