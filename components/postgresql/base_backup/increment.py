"""On which earlier backup an incremental base backup may rest: PostgreSQL 17 and newer, with `summarize_wal` on.

The server needs the earlier backup's `backup_manifest`; each backup stores it unencrypted, because backup workers hold
no key. Chains are short on purpose: every member is needed for a restore (pg_combinebackup).
https://www.postgresql.org/docs/18/continuous-archiving.html#BACKUP-INCREMENTAL-BACKUP
"""

from __future__ import annotations

from dataclasses import dataclass

from archive.backup.manifest import Manifest
from archive.backup.writer import SetWriter
from archive.catalogue.chain import open_chain
from components.access import Access, Endpoint
from components.postgresql.client import NodeStatus, connect_long

MANIFEST = "backup_manifest"
SINCE = 170000


@dataclass(frozen=True)
class Base:
    """What an incremental backup rests on.

    Attributes:
        manifest: the earlier backup's own.
        needs: ids of the chain's sets, the full one first.
    """

    manifest: bytes
    needs: tuple[str, ...]


def find_base(
    access: Access, writer: SetWriter, node: Endpoint, node_status: NodeStatus
) -> Base | None:
    """The newest backup, if its chain is whole, young enough and of the same history; None if a full backup is due."""
    days = access.settings.backup.postgresql.full_every_days
    chain = open_chain(writer.earlier, days) if days > 1 else ()
    if not chain or not _same_history(chain[-1], node_status) or not _able(access, node):
        return None
    return Base(writer.read_plain(chain[-1], MANIFEST), tuple(manifest.id for manifest in chain))


def _same_history(last: Manifest, node_status: NodeStatus) -> bool:
    """A promotion, or another cluster of the same name, makes a full one due."""
    known = any(artefact.name == MANIFEST for artefact in last.artefacts)
    same = last.engine.identity == node_status.system
    return known and same and last.topology.get("timeline") == node_status.timeline


def _able(access: Access, node: Endpoint) -> bool:
    with connect_long(access, node) as connection:
        row = connection.execute(
            "SELECT current_setting('server_version_num')::int, current_setting('summarize_wal', true)"
        ).fetchone()
    return row is not None and row[0] >= SINCE and row[1] == "on"
