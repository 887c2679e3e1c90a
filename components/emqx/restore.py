"""Brings EMQX back: its own export is imported into a fresh broker.

An import merges and deletes nothing, hence fresh; and it is the administrator's, since an API key may not bring users
back. The administrator who imports has a name of his own, so that those of the set come as they were.
https://docs.emqx.com/en/emqx/latest/operations/backup-restore.html
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from archive.manifest import Manifest, Measure
from archive.reader import SetReader
from components.access import Access, Endpoint
from components.base import Restore, Scratch
from components.emqx.client import (
    API_PORT,
    FILES,
    PASSWORD,
    SECRET,
    STATEFULSET,
    Api,
    archive_path,
    rows,
    sign_on,
)
from components.emqx.fingerprint import measure as measure_cluster
from components.questions import PROBE
from config.models import Settings
from errors import PermanentError, TemporaryError

FORM = "emqx data export"


def scratch(_: Settings, manifest: Manifest, password: str) -> tuple[Scratch, ...]:
    """One broker, with an authenticator of the same kind as production's."""
    environ = {
        "EMQX_NODE__NAME": "emqx@127.0.0.1",
        "EMQX_NODE__COOKIE": password,
        "EMQX_NODE__DATA_DIR": "/scratch/data",
        "EMQX_LOG__FILE__DEFAULT__ENABLE": "false",
        "EMQX_DASHBOARD__DEFAULT_USERNAME": PROBE,
        "EMQX_DASHBOARD__DEFAULT_PASSWORD": password,
        "EMQX_AUTHENTICATION__1__MECHANISM": "password_based",
        "EMQX_AUTHENTICATION__1__BACKEND": "built_in_database",
        "EMQX_AUTHENTICATION__1__USER_ID_TYPE": "username",
    }
    return (
        Scratch(
            "", STATEFULSET, "emqx", ("/opt/emqx/bin/emqx", "foreground"), API_PORT, environ,
            secrets={SECRET: {PASSWORD: password}},
        ),
    )  # fmt: skip


def place(reader: SetReader, name: str, directory: Path) -> None:
    """Nothing: the export comes over the network."""


def ask(access: Access, endpoint: Endpoint) -> str:
    """Version of a broker that lets its administrator in."""
    api = sign_on(access, endpoint, PROBE)
    running = [row for row in rows(api, "/nodes") if row.get("node_status") == "running"]
    return f"EMQX {running[0]['version']}"


def load(access: Access, at: Mapping[str, Endpoint], reader: SetReader) -> None:
    """Import the export.

    Raises:
        Damaged: it is not what was stored.
        PermanentError: EMQX does not take it; with its words.
        TemporaryError: it went away.
    """
    spool = access.settings.backup.spool
    spool.mkdir(parents=True, exist_ok=True)
    with explained(), tempfile.TemporaryDirectory(dir=spool) as directory:
        api = sign_on(access, next(iter(at.values())), PROBE)
        for name in reader.names(FORM):
            import_export(access, api, reader.save(name, Path(directory) / name))


def measure(
    access: Access, at: Mapping[str, Endpoint], reader: SetReader
) -> Mapping[str, list[Measure]]:
    """What the broker holds.

    Raises:
        TemporaryError: it went away.
    """
    with explained():
        return {"": measure_cluster(sign_on(access, next(iter(at.values())), PROBE))}


RESTORE = Restore(scratch, place, ask, load, measure)


def import_export(access: Access, api: Api, file: Path) -> None:
    """Have a broker import an export.

    Args:
        access: knows the limits.
        api: the administrator's.
        file: under its own name: EMQX refuses one that was renamed.
    """
    seconds = access.settings.backup.stall_seconds
    with file.open("rb") as body:
        api.upload(FILES, {"filename": (file.name, body)}, seconds).raise_for_status()
    found = next((row for row in rows(api, FILES) if row["filename"] == file.name), None)
    if found is None:
        raise PermanentError(f"EMQX took {file.name} and does not list it")
    wanted = {"filename": file.name, "node": found["node"]}
    try:
        api("POST", "/data/import", wanted, timeout=seconds).raise_for_status()
    finally:
        api("DELETE", archive_path(wanted))


@contextmanager
def explained() -> Iterator[None]:
    """What the API's client raises, in the project's own terms."""
    try:
        yield
    except PermissionError as exc:
        raise PermanentError(
            "EMQX refuses its administrator: give him the password of Secret emqx-auth (`emqx ctl admins passwd` in a "
            "pod)",
            said=str(exc),
        ) from exc
    except httpx.HTTPStatusError as exc:
        kind = PermanentError if exc.response.status_code < 500 else TemporaryError
        what = f"EMQX, {exc.request.url.path}: HTTP {exc.response.status_code}"
        raise kind(what, said=exc.response.text[:500]) from exc
    except httpx.HTTPError as exc:
        raise TemporaryError(f"EMQX: {exc}", delay=15) from exc
