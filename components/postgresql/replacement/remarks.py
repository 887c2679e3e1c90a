"""Remarks of a restore plan about roles: those that come back, and those that differ from the backup.

They are made before the backup is decrypted, so the names come from the manifest.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import psycopg

from archive.backup.manifest import Manifest
from components.access import Access
from components.postgresql.client import MAINTENANCE, at_primary
from components.postgresql.connection.session import SESSION
from components.postgresql.fingerprint import GLOBAL_UNIT, measure_globals
from components.postgresql.measures.definitions import GLOBALS
from config.text.printable import first_of

NEEDED = "roles"  # key in the topology: database → roles that it needs
SHOWN = 20  # names shown in a remark


def remarks(access: Access, manifest: Manifest, chosen: Iterable[str]) -> list[str]:
    """Which roles a restore of units creates or changes, and which it leaves different.

    Args:
        access: addresses and credentials.
        manifest: the backup's manifest.
        chosen: units.

    Raises:
        TemporaryError: there is no primary.
    """
    if NEEDED not in manifest.topology:
        return []  # an older backup
    units = set(chosen)
    required = {
        role
        for name, roles in manifest.topology[NEEDED].items()
        if f"database {name}" in units
        for role in roles
    }
    with at_primary(access, MAINTENANCE, *SESSION) as connection:
        existing = {
            name for (name,) in connection.execute("SELECT rolname FROM pg_roles").fetchall()
        }
        differing = _differing(connection, manifest)
    lines = []
    missing = sorted(required - existing)
    if missing:
        lines.append(f"roles that come back with the passwords of the backup: {_listed(missing)}")
    if differing:
        outcome = "are restored" if GLOBAL_UNIT in units else "stay as they are now"
        lines.append(
            f"roles, memberships and settings that differ from the backup's and {outcome}: {_listed(differing)}"
        )
    return lines


# ---------------------------------------------------------------------- inside
def _differing(connection: psycopg.Connection[Any], manifest: Manifest) -> list[str]:
    """Names of roles, memberships and settings that differ from the backup's."""
    names_of = {
        measure.item: measure.names
        for measure in manifest.fingerprint
        if measure.unit == GLOBAL_UNIT
    }
    differing: set[str] = set()
    for measured in measure_globals(connection, [item for item in GLOBALS if item in names_of]):
        names = names_of[measured.item]
        differing |= {name for name, digest in names.items() if measured.names.get(name) != digest}
    return sorted(differing)


def _listed(names: list[str]) -> str:
    return ", ".join(first_of(names, SHOWN))
