"""Backs up EMQX by its own data export: configuration, users, rights, rules, retained messages.

The export stays on one node until it is removed. The archive is checked for missing tables, because EMQX silently
leaves out what the caller is not allowed to export
(https://docs.emqx.com/en/emqx/latest/operations/backup-restore.html).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import httpx

from archive.backup.cleanup_journal import CleanupJournal, ExportArchive
from archive.backup.manifest import Consistency, Engine, Measure
from archive.backup.writer import SetWriter
from archive.streams.unpacking import Unreadable
from components.access import Access, Endpoint
from components.base import BackupContent
from components.digest import settled
from components.emqx.client import (
    API_PORT,
    FILES,
    STATEFULSET,
    Api,
    archive_path,
    make_archive,
    rows,
    sign_on,
)
from components.emqx.exports.export import RETAINED_TABLE, Export, garbled, read_export
from components.emqx.fingerprint import (
    MESSAGES,
    NEWEST,
    UNIT,
    VERSION,
    counts,
    listed,
    measure_lists,
    measure_messages,
)
from components.emqx.restore import ALL_EXPIRE
from components.emqx.retainer import Retainer, ask_retainer
from errors import PermanentError, TemporaryError

CHURN = 0.01  # share of topics that clients may delete and retain again during the export
NOT_COVERED = (
    "sessions, subscriptions and queued messages of clients, including durable ones",
    "delayed messages, and retained messages in an external store or of a disabled retainer",
    "what EMQX itself retains below $SYS/: each node creates it again",
    "node configuration and certificates outside the data directory (Helm values and Secrets: the backup of "
    "`platform`)",
    "plugins' packages, traces, metrics, tokens of the dashboard",
)
# Table → its content, and the items of the fingerprint. Every export has these tables, even if they are empty.
# Exports made with an API key lack the last two. The table of retained messages needs the built-in store.
TABLES: dict[str, tuple[str, tuple[str, ...]]] = {
    "emqx_authn_mnesia": ("users", ("users",)),
    "emqx_acl": ("rights", ("rights of users", "rights of clients", "rights of all")),
    "emqx_banned": ("banned clients", ("banned", "banned that expire")),
    "emqx_banned_rules": ("bans by rule", ("banned", "banned that expire")),
    RETAINED_TABLE: (MESSAGES, (MESSAGES, f"{MESSAGES} that expire")),
    "emqx_admin": ("dashboard users", ("dashboard users",)),
    "emqx_app": ("API keys", ("API keys", "API keys that expire")),
}
EXPORT_SECONDS = (
    3600.0  # an archive that is created later than this after the journal's entry is not its own
)


def back_up(access: Access, writer: SetWriter) -> BackupContent:
    """Take one backup of the cluster.

    Raises:
        TemporaryError: no node answers, or the export was interrupted.
        PermanentError: EMQX refuses the administrator's password.
    """
    with _explained():
        node, api = _node(access)
        _sweep(api, writer.cleanup)
        begun = datetime.now(UTC)
        retainer = ask_retainer(api)
        lists_before, topics = measure_lists(api), _topics(api, retainer)
        with _export(api, node, writer.cleanup, access.settings.backup.stall_seconds) as archive:
            export = _store(access, writer, api, archive, retainer)
        lists_after = measure_lists(api)
        steady = topics & _topics(api, retainer)
        running = [row for row in rows(api, "/nodes") if row.get("node_status") == "running"]
    refused = {**lists_before.refused, **lists_after.refused}
    messages, missing = _messages(export, retainer, steady)
    lacks = lacking(export, retainer)
    left_out = {item for table in lacks for item in TABLES[table][1]} | set(refused)
    lists = settled(lists_before.measures, lists_after.measures)
    return BackupContent(
        engine=Engine(
            name="EMQX",
            version=str(running[0]["version"]),
            edition=str(running[0].get("edition", "")),
        ),
        topology={
            "nodes": sorted(str(row["node"]) for row in running),
            "taken_from": node.member,
            VERSION: NEWEST,
            ALL_EXPIRE: retainer.all_expire,
        },
        consistency=(
            Consistency(
                unit="cluster", point="each table by itself", begun=begun, ended=datetime.now(UTC)
            ),
        ),
        fingerprint=tuple(
            measure for measure in (*lists, *messages) if measure.item not in left_out
        ),
        not_covered=NOT_COVERED,
        missing=(
            *(f"{TABLES[table][0]}: the export has no {table}" for table in lacks),
            *(f"{item}: not compared: {why}" for item, why in refused.items()),
            *missing,
        ),
    )


def lacking(export: Export, retainer: Retainer) -> list[str]:
    """Tables that are missing in an export."""
    exported = {RETAINED_TABLE} if retainer.built_in else set()
    expected = TABLES.keys() - ({RETAINED_TABLE} - exported)
    return [table for table in TABLES if table in expected - export.tables]


def _topics(api: Api, retainer: Retainer) -> set[str]:
    return set(listed(api)) if retainer.built_in else set()


def _messages(
    export: Export, retainer: Retainer, steady: set[str]
) -> tuple[list[Measure], list[str]]:
    """Measure the retained messages. Also returns problems, for the manifest.

    Args:
        export: the backup's export.
        retainer: how EMQX keeps them.
        steady: topics that were listed both before and after the export.
    """
    if not retainer.built_in or RETAINED_TABLE not in export.tables:
        return [], []
    if export.retained is None:
        count = Measure(
            unit=UNIT, item=MESSAGES, count=len(steady), until=len(steady), origin="source"
        )
        return [count], [f"{MESSAGES}: cannot tell which of them expire: {export.unreadable}"]
    clear = {topic for topic in steady if garbled(topic) not in export.retained.garbled}
    missing_topics = clear - export.retained.lasting.keys() - export.retained.expiring
    missing = []
    if export.retained.unreadable:
        missing.append(
            f"{MESSAGES}: {export.retained.unreadable} rows of the export are not messages"
        )
    if len(missing_topics) > len(steady) * CHURN:
        missing.append(
            f"{MESSAGES}: the export lacks {len(missing_topics)} of {len(steady)} listed messages"
        )
    return measure_messages(export.retained), missing


def _node(access: Access) -> tuple[Endpoint, Api]:
    """The first node that accepts the administrator."""
    cause: Exception | None = None
    for node in access.endpoints(STATEFULSET, access.settings.components.emqx.members, API_PORT):
        try:
            if node.host:
                return node, sign_on(access, node)
        except httpx.HTTPError as exc:
            cause = exc
    raise TemporaryError(f"no node of EMQX answers: {cause}", delay=15)


# ---------------------------------------------------------------------- the archive
@contextmanager
def _export(
    api: Api, node: Endpoint, cleanup: CleanupJournal, limit: float
) -> Iterator[dict[str, Any]]:
    """Create an archive, and remove it afterwards."""
    existing = tuple(str(row["filename"]) for row in rows(api, FILES))
    note = ExportArchive(node=node.member, known=existing, since=int(time.time()))
    cleanup.hold(note)
    archive = make_archive(api, limit)
    try:
        yield archive
    finally:
        if _removed(api, archive):
            cleanup.release(note)


def _sweep(api: Api, cleanup: CleanupJournal) -> None:
    """Remove the archive of a killed run. Archives that people created are kept."""
    for note in cleanup.earlier(ExportArchive):
        since = note.since
        candidates = [
            row
            for row in rows(api, FILES)
            if row["filename"] not in note.known
            and since <= int(row.get("created_at_sec", since)) <= since + EXPORT_SECONDS
        ]
        # with several candidates the own one is unknown, and exports of others must not be removed
        if len(candidates) != 1 or _removed(api, candidates[0]):
            cleanup.release(note)


def _store(
    access: Access, writer: SetWriter, api: Api, archive: dict[str, Any], retainer: Retainer
) -> Export:
    """Store the archive. Returns its content."""
    name, size = str(archive["filename"]), int(archive["size"])
    pieces = api.download(archive_path(archive), access.settings.backup.stall_seconds)
    with writer.spooled(pieces, size) as spool:
        writer.add(name, UNIT, "emqx data export", spool, size)
        if spool.size != size:
            raise TemporaryError(f"EMQX sent {spool.size} of {size} bytes of {name}")
        try:
            with spool.reader() as file:
                return read_export(file, name, counts, retainer.all_expire)
        except Unreadable as exc:  # the download was cut, or the node died during the export
            raise TemporaryError(exc.plain, said=exc.said) from exc


def _removed(api: Api, archive: dict[str, Any]) -> bool:
    """Remove an archive. Returns whether it was removed; if not, the next run tries again."""
    try:
        return bool(api("DELETE", archive_path(archive)).is_success)
    except httpx.HTTPError:
        return False


@contextmanager
def _explained() -> Iterator[None]:
    """Turn exceptions of the client into the project's errors."""
    try:
        yield
    except PermissionError as exc:
        raise PermanentError(
            f"EMQX refused the administrator ({exc}): the password differs from Secret emqx-auth. EMQX keeps the "
            "password of its first start"
        ) from exc
    except httpx.HTTPError as exc:
        raise TemporaryError(f"EMQX: {exc}", delay=15) from exc
