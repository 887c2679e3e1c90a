"""Reads a backup `platform` back as far as that goes without a second one: lists that parse, a dump that lists itself.

Secrets and Helm's records are objects of a cluster that is not thrown away, so nothing is put anywhere: a proof ends
at L2. How they come back is in docs/restore-by-hand.md, which a test follows.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from archive.backup.manifest import Manifest, Measure
from archive.backup.reader import SetReader
from archive.streams.spool import prepare_spool
from components.access import Access, Endpoint
from components.base import Restore, Scratch
from components.platform.backup import measure_names
from components.postgresql.client import program
from config.models import Settings
from errors import PermanentError

LISTS = {"secrets": "secrets.json", "releases": "helm-releases.json"}
LIST_SECONDS = 600.0


def scratch(_: Settings, manifest: Manifest, password: str) -> tuple[Scratch, ...]:
    """None."""
    return ()


def place(reader: SetReader, name: str, directory: Path) -> None:
    """Nothing."""


def ask(access: Access, endpoint: Endpoint) -> str:
    """Nothing to ask: no engine was started."""
    return ""


def load(access: Access, at: Mapping[str, Endpoint], reader: SetReader) -> None:
    """Look into Prefect's database with the tool that reads it.

    Raises:
        Damaged: it is not what was stored.
        PermanentError: the tool cannot read it.
    """
    spool = access.settings.backup.spool
    with tempfile.TemporaryDirectory(dir=prepare_spool(spool)) as directory:
        for name in reader.names("pg_dump custom"):
            file = reader.save(name, Path(directory) / name)
            done = program(access, "pg_restore", "").run("--list", str(file), timeout=LIST_SECONDS)
            if done.returncode != 0:
                raise PermanentError(f"pg_restore cannot read {name}", said=done.error)
        for name in reader.names("SQLite"):
            file = reader.save(name, Path(directory) / name)
            with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
                (verdict,) = database.execute("PRAGMA integrity_check").fetchone()
            if verdict != "ok":
                raise PermanentError(f"{name} does not pass its integrity check", said=verdict)


def measure(
    access: Access, at: Mapping[str, Endpoint], reader: SetReader
) -> Mapping[str, list[Measure]]:
    """What the lists hold."""
    found = []
    for unit, name in LISTS.items():
        items: list[dict[str, Any]] = reader.json(name)["items"]
        found.append(measure_names(unit, items))
    return {"": found}


RESTORE = Restore(scratch, place, ask, load, measure, highest="L2")
