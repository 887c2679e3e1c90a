"""Passwords of a live EMQX after an import: existing accounts keep their current ones.

An import replaces whole rows of users, dashboard users and API keys. It would bring back passwords that were rotated
since the backup, including the administrator's.

Single rows cannot be removed from an archive, which has tables in Mnesia's format. Whole tables can be removed
(apps/emqx_management/src/emqx_mgmt_data_backup.erl imports the tables that an archive has). So:

- A table without deleted accounts is left out.
- A table with deleted accounts is imported. Afterwards the live rows are imported again, from an export taken before.
"""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from pathlib import Path

from archive.backup.manifest import Manifest
from archive.backup.names import NAME_CHARACTERS, short_name
from archive.streams.unpacking import readable
from components.access import Access
from components.emqx.client import Api, archive_path, make_archive, rows
from components.emqx.exports.export import META, TABLES, rewritten
from components.emqx.fingerprint import LISTS
from components.emqx.restore import import_export

# Table of an archive → its item in the fingerprint; "" if the API does not list its rows.
ACCOUNTS = {
    "emqx_authn_mnesia": "users",
    "emqx_authn_scram_mnesia": "",
    "emqx_psk": "",
    "emqx_admin": "dashboard users",
    "emqx_app": "API keys",
}


@dataclass(frozen=True)
class Returning:
    """The deleted accounts that an archive restores.

    Attributes:
        tables: tables that have, or may have, a deleted account.
        names: names of the deleted accounts, as far as they are known.
    """

    tables: frozenset[str]
    names: tuple[str, ...]


def returning(api: Api, manifest: Manifest) -> Returning:
    """Compare the accounts of a backup with the live ones.

    Args:
        api: the live EMQX.
        manifest: the backup's manifest.

    Raises:
        httpx.HTTPError: EMQX does not answer.
    """
    measured = {measure.item: measure for measure in manifest.fingerprint}
    tables, names = set(), []
    for table, item in ACCOUNTS.items():
        saved, expiring_accounts = measured.get(item), measured.get(f"{item} that expire")
        # The manifest has no names of accounts that expire, or if there are too many. Without a digest the accounts
        # changed during the backup.
        if (
            saved is None
            or not saved.digest
            or len(saved.names) != saved.count
            or (expiring_accounts and expiring_accounts.count)
        ):
            tables.add(table)
            continue
        listing = LISTS[item]
        live_names = {str(row.get(listing.name)) for row in rows(api, listing.path)}
        deleted = (
            set(saved.names)
            - live_names
            - {short_name(name, NAME_CHARACTERS) for name in live_names}
        )
        if deleted:
            tables.add(table)
            names += sorted(deleted)
    return Returning(frozenset(tables), tuple(names))


def import_beside(access: Access, api: Api, file: Path, returned: Returning) -> None:
    """Import an archive; existing accounts keep their passwords.

    Args:
        access: the time limits.
        api: the administrator's API; it logged in before, so it stays valid if the password changes.
        file: the archive, under its own name; other archives are written to the same directory.
        returned: the deleted accounts that the archive restores.

    Raises:
        PermanentError: EMQX refuses the archive.
        httpx.HTTPError: EMQX does not answer.
    """
    tables = _tables(file)
    bringing = returned.tables & tables
    excluded = {TABLES + table for table in ACCOUNTS if table in tables - bringing}
    import_file = rewritten(file, lambda path: path not in excluded)
    if not bringing:
        import_export(access, api, import_file)
        return
    included = {META, *(TABLES + table for table in bringing)}
    live_file = rewritten(_export(access, api, file.parent), lambda path: path in included)
    try:
        import_export(access, api, import_file)
    finally:  # a refused archive may have been imported in part
        import_export(access, api, live_file)


# ---------------------------------------------------------------------- archives
def _export(access: Access, api: Api, directory: Path) -> Path:
    """An export of the current state. It is removed from the node."""
    seconds = access.settings.backup.stall_seconds
    archive = make_archive(api, seconds)
    path = archive_path(archive)
    file = directory / Path(str(archive["filename"])).name
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
    """The path of an entry without the archive's top folder."""
    return entry.name.partition("/")[2]
