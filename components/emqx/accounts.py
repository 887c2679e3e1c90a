"""Passwords of a live EMQX after an import: existing accounts keep their current ones.

An import takes whole rows of users, dashboard users and API keys from the archive, and so would bring back what was
rotated since, the administrator's own password among it. Rows cannot be taken out of an archive, which holds tables in
Mnesia's own format; whole tables can (apps/emqx_management/src/emqx_mgmt_data_backup.erl imports those that there are).
So a table without a deleted account is left out, and after one with some, the live rows are imported again from an
export that was made before.
"""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from pathlib import Path

from archive.manifest import Manifest
from archive.names import NAME_CHARACTERS, short_name
from archive.unpacking import readable
from components.access import Access
from components.emqx.client import Api, archive_path, make_archive, rows
from components.emqx.export import META, TABLES, rewritten
from components.emqx.fingerprint import LISTS
from components.emqx.restore import import_export

# Table of an archive → what the fingerprint calls its rows; "" where the API does not list them.
ACCOUNTS = {
    "emqx_authn_mnesia": "users",
    "emqx_authn_scram_mnesia": "",
    "emqx_psk": "",
    "emqx_admin": "dashboard users",
    "emqx_app": "API keys",
}


@dataclass(frozen=True)
class Returning:
    """Whom an archive brings back.

    Attributes:
        tables: that hold, or may hold, a deleted account.
        names: of those, as far as they are known.
    """

    tables: frozenset[str]
    names: tuple[str, ...]


def returning(api: Api, manifest: Manifest) -> Returning:
    """Compare the accounts of a backup with those that are there.

    Args:
        api: of the live EMQX.
        manifest: of the backup.

    Raises:
        httpx.HTTPError: EMQX does not answer.
    """
    measured = {measure.item: measure for measure in manifest.fingerprint}
    tables, names = set(), []
    for table, item in ACCOUNTS.items():
        then, going = measured.get(item), measured.get(f"{item} that expire")
        # without a digest it may have moved while it was backed up; of too many, and of those that expire, the manifest
        # has no names
        if (
            then is None
            or not then.digest
            or len(then.names) != then.count
            or (going and going.count)
        ):
            tables.add(table)
            continue
        one = LISTS[item]
        there = {str(row.get(one.name)) for row in rows(api, one.path)}
        gone = set(then.names) - there - {short_name(name, NAME_CHARACTERS) for name in there}
        if gone:
            tables.add(table)
            names += sorted(gone)
    return Returning(frozenset(tables), tuple(names))


def import_beside(access: Access, api: Api, file: Path, back: Returning) -> None:
    """Import an archive, and let every account that is there keep its password.

    Args:
        access: knows the limits.
        api: the administrator's; it logged in before, so it stays valid if the password changes.
        file: the archive, under its own name; beside it others are made.
        back: whom it brings back.

    Raises:
        PermanentError: EMQX does not take it.
        httpx.HTTPError: it does not answer.
    """
    tables = _tables(file)
    bringing = back.tables & tables
    out = {TABLES + table for table in ACCOUNTS if table in tables - bringing}
    wanted = rewritten(file, lambda path: path not in out)
    if not bringing:
        import_export(access, api, wanted)
        return
    inside = {META, *(TABLES + table for table in bringing)}
    before = rewritten(_export(access, api, file.parent), lambda path: path in inside)
    try:
        import_export(access, api, wanted)
    finally:  # what was refused may have been imported in part
        import_export(access, api, before)


# ---------------------------------------------------------------------- archives
def _export(access: Access, api: Api, directory: Path) -> Path:
    """An export of what is there now, which does not stay on the node."""
    seconds = access.settings.backup.stall_seconds
    made = make_archive(api, seconds)
    path = archive_path(made)
    file = directory / Path(str(made["filename"])).name
    try:
        file.touch(mode=0o600)
        with file.open("wb") as target:
            for piece in api.download(path, seconds):
                target.write(piece)
    finally:
        api("DELETE", path)
    return file


def _tables(file: Path) -> frozenset[str]:
    with readable(file.name), tarfile.open(file, "r:gz") as archive:
        paths = [_path(entry) for entry in archive]
    return frozenset(path.removeprefix(TABLES) for path in paths if path.startswith(TABLES))


def _path(entry: tarfile.TarInfo) -> str:
    """Without the folder that everything lies in."""
    return entry.name.partition("/")[2]
