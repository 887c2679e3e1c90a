"""Restores MinIO: buckets, every version of every object (oldest first), then rights and settings.

Versions get new ids and times. If an earlier backup of the chain has the bytes of a version, they are found by their
content hash.
"""

from __future__ import annotations

import base64
import json
import secrets
import tarfile
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from boto3.s3.transfer import TransferConfig
from botocore.exceptions import BotoCoreError, ClientError
from httpx import HTTPError, HTTPStatusError

from archive.backup.manifest import Manifest, Measure
from archive.backup.reader import SetReader, opened
from archive.object_store.upload import PARALLEL_PARTS, part_size
from archive.streams.spool import prepare_spool
from archive.streams.unpacking import Unreadable, readable
from components.access import Access, Endpoint
from components.base import Restore, Scratch
from components.minio.admin.exports import (
    ELSEWHERE,
    LIFECYCLE,
    import_zip,
    measure_rights,
    rights_apart,
    settings_of,
    some_settings,
)
from components.minio.admin.rights import complete, importable
from components.minio.client import PORT, STATEFULSET, admin, connect, health
from components.minio.fingerprint import LOCK, BucketMeasure, retained_until
from components.minio.objects.versions import Version, read_versions
from config.models import Settings
from errors import IsaError, PermanentError, TemporaryError

LISTS, TARS = "JSON lines", "tar of objects' bytes"
WRITERS, ATTEMPTS = 8, 4
WHOLE_BYTES = (
    16 << 20
)  # larger objects are sent in parts; smaller versions of one key are collected in memory
# MinIO's exports in a backup, and the admin API's names for their import.
SETTINGS, IMPORT_SETTINGS = "bucket-metadata.zip", "import-bucket-metadata"
RIGHTS, IMPORT_RIGHTS = "iam.zip", "import-iam-v2"


def scratch(_: Settings, manifest: Manifest, password: str) -> tuple[Scratch, ...]:
    """One server with one drive and a KMS key, for buckets that require encryption."""
    key = base64.b64encode(secrets.token_bytes(32)).decode()
    environ = {
        "MINIO_ROOT_USER": "isa-proof",
        "MINIO_ROOT_PASSWORD": password,
        "MINIO_KMS_SECRET_KEY": f"isa-proof:{key}",
        "MINIO_UPDATE": "off",  # no outgoing check for a newer version
        "MINIO_BROWSER": "off",
        "MINIO_CI_CD": "1",  # accept a directory as a drive
    }
    command = (
        "minio",
        "server",
        "--address",
        f"0.0.0.0:{PORT}",
        "/scratch/drive",
    )
    login = {"rootUser": "isa-proof", "rootPassword": password}
    return (
        Scratch("", STATEFULSET, "minio", command, PORT, environ, secrets={"minio-auth": login}),
    )  # fmt: skip


def place(reader: SetReader, name: str, directory: Path) -> None:
    """Nothing to place: objects are restored over the network."""


def ask(access: Access, endpoint: Endpoint) -> str:
    """The server's version, once it has a write quorum."""
    if health(access, endpoint, "cluster") != 200:
        raise TemporaryError(f"{endpoint.member} has no write quorum")
    info = admin(access, endpoint, "info").json()
    return f"MinIO {info['servers'][0].get('version', '')}"


def load(access: Access, at: Mapping[str, Endpoint], reader: SetReader) -> None:
    """Create all buckets with all versions, then import rights and settings.

    Settings that name other servers are left out: a scratch server would send events and objects to them.

    Raises:
        Damaged: an artefact differs from what was stored.
        PermanentError: the server refuses something; has its message.
        TemporaryError: the server went away.
    """
    server = next(iter(at.values()))
    client = connect(access, server, attempts=ATTEMPTS, connections=WRITERS + 2)
    buckets: dict[str, Any] = reader.json("buckets.json")
    with explained(), held_bytes(access, reader, buckets) as earlier_files:
        for bucket, creation in buckets.items():
            make_bucket(client, bucket, creation)
            replay(client, bucket, reader, earlier_files)
        # lifecycle rules delete objects, so they are set after the versions were measured
        excluded = (LIFECYCLE, *ELSEWHERE)
        settings = some_settings(reader.read(SETTINGS), lambda _, file: file not in excluded)
        import_zip(access, server, IMPORT_SETTINGS, settings)
        rights, _ = importable(reader.read(RIGHTS), datetime.now(UTC))
        import_zip(access, server, IMPORT_RIGHTS, rights)
        complete(access, server, rights)


