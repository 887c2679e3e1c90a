"""Data exports of EMQX for tests: the real layout, retained messages in Mnesia's format."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Mapping
from typing import Any

from components.emqx.exports.export import RETAINED_TABLE
from components.emqx.exports.mnesia import Atom
from sandbox.doubles.emqx.mnesia import backup

TABLES = (
    "emqx_authn_mnesia", "emqx_acl", "emqx_banned", "emqx_banned_rules", "emqx_admin", "emqx_app",
)  # fmt: skip


def retained(messages: Mapping[str, tuple[bytes, int]]) -> bytes:
    """A table of retained messages: topic → payload, expiry (ms; 0 for none)."""
    rows: list[tuple[Any, ...]] = []
    for topic, (payload, expiry) in messages.items():
        words = [word.encode(errors="surrogateescape") for word in topic.split("/")]
        message: tuple[Any, ...] = (
            Atom("message"), bytes(16), 1, b"client", {}, {}, topic.encode(errors="surrogateescape"), payload, 1700, {},
        )  # fmt: skip
        rows.append((words, message, expiry))
    return backup(RETAINED_TABLE, rows)


def archive(
    messages: Mapping[str, tuple[bytes, int]] | None = None,
    *,
    version: str = "5.8.9",
    edition: str = "ce",
    configuration: str = "",
    tables: Iterable[str] = TABLES,
    stem: str = "emqx-export-now",
) -> io.BytesIO:
    """An export; without messages it has no table of them."""
    files = {
        "META.hocon": f'version = "{version}"\nedition = {edition}\n'.encode(),
        "cluster.hocon": configuration.encode(),
        **{f"mnesia/{table}": b"rows" for table in tables},
    }
    if messages is not None:
        files[f"mnesia/{RETAINED_TABLE}"] = retained(messages)
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as target:
        for path, data in files.items():
            entry = tarfile.TarInfo(f"{stem}/{path}")
            entry.size = len(data)
            target.addfile(entry, io.BytesIO(data))
    made.seek(0)
    return made
