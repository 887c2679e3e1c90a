"""What a restore plan lists of roles, by name: those that come back, and those that are not as the backup has them.

This runs before the backup is decrypted, so the names are the manifest's own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import psycopg

from archive.manifest import Manifest
from components.access import Access
from components.postgresql.client import MAINTENANCE, at_primary
from components.postgresql.definitions import GLOBALS
from components.postgresql.fingerprint import GLOBAL_UNIT, measure_globals
from components.postgresql.session import SESSION
from config.printable import first_of

NEEDED = "roles"  # of the topology: database → roles that it needs
SHOWN = 20  # names of a kind


def remarks(access: Access, manifest: Manifest, chosen: Iterable[str]) -> list[str]:
    """What a restore of units does to roles, and what it leaves.

    Args:
        access: the way in.
        manifest: of the backup.
        chosen: units.

    Raises:
        TemporaryError: there is no primary to ask.
    """
    if NEEDED not in manifest.topology:
        return []  # an older backup
    units = set(chosen)
    needed = {
        role
        for name, roles in manifest.topology[NEEDED].items()
        if f"database {name}" in units
        for role in roles
    }
    with at_primary(access, MAINTENANCE, *SESSION) as connection:
        there = {name for (name,) in connection.execute("SELECT rolname FROM pg_roles").fetchall()}
        differing = _differing(connection, manifest)
    found = []
    gone = sorted(needed - there)
    if gone:
        found.append(f"roles that come back with the passwords of the backup: {_listed(gone)}")
    if differing:
        what = "are restored" if GLOBAL_UNIT in units else "stay as they are now"
        found.append(
            f"roles, memberships and settings that differ from the backup's and {what}: {_listed(differing)}"
        )
    return found


# ---------------------------------------------------------------------- inside
def _differing(connection: psycopg.Connection[Any], manifest: Manifest) -> list[str]:
    """Names of what is other than in the backup, of what the backup knows."""
    was = {
        measure.item: measure.names
        for measure in manifest.fingerprint
        if measure.unit == GLOBAL_UNIT
    }
    found: set[str] = set()
    for one in measure_globals(connection, [item for item in GLOBALS if item in was]):
        names = was[one.item]
        found |= {name for name, digest in names.items() if one.names.get(name) != digest}
    return sorted(found)


def _listed(names: list[str]) -> str:
    return ", ".join(first_of(names, SHOWN))
