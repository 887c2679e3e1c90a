"""Backs EMQX up by its own data export: configuration, users, rights, rules, retained messages.

The export lies on one node until it is removed. What should be in it is looked for in the archive itself, since EMQX
leaves out what the caller may not have without saying so
(https://docs.emqx.com/en/emqx/latest/operations/backup-restore.html).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import httpx

from archive.cleanup_journal import CleanupJournal, ExportArchive
from archive.manifest import Consistency, Engine, Measure
from archive.unpacking import Unreadable
from archive.writer import SetWriter
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
from components.emqx.export import RETAINED_TABLE, Export, garbled, read_export
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

CHURN = 0.01  # of the topics, that may be deleted and retained again while the export is made
NOT_COVERED = (
    "sessions, subscriptions and queued messages of clients, including durable ones",
    "delayed messages, and retained messages in an external store or of a disabled retainer",
    "what EMQX itself retains below $SYS/: each node creates it again",
    "node configuration and certificates outside the data directory (Helm values and Secrets: the backup of "
    "`platform`)",
    "plugins' packages, traces, metrics, tokens of the dashboard",
)
# Tables that every export has, whether they have rows or not → what is in them, and how the fingerprint calls it.
# An API key does not get the last two. Retained messages have one where EMQX itself keeps them.
TABLES: dict[str, tuple[str, tuple[str, ...]]] = {
    "emqx_authn_mnesia": ("users", ("users",)),
    "emqx_acl": ("rights", ("rights of users", "rights of clients", "rights of all")),
    "emqx_banned": ("banned clients", ("banned", "banned that expire")),
    "emqx_banned_rules": ("bans by rule", ("banned", "banned that expire")),
    RETAINED_TABLE: (MESSAGES, (MESSAGES, f"{MESSAGES} that expire")),
    "emqx_admin": ("dashboard users", ("dashboard users",)),
    "emqx_app": ("API keys", ("API keys", "API keys that expire")),
}
EXPORT_SECONDS = 3600.0  # an archive that appears later than that behind a note is not its run's


def back_up(access: Access, writer: SetWriter) -> BackupContent:
    """Take one backup of the cluster.

    Raises:
        TemporaryError: no node answers, or the export broke off.
        PermanentError: the administrator's password is refused.
    """
    with _explained():
        node, api = _node(access)
        _sweep(api, writer.cleanup)
        begun = datetime.now(UTC)
        retainer = ask_retainer(api)
        before, topics = measure_lists(api), _topics(api, retainer)
        with _export(api, node, writer.cleanup, access.settings.backup.stall_seconds) as made:
            export = _store(access, writer, api, made, retainer)
        after = measure_lists(api)
        steady = topics & _topics(api, retainer)
        running = [row for row in rows(api, "/nodes") if row.get("node_status") == "running"]
    refused = {**before.refused, **after.refused}
    messages, missing = _messages(export, retainer, steady)
    lacks = lacking(export, retainer)
    left_out = {item for table in lacks for item in TABLES[table][1]} | set(refused)
    lists = settled(before.measures, after.measures)
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
        fingerprint=tuple(one for one in (*lists, *messages) if one.item not in left_out),
        not_covered=NOT_COVERED,
        missing=(
            *(f"{TABLES[table][0]}: the export has no {table}" for table in lacks),
            *(f"{item}: not compared: {why}" for item, why in refused.items()),
            *missing,
        ),
    )


def lacking(export: Export, retainer: Retainer) -> list[str]:
    """Tables that an export should have and has not."""
    kept = {RETAINED_TABLE} if retainer.built_in else set()
    expected = TABLES.keys() - ({RETAINED_TABLE} - kept)
    return [table for table in TABLES if table in expected - export.tables]


def _topics(api: Api, retainer: Retainer) -> set[str]:
    return set(listed(api)) if retainer.built_in else set()


def _messages(
    export: Export, retainer: Retainer, steady: set[str]
) -> tuple[list[Measure], list[str]]:
    """Retained messages measured, and what is wrong with them.

    Args:
        export: the backup's.
        retainer: which keeps them.
        steady: topics that were listed before the export and after it.
    """
    if not retainer.built_in or RETAINED_TABLE not in export.tables:
        return [], []
    if export.retained is None:
        count = Measure(
            unit=UNIT, item=MESSAGES, count=len(steady), until=len(steady), origin="source"
        )
        return [count], [f"{MESSAGES}: cannot tell which of them expire: {export.unreadable}"]
    clear = {topic for topic in steady if garbled(topic) not in export.retained.garbled}
    lost = clear - export.retained.lasting.keys() - export.retained.expiring
    missing = []
    if export.retained.unreadable:
        missing.append(
            f"{MESSAGES}: {export.retained.unreadable} rows of the export are not messages"
        )
    if len(lost) > len(steady) * CHURN:
        missing.append(f"{MESSAGES}: the export lacks {len(lost)} of {len(steady)} listed messages")
    return measure_messages(export.retained), missing


def _node(access: Access) -> tuple[Endpoint, Api]:
    """The first node that lets us in."""
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
    """Have an archive made, and remove it afterwards."""
    known = tuple(str(row["filename"]) for row in rows(api, FILES))
    held = ExportArchive(node=node.member, known=known, since=int(time.time()))
    cleanup.hold(held)
    made = make_archive(api, limit)
    try:
        yield made
    finally:
        if _removed(api, made):
            cleanup.release(held)


def _sweep(api: Api, cleanup: CleanupJournal) -> None:
    """Remove the archive that a killed run left; one that people made since stays."""
    for held in cleanup.earlier(ExportArchive):
        since = held.since
        made = [
            one
            for one in rows(api, FILES)
            if one["filename"] not in held.known
            and since <= int(one.get("created_at_sec", since)) <= since + EXPORT_SECONDS
        ]
        # of several it is unknown which is ours: they use space, but others' exports must not be removed
        if len(made) != 1 or _removed(api, made[0]):
            cleanup.release(held)


def _store(
    access: Access, writer: SetWriter, api: Api, made: dict[str, Any], retainer: Retainer
) -> Export:
    """Store the archive; returns what it holds."""
    name, size = str(made["filename"]), int(made["size"])
    pieces = api.download(archive_path(made), access.settings.backup.stall_seconds)
    with writer.spooled(pieces, size) as spool:
        writer.add(name, UNIT, "emqx data export", spool, size)
        if spool.size != size:
            raise TemporaryError(f"EMQX sent {spool.size} of {size} bytes of {name}")
        try:
            with spool.reader() as file:
                return read_export(file, name, counts, retainer.all_expire)
        except Unreadable as exc:  # it was cut on its way, or a node died while it made it
            raise TemporaryError(exc.plain, said=exc.said) from exc


def _removed(api: Api, made: dict[str, Any]) -> bool:
    """Remove an archive; whether it is gone. It takes room, no more: if not, the next run tries again."""
    try:
        return bool(api("DELETE", archive_path(made)).is_success)
    except httpx.HTTPError:
        return False


@contextmanager
def _explained() -> Iterator[None]:
    """What the client raises, in the project's own terms."""
    try:
        yield
    except PermissionError as exc:
        raise PermanentError(
            f"EMQX refused the administrator ({exc}): the password differs from Secret emqx-auth. EMQX keeps the "
            "password of its first start"
        ) from exc
    except httpx.HTTPError as exc:
        raise TemporaryError(f"EMQX: {exc}", delay=15) from exc