def measure(
    access: Access, at: Mapping[str, Endpoint], reader: SetReader
) -> Mapping[str, list[Measure]]:
    """Measure all buckets of the server, and its rights.

    Raises:
        TemporaryError: the server went away.
    """
    server = next(iter(at.values()))
    client = connect(access, server, attempts=ATTEMPTS, connections=WRITERS + 2)
    measures: list[Measure] = []
    with explained():
        buckets = [str(entry["Name"]) for entry in client.list_buckets()["Buckets"]]
        for bucket in buckets:
            versions = BucketMeasure(bucket)
            read_versions(client, bucket, versions.add)
            measures += versions.measures()
        rules = some_settings(reader.read(SETTINGS), lambda _, file: file == LIFECYCLE)
        import_zip(access, server, IMPORT_SETTINGS, rules)
        measures += settings_of(access, server, reader, buckets)
        rights = admin(access, server, "export-iam").content
        measures += measure_rights(rights, apart=rights_apart(reader.manifest))
    return {"": with_lapsed_retentions(measures, reader)}


RESTORE = Restore(scratch, place, ask, load, measure)


# ---------------------------------------------------------------------- buckets
def make_bucket(client: Any, bucket: str, creation: Mapping[str, Any]) -> None:
    """Create a bucket with the object lock and versioning of the original."""
    client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=bool(creation["object_lock"]))
    if creation["versioning"] and not creation["object_lock"]:
        # also for a bucket with suspended versioning: it has versions, and the imported settings suspend it again
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})


# ---------------------------------------------------------------------- versions
def replay(client: Any, bucket: str, reader: SetReader, earlier_files: Mapping[str, Path]) -> None:
    """Write all versions of a bucket. The list and the tar are in the same order; each is read once."""
    tar = reader.stream(f"buckets/{bucket}/versions.tar")
    with (
        readable(f"the versions of bucket {bucket}"),
        opened(tar) as file,
        tarfile.open(fileobj=file, mode="r|") as archive,
        ThreadPoolExecutor(WRITERS, thread_name_prefix="versions") as pool,
    ):
        pending: deque[Future[None]] = deque()
        for _, versions in groupby(stored_versions(reader, bucket), key=lambda v: v.key):
            history: list[tuple[Version, bytes]] = []
            size = 0
            for version in versions:
                body = _body(archive, version, earlier_files)
                if (
                    size + version.size > WHOLE_BYTES
                ):  # the memory is used up: write the older versions first
                    _write_all(client, bucket, history)
                    history, size = [], 0
                if version.size > WHOLE_BYTES:
                    _write_in_parts(client, bucket, version, body)
                else:
                    history.append((version, b"" if body is None else body.read()))
                    size += version.size
            # versions of one key are written in order, different keys in parallel
            pending.append(pool.submit(_write_all, client, bucket, history))
            if len(pending) > WRITERS:
                pending.popleft().result()
        for future in pending:
            future.result()


def _write_in_parts(client: Any, bucket: str, version: Version, body: Any) -> None:
    # boto3 does not know the size of a stream; its default part size allows 80 GiB in 10,000 parts
    parts = TransferConfig(
        multipart_chunksize=part_size(version.size), max_concurrency=PARALLEL_PARTS
    )
    client.upload_fileobj(
        _Forwards(body), bucket, version.key, ExtraArgs=_arguments(version), Config=parts
    )


