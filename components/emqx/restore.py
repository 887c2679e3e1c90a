"""Restores EMQX's own export into a new, empty broker.

The broker must be empty because an import merges and deletes nothing. The administrator imports it, because an API key
may not import users. The administrator has a name of its own, so the backup's administrators are imported unchanged.
https://docs.emqx.com/en/emqx/latest/operations/backup-restore.html
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from archive.backup.manifest import Manifest, Measure
from archive.backup.reader import SetReader
from archive.streams.spool import prepare_spool
from components.access import Access, Endpoint
from components.base import Restore, Scratch
from components.emqx.client import (
    API_PORT,
    FILES,
    PASSWORD,
    SECRET,
    STATEFULSET,
    Api,
    remove_uploads,
    rows,
    sign_on,
)
from components.emqx.exports.export import (
    CONFIGURATION,
    META,
    TABLES,
    UPLOAD,
    Export,
    read_export,
    rewritten,
)
from components.emqx.exports.hocon import UnknownForm
from components.emqx.exports.isolation import isolated, switches
from components.emqx.fingerprint import counts
from components.emqx.fingerprint import measure as measure_cluster
from components.questions import PROBE
from config.models import Settings
from errors import PermanentError, TemporaryError

FORM = "emqx data export"
SOURCE = "/authorization/sources/built_in_database"
ALL_EXPIRE = "retained_messages_all_expire"  # key in a manifest's topology
LEFT_SECONDS = 6 * 3600.0  # an older upload was left by a killed run


def scratch(_: Settings, manifest: Manifest, password: str) -> tuple[Scratch, ...]:
    """One broker, with an authenticator of the same kind as production's."""
    environ = {
        "EMQX_NODE__NAME": "emqx@127.0.0.1",
        "EMQX_NODE__COOKIE": password,
        "EMQX_NODE__DATA_DIR": "/scratch/data",
        "EMQX_LOG__FILE__DEFAULT__ENABLE": "false",
        "EMQX_TELEMETRY__ENABLE": "false",  # no outgoing reports
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
    """Nothing to place: the export is uploaded over the network."""


def ask(access: Access, endpoint: Endpoint) -> str:
    """The broker's version, once it accepts its administrator."""
    api = sign_on(access, endpoint, PROBE)
    running = [row for row in rows(api, "/nodes") if row.get("node_status") == "running"]
    return f"EMQX {running[0]['version']}"


def load(access: Access, at: Mapping[str, Endpoint], reader: SetReader) -> None:
    """Import the export without outgoing connections (`isolation`), and make the API list its rights.

    The API lists rights only if a source of the built-in database is configured (is_configured_authz_source/2 in
    emqx_authz_api_mnesia.erl). An export has that source only if it was configured at run time, not by Helm values.

    Raises:
        Damaged: the export differs from what was stored.
        PermanentError: EMQX refuses the export; has its message.
        TemporaryError: the broker went away.
    """
    with explained(), saved_exports(access, reader) as files:
        api = sign_on(access, next(iter(at.values())), PROBE)
        for file in files:
            import_export(access, api, rewritten(file, _comes_along, isolated_or_no_verdict))
        if api("GET", SOURCE).status_code == 404:
            source = {"type": "built_in_database", "enable": True}
            api("POST", "/authorization/sources", source).raise_for_status()


def measure(
    access: Access, at: Mapping[str, Endpoint], reader: SetReader
) -> Mapping[str, list[Measure]]:
    """Measure the broker.

    Raises:
        TemporaryError: the broker went away.
    """
    export = exported(access, reader)
    saved_switches = switches(export.configuration)
    with explained():
        api = sign_on(access, next(iter(at.values())), PROBE)
        return {"": measure_cluster(api, reader.manifest, export.retained, saved_switches.restored)}


RESTORE = Restore(scratch, place, ask, load, measure)


def isolated_or_no_verdict(configuration: str) -> str:
    """A configuration for a scratch broker.

    Raises:
        TemporaryError: it has an unknown syntax, so its outgoing connections are unknown.
    """
    try:
        return isolated(configuration)
    except UnknownForm as exc:
        raise TemporaryError(
            "the export cannot be loaded into a scratch broker: its outgoing connections cannot be switched off: "
            f"{exc.plain}"
        ) from exc


def _comes_along(path: str) -> bool:
    return path in (META, CONFIGURATION) or path.startswith(TABLES)


@contextmanager
def saved_exports(access: Access, reader: SetReader) -> Iterator[list[Path]]:
    """The backup's exports as files in a temporary directory.

    Raises:
        Damaged: an export differs from what was stored.
    """
    spool = access.settings.backup.spool
    with tempfile.TemporaryDirectory(dir=prepare_spool(spool)) as directory:
        yield [reader.save(name, Path(directory) / name) for name in reader.names(FORM)]


def exported(access: Access, reader: SetReader) -> Export:
    """Read the backup's export.

    Raises:
        Damaged: it differs from what was stored.
        PermanentError: the backup has no export.
    """
    all_expire = bool(reader.manifest.topology.get(ALL_EXPIRE, False))
    with saved_exports(access, reader) as files:
        for file in files:
            with file.open("rb") as opened:
                return read_export(opened, file.name, counts, all_expire)
    raise PermanentError(f"{reader.manifest.id} has no export of EMQX")


def import_export(access: Access, api: Api, file: Path) -> None:
    """Have a broker import an export, and remove it there.

    Args:
        access: knows the limits.
        api: the administrator's.
        file: made by `rewritten`: a name that is there is refused, and that of a killed run may be.

    Raises:
        PermanentError: EMQX took the upload and does not list it.
        httpx.HTTPError: it refuses it, or does not answer.
    """
    seconds = access.settings.backup.stall_seconds
    remove_uploads(api, UPLOAD, older_than=LEFT_SECONDS)
    try:
        with file.open("rb") as body:
            api.upload(FILES, {"filename": (file.name, body)}, seconds).raise_for_status()
        entry = next((row for row in rows(api, FILES) if row["filename"] == file.name), None)
        if entry is None:
            raise PermanentError(f"EMQX accepted {file.name} but does not list it")
        request = {"filename": file.name, "node": entry["node"]}
        api("POST", "/data/import", request, timeout=seconds).raise_for_status()
    finally:
        with suppress(httpx.HTTPError):  # the next import removes it
            remove_uploads(api, file.name)


@contextmanager
def explained() -> Iterator[None]:
    """Turn exceptions of the client into the project's errors."""
    try:
        yield
    except PermissionError as exc:
        raise PermanentError(
            "EMQX refused its administrator: set the password of Secret emqx-auth (`emqx ctl admins passwd` in a pod)",
            said=str(exc),
        ) from exc
    except httpx.HTTPStatusError as exc:
        kind = PermanentError if exc.response.status_code < 500 else TemporaryError
        failure = f"EMQX, {exc.request.url.path}: HTTP {exc.response.status_code}"
        raise kind(failure, said=exc.response.text[:500]) from exc
    except httpx.HTTPError as exc:
        raise TemporaryError(f"EMQX: {exc}", delay=15) from exc
