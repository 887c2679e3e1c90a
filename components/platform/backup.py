"""Backs up what the engines' data is worth nothing without: Secrets, Helm's records, settings, Prefect's database.

Secrets and Helm's records are one list each that `kubectl apply -f` takes. Prefect's database is dumped by pg_dump,
or copied by SQLite itself, as its connection URL says (Secret `backup.prefect_database_secret`, key `url`).
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from urllib.parse import unquote, urlsplit

from psycopg.conninfo import make_conninfo

from archive.backup.manifest import Consistency, Engine, Measure
from archive.backup.writer import SetWriter
from archive.streams.spool import pieces
from cluster.credentials import read_secret
from cluster.kube import HELM_RECORD, Manifest
from components.access import Access
from components.base import BackupContent
from components.postgresql.client import program
from errors import PermanentError

TOKENS = "kubernetes.io/service-account-token"
KEPT = ("name", "namespace", "labels", "annotations")
NOT_COVERED = (
    "the engines' volumes and claims (each engine's own backup has its data)",
    "Secrets of other namespaces, including the object store's credentials",
    "logs, metrics and events",
    "the private age keys, which have to be kept elsewhere",
)


def back_up(access: Access, writer: SetWriter) -> BackupContent:
    """Take one backup of what runs the platform.

    Raises:
        TemporaryError: the API server or Prefect's database is away.
    """
    begun = datetime.now(UTC)
    namespace = access.settings.kubernetes.namespace
    found = access.kube.list("v1", "Secret", namespace)
    plain = [_applicable(s) for s in found if s.get("type") not in (HELM_RECORD, TOKENS)]
    records = [_applicable(s) for s in found if s.get("type") == HELM_RECORD]
    writer.add("secrets.json", "secrets", "kubectl list", [_list(plain)])
    writer.add("helm-releases.json", "releases", "kubectl list", [_list(records)])
    writer.add_json("settings.json", "settings", access.settings.model_dump(mode="json"))
    missing, tools, database = _prefect(access, writer)
    ended = datetime.now(UTC)
    units = ["secrets", "releases", "settings", *(["Prefect"] if database else [])]
    return BackupContent(
        engine=Engine(name="Kubernetes", version=access.kube.version()),
        topology={"prefect_database": database},
        consistency=tuple(
            Consistency(unit=unit, point="one read", begun=begun, ended=ended) for unit in units
        ),
        fingerprint=(
            measure_names("secrets", plain),
            measure_names("releases", records),
        ),
        tools=tools,
        not_covered=NOT_COVERED,
        missing=tuple(missing),
    )


# ---------------------------------------------------------------------- objects of the cluster
def _applicable(secret: Manifest) -> Manifest:
    """An object without what its own cluster gave it."""
    metadata = {key: value for key, value in secret["metadata"].items() if key in KEPT}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        "type": secret.get("type", "Opaque"),
        "data": secret.get("data") or {},
    }


def _list(items: list[Manifest]) -> bytes:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items}, indent=1).encode()


def _name(secret: Manifest) -> str:
    return str(secret["metadata"]["name"])


def measure_names(unit: str, secrets: list[Manifest]) -> Measure:
    """Names and keys only: a digest of passwords in a readable manifest could be tried out."""
    names = [f"{_name(s)} {sorted(s.get('data') or {})}" for s in secrets]
    text = "\n".join(sorted(names)).encode()
    digest = blake2b(text, digest_size=16).hexdigest() if names else ""
    return Measure(unit=unit, item="names", count=len(names), digest=digest, origin="source")


# ---------------------------------------------------------------------- Prefect
def _prefect(access: Access, writer: SetWriter) -> tuple[list[str], dict[str, str], str]:
    """Store Prefect's database; returns what is missing, the tools, and its kind."""
    name = access.settings.backup.prefect_database_secret
    secret = read_secret(access.kube, access.settings.kubernetes.control_namespace, name)
    url = urlsplit((secret or {}).get("url", ""))
    kind = url.scheme.partition("+")[0]
    if kind.startswith("postgres"):
        pg_dump = program(access, "pg_dump", unquote(url.password or ""))
        where = make_conninfo(
            host=url.hostname,
            port=url.port or 5432,
            user=unquote(url.username or ""),
            dbname=unquote(url.path.lstrip("/")),
            connect_timeout=10,
        )
        dump = pg_dump.stream(
            f"--dbname={where}", "--format=custom", "--compress=0", "--no-password",
            stall=access.settings.backup.stall_seconds,
        )  # fmt: skip
        writer.add("prefect.dump", "Prefect", "pg_dump custom", dump)
        return [], {"pg_dump": pg_dump.run("--version", timeout=20).stdout.strip()}, "PostgreSQL"
    if kind == "sqlite":
        writer.add(
            "prefect.db", "Prefect", "SQLite", _sqlite(Path(unquote(url.path)), writer.spool)
        )
        return [], {"sqlite": sqlite3.sqlite_version}, "SQLite"
    where = f"{access.settings.kubernetes.control_namespace}/{name}"
    return [f"Prefect's database: Secret {where} has no key url with its connection URL"], {}, ""


def _sqlite(file: Path, spool: Path) -> Iterator[bytes]:
    """A copy as of one moment, while Prefect goes on writing."""
    if not file.is_absolute():
        file = Path("/") / file
    if not file.exists():
        raise PermanentError(f"Prefect's database {file} is not on this machine")
    with tempfile.NamedTemporaryFile(dir=spool) as copy:
        source, target = sqlite3.connect(file), sqlite3.connect(copy.name)
        try:
            source.backup(target)
        finally:
            source.close()
            target.close()
        yield from pieces(copy)