class _Forwards:
    """A file without seek: a streamed tar's file claims to be seekable, and then fails."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        return bytes(self._file.read(size))


def _write_all(client: Any, bucket: str, history: list[tuple[Version, bytes]]) -> None:
    for version, body in history:
        if version.marker:
            client.delete_object(Bucket=bucket, Key=version.key)
        else:
            client.put_object(Bucket=bucket, Key=version.key, Body=body, **_arguments(version))


def _arguments(version: Version) -> dict[str, Any]:
    arguments = {key: value for key, value in version.headers.items() if key != "StorageClass"}
    if LOCK[1] in arguments:
        until = retained_until(str(arguments[LOCK[1]]))
        arguments[LOCK[1]] = until
        if until <= datetime.now(UTC):  # S3 refuses a retention in the past
            del arguments[LOCK[0]], arguments[LOCK[1]]
    if version.tags:
        arguments["Tagging"] = urlencode(version.tags)
    if LOCK[0] in arguments or "ObjectLockLegalHoldStatus" in arguments:
        arguments["ChecksumAlgorithm"] = "SHA256"  # S3 requires a checksum for locked objects
    return arguments


def _body(archive: tarfile.TarFile, version: Version, earlier_files: Mapping[str, Path]) -> Any:
    if version.marker:
        return None
    if version.held:
        return earlier_files[version.content].open("rb")
    # the tar may have entries without a line in the list: their download was interrupted during the backup
    while (entry := archive.next()) is not None:
        if entry.name == version.file:
            return archive.extractfile(entry)
    raise Unreadable(f"{version.key}: its bytes are not where the index says")


def stored_versions(
    reader: SetReader, bucket: str, manifest: Manifest | None = None
) -> Iterator[Version]:
    """The versions of a bucket in a backup, in the order of its list."""
    with opened(reader.stream(f"buckets/{bucket}/versions.jsonl", manifest)) as file:
        for line in file:
            try:
                yield Version(**json.loads(line))
            except (ValueError, TypeError) as exc:
                raise Unreadable(f"the index of bucket {bucket} has an invalid line") from exc


@contextmanager
def held_bytes(
    access: Access, reader: SetReader, buckets: Mapping[str, Any]
) -> Iterator[Mapping[str, Path]]:
    """Files with the bytes that only earlier backups of the chain have, by content hash; removed at the end."""
    contents = {
        version.content
        for bucket in (buckets if reader.manifest.needs else ())
        for version in stored_versions(reader, bucket)
        if version.held
    }
    spool = access.settings.backup.spool
    with tempfile.TemporaryDirectory(dir=prepare_spool(spool)) as directory:
        files: dict[str, Path] = {}
        for earlier in reader.chain[:-1]:
            for name in reader.names(TARS, earlier):
                _keep(reader, earlier, name, contents - set(files), Path(directory), files)
        missing = sorted(contents - set(files))
        if missing:
            raise PermanentError(
                f"no backup of the chain has the bytes of {len(missing)} versions: {missing[0]}"
            )
        yield files


def _keep(
    reader: SetReader, earlier: Manifest, name: str, contents: set[str], directory: Path, saved: dict[str, Path],
) -> None:  # fmt: skip
    bucket = name.split("/")[1]
    files = {
        v.file: v.content
        for v in stored_versions(reader, bucket, earlier)
        if v.content in contents and v.file
    }
    with (
        readable(f"the versions of bucket {bucket}"),
        opened(reader.stream(name, earlier)) as file,
        tarfile.open(fileobj=file, mode="r|") as archive,
    ):
        for entry in archive:
            body = archive.extractfile(entry) if entry.name in files else None
            if body is not None:
                path = directory / str(len(saved))  # never a name from the backup
                with path.open("wb") as target:
                    while piece := body.read(1 << 20):
                        target.write(piece)
                saved[files[entry.name]] = path


# ---------------------------------------------------------------------- retention
def with_lapsed_retentions(measures: list[Measure], reader: SetReader) -> list[Measure]:
    """Ignore retentions that ended before the restore: they cannot be set again and have no effect.

    If the measured retentions differ from the manifest, they are compared with the retentions of the backup's list that
    still run. If those match, the manifest's measure is returned.
    """
    saved = {m.unit: m for m in reader.manifest.fingerprint if m.item == "retentions"}
    results = []
    for current in measures:
        if current.item == "retentions" and saved.get(current.unit) not in (None, current):
            running = BucketMeasure(current.unit.partition(" ")[2])
            for version in stored_versions(reader, running.bucket):
                if LOCK[1] not in _arguments(version):
                    for name in LOCK:
                        version.headers.pop(name, None)
                running.add(version)
            same = next(m for m in running.measures() if m.item == "retentions") == current
            results.append(saved[current.unit] if same else current)
        else:
            results.append(current)
    return results


@contextmanager
def explained() -> Iterator[None]:
    """Turn exceptions of the clients into the project's errors."""
    try:
        yield
    except ClientError as exc:
        status = int(exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        kind: type[IsaError] = PermanentError if 400 <= status < 500 else TemporaryError
        code = exc.response.get("Error", {}).get("Code", status)
        raise kind(f"MinIO, {exc.operation_name}: {code}", said=str(exc)) from exc
    except HTTPStatusError as exc:
        kind = PermanentError if exc.response.status_code < 500 else TemporaryError
        failure = f"MinIO, {exc.request.url.path}: HTTP {exc.response.status_code}"
        raise kind(failure, said=exc.response.text[:300]) from exc
    except (BotoCoreError, HTTPError) as exc:
        raise TemporaryError(f"MinIO: {exc}") from exc
