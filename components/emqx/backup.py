"""Backs EMQX up by its own data export: configuration, users, rights, rules, retained messages.

The export lies on one node until it is removed. What should be in it is looked for in the archive itself, since EMQX
leaves out what the caller may not have without saying so
(https://docs.emqx.com/en/emqx/latest/operations/backup-restore.html).
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, BinaryIO

import httpx

from archive.leftovers import Leftovers
from archive.manifest import Consistency, Engine
from archive.writer import SetWriter
from components.access import Access, Endpoint
from components.base import Taken
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
from components.emqx.fingerprint import measure
from errors import PermanentError, TemporaryError

NODE = "node"  # by this the notes of archives are found
NOT_COVERED = (
    "sessions, subscriptions and queued messages of clients, durable ones too",
    "delayed messages, and retained messages of an external store",
    "node configuration and certificates outside the data directory (Helm values and Secrets: set `platform`)",
    "plugins' packages, traces, metrics",
)
# Tables that every export has, whether they have rows or not; the last two only an administrator gets.
TABLES = {
    "emqx_authn_mnesia": "users",
    "emqx_acl": "rights",
    "emqx_banned": "banned clients",
    "emqx_retainer_message": "retained messages",
    "emqx_admin": "dashboard users",
    "emqx_app": "API keys",
}


def back_up(access: Access, writer: SetWriter) -> Taken:
    """Take one set of the cluster.

    Raises:
        TemporaryError: no node answers, or the export broke off.
        PermanentError: the administrator's password is refused.
    """
    with _explained():
        node, api = _node(access)
        _sweep(api, writer.leftovers)
        begun = datetime.now(UTC)
        before = measure(api)
        with _export(api, node, writer.leftovers, access.settings.backup.stall_seconds) as made:
            missing = _store(access, writer, api, made)
        after = measure(api)
        running = [row for row in rows(api, "/nodes") if row.get("node_status") == "running"]
    return Taken(
        engine=Engine(
            name="EMQX",
            version=str(running[0]["version"]),
            edition=str(running[0].get("edition", "")),
        ),
        topology={"nodes": sorted(str(row["node"]) for row in running), "taken_from": node.member},
        consistency=(
            Consistency(
                unit="cluster", point="each table by itself", begun=begun, ended=datetime.now(UTC)
            ),
        ),
        fingerprint=tuple(settled(before, after)),
        not_covered=NOT_COVERED,
        missing=tuple(missing),
    )


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
    api: Api, node: Endpoint, leftovers: Leftovers, limit: float
) -> Iterator[dict[str, Any]]:
    """Have an archive made, and remove it afterwards."""
    known = [row["filename"] for row in rows(api, FILES)]
    held = {NODE: node.member, "known": known}
    leftovers.hold(held)
    made = make_archive(api, limit)
    try:
        yield made
    finally:
        if _removed(api, made):
            leftovers.release(held)


def _sweep(api: Api, leftovers: Leftovers) -> None:
    """Remove the archives that a killed run left."""
    for held in leftovers.earlier(NODE):
        made = [one for one in rows(api, FILES) if one["filename"] not in held["known"]]
        gone = [_removed(api, one) for one in made]
        if all(gone):
            leftovers.release(held)


def _store(access: Access, writer: SetWriter, api: Api, made: dict[str, Any]) -> list[str]:
    """Store the archive; returns what it lacks."""
    name, size = str(made["filename"]), int(made["size"])
    pieces = api.download(archive_path(made), access.settings.backup.stall_seconds)
    with writer.spooled(pieces, size) as spool:
        # under its own name: EMQX refuses an archive that was renamed
        writer.add(name, "cluster", "emqx data export", spool, size)
        if spool.size != size:
            raise TemporaryError(f"EMQX sent {spool.size} of {size} bytes of {name}")
        with spool.reader() as file:
            return _lacks(file, name)


def _lacks(file: BinaryIO, name: str) -> list[str]:
    try:
        with tarfile.open(fileobj=file, mode="r:gz") as archive:
            there = {entry.name.partition("/")[2] for entry in archive}
    except (tarfile.TarError, EOFError, OSError) as exc:
        raise TemporaryError(f"{name} is no sound archive: {exc}") from exc
    if "META.hocon" not in there or "cluster.hocon" not in there:
        raise TemporaryError(f"{name} has no META.hocon or no cluster.hocon")
    return [
        f"{title}: the export has no {table}"
        for table, title in TABLES.items()
        if f"mnesia/{table}" not in there
    ]


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
            f"EMQX refuses the administrator ({exc}): Secret emqx-auth is not what it was first started with"
        ) from exc
    except httpx.HTTPError as exc:
        raise TemporaryError(f"EMQX: {exc}", delay=15) from exc
