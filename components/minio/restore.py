"""Brings MinIO back: buckets as they were made, every version of every object, oldest first, then rights and settings.

Version ids and times are new ones. Versions whose bytes an earlier backup has are taken from there, by their content.
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

from archive.manifest import Manifest, Measure
from archive.reader import SetReader, opened
from archive.spool import prepare_spool
from archive.unpacking import Unreadable, readable
from archive.upload import PARALLEL_PARTS, part_size
from components.access import Access, Endpoint
from components.base import Restore, Scratch
from components.minio.client import PORT, STATEFULSET, admin, connect, health
from components.minio.exports import (
    ELSEWHERE,
    LIFECYCLE,
    import_zip,
    measure_rights,
    rights_apart,
    settings_of,
    some_settings,
)
from components.minio.fingerprint import LOCK, BucketMeasure, retained_until
from components.minio.rights import complete, importable
from components.minio.versions import Version, read_versions
from config.models import Settings
from errors import IsaError, PermanentError, TemporaryError

LISTS, TARS = "JSON lines", "tar of objects' bytes"
WRITERS, ATTEMPTS = 8, 4
WHOLE_BYTES = 16 << 20  # up to here an object is sent in one piece, and a key's versions wait
# MinIO's exports in a backup, and the admin API's names for their import.
SETTINGS, IMPORT_SETTINGS = "bucket-metadata.zip", "import-bucket-metadata"
RIGHTS, IMPORT_RIGHTS = "iam.zip", "import-iam-v2"


def scratch(_: Settings, manifest: Manifest, password: str) -> tuple[Scratch, ...]:
    """One server with one drive; it can encrypt, for buckets that want it."""
    key = base64.b64encode(secrets.token_bytes(32)).decode()
    environ = {
        "MINIO_ROOT_USER": "isa-proof",
        "MINIO_ROOT_PASSWORD": password,
        "MINIO_KMS_SECRET_KEY": f"isa-proof:{key}",
        "MINIO_UPDATE": "off",  # it would ask its makers for a newer one
        "MINIO_BROWSER": "off",
        "MINIO_CI_CD": "1",  # takes a directory for a drive
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
    """Nothing: objects come over the network."""


def ask(access: Access, endpoint: Endpoint) -> str:
    """Version of a server that can be written to."""
    if health(access, endpoint, "cluster") != 200:
        raise TemporaryError(f"{endpoint.member} has no write quorum")
    found = admin(access, endpoint, "info").json()
    return f"MinIO {found['servers'][0].get('version', '')}"


def load(access: Access, at: Mapping[str, Endpoint], reader: SetReader) -> None:
    """Make all buckets with all versions, and give back rights and settings, but none that names another server: a
    scratch server would send it events and objects.

    Raises:
        Damaged: an artefact is not what was stored.
        PermanentError: the server refuses something; with its words.
        TemporaryError: it went away.
    """
    server = next(iter(at.values()))
    client = connect(access, server, attempts=ATTEMPTS, connections=WRITERS + 2)
    made: dict[str, Any] = reader.json("buckets.json")
    with explained(), held_bytes(access, reader, made) as held:
        for bucket, how in made.items():
            make_bucket(client, bucket, how)
            replay(client, bucket, reader, held)
        # a lifecycle deletes by time: it is set when the versions were measured
        apart = (LIFECYCLE, *ELSEWHERE)
        still = some_settings(reader.read(SETTINGS), lambda _, file: file not in apart)
        import_zip(access, server, IMPORT_SETTINGS, still)
        rights, _ = importable(reader.read(RIGHTS), datetime.now(UTC))
        import_zip(access, server, IMPORT_RIGHTS, rights)
        complete(access, server, rights)


def measure(
    access: Access, at: Mapping[str, Endpoint], reader: SetReader
) -> Mapping[str, list[Measure]]:
    """What the buckets hold that the server lists, and its rights.

    Raises:
        TemporaryError: the server went away.
    """
    server = next(iter(at.values()))
    client = connect(access, server, attempts=ATTEMPTS, connections=WRITERS + 2)
    found: list[Measure] = []
    with explained():
        buckets = [str(entry["Name"]) for entry in client.list_buckets()["Buckets"]]
        for bucket in buckets:
            versions = BucketMeasure(bucket)
            read_versions(client, bucket, versions.add)
            found += versions.measures()
        rules = some_settings(reader.read(SETTINGS), lambda _, file: file == LIFECYCLE)
        import_zip(access, server, IMPORT_SETTINGS, rules)
        found += settings_of(access, server, reader, buckets)
        rights = admin(access, server, "export-iam").content
        found += measure_rights(rights, apart=rights_apart(reader.manifest))
    return {"": with_lapsed_retentions(found, reader)}


RESTORE = Restore(scratch, place, ask, load, measure)


# ---------------------------------------------------------------------- buckets
def make_bucket(client: Any, bucket: str, how: Mapping[str, Any]) -> None:
    """Make a bucket as it was made."""
    client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=bool(how["object_lock"]))
    if how["versioning"] and not how["object_lock"]:
        # a suspended one has versions too; the settings that are imported suspend it again
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})


# ---------------------------------------------------------------------- versions
def replay(client: Any, bucket: str, reader: SetReader, held: Mapping[str, Path]) -> None:
    """Write a bucket's versions again. The list and the tar are in the same order, each read once."""
    tar = reader.stream(f"buckets/{bucket}/versions.tar")
    with (
        readable(f"the versions of bucket {bucket}"),
        opened(tar) as file,
        tarfile.open(fileobj=file, mode="r|") as archive,
        ThreadPoolExecutor(WRITERS, thread_name_prefix="versions") as pool,
    ):
        under_way: deque[Future[None]] = deque()
        for _, versions in groupby(stored_versions(reader, bucket), key=lambda v: v.key):
            history: list[tuple[Version, bytes]] = []
            size = 0
            for version in versions:
                body = _body(archive, version, held)
                if size + version.size > WHOLE_BYTES:  # no more in memory; what is older first
                    _write_all(client, bucket, history)
                    history, size = [], 0
                if version.size > WHOLE_BYTES:
                    _write_in_parts(client, bucket, version, body)
                else:
                    history.append((version, b"" if body is None else body.read()))
                    size += version.size
            # a key's versions one after another, keys beside each other
            under_way.append(pool.submit(_write_all, client, bucket, history))
            if len(under_way) > WRITERS:
                under_way.popleft().result()
        for last in under_way:
            last.result()


def _write_in_parts(client: Any, bucket: str, version: Version, body: Any) -> None:
    # of what it cannot seek in, boto3 does not know the size: 10,000 parts of its own would be 80 GiB
    parts = TransferConfig(
        multipart_chunksize=part_size(version.size), max_concurrency=PARALLEL_PARTS
    )
    client.upload_fileobj(
        _Forwards(body), bucket, version.key, ExtraArgs=_arguments(version), Config=parts
    )


class _Forwards:
    """A file that is read once from its beginning: that of a streamed tar says it could be sought in, and fails."""

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
    given = {key: value for key, value in version.headers.items() if key != "StorageClass"}
    if LOCK[1] in given:
        until = retained_until(str(given[LOCK[1]]))
        given[LOCK[1]] = until
        if until <= datetime.now(UTC):  # it would be refused
            del given[LOCK[0]], given[LOCK[1]]
    if version.tags:
        given["Tagging"] = urlencode(version.tags)
    if LOCK[0] in given or "ObjectLockLegalHoldStatus" in given:
        given["ChecksumAlgorithm"] = "SHA256"  # S3 wants a checksum of what it locks
    return given


def _body(archive: tarfile.TarFile, version: Version, held: Mapping[str, Path]) -> Any:
    if version.marker:
        return None
    if version.held:
        return held[version.content].open("rb")
    # between them may be one that broke off while it was stored: no line speaks of it
    while (entry := archive.next()) is not None:
        if entry.name == version.file:
            return archive.extractfile(entry)
    raise Unreadable(f"{version.key}: its bytes are not where the index says")


def stored_versions(
    reader: SetReader, bucket: str, of: Manifest | None = None
) -> Iterator[Version]:
    """A backup's list of a bucket's versions, in its order."""
    with opened(reader.stream(f"buckets/{bucket}/versions.jsonl", of)) as file:
        for line in file:
            try:
                yield Version(**json.loads(line))
            except (ValueError, TypeError) as exc:
                raise Unreadable(f"the index of bucket {bucket} has an invalid line") from exc


@contextmanager
def held_bytes(
    access: Access, reader: SetReader, buckets: Mapping[str, Any]
) -> Iterator[Mapping[str, Path]]:
    """What earlier backups have of this one's versions, by content, on the spool's disk for a while."""
    wanted = {
        version.content
        for bucket in (buckets if reader.manifest.needs else ())
        for version in stored_versions(reader, bucket)
        if version.held
    }
    spool = access.settings.backup.spool
    with tempfile.TemporaryDirectory(dir=prepare_spool(spool)) as directory:
        found: dict[str, Path] = {}
        for earlier in reader.chain[:-1]:
            for name in reader.names(TARS, earlier):
                _keep(reader, earlier, name, wanted - set(found), Path(directory), found)
        lost = sorted(wanted - set(found))
        if lost:
            raise PermanentError(
                f"no backup of the chain has the bytes of {len(lost)} versions: {lost[0]}"
            )
        yield found


def _keep(
    reader: SetReader, earlier: Manifest, name: str, wanted: set[str], directory: Path, found: dict[str, Path],
) -> None:  # fmt: skip
    bucket = name.split("/")[1]
    files = {
        v.file: v.content
        for v in stored_versions(reader, bucket, earlier)
        if v.content in wanted and v.file
    }
    with (
        readable(f"the versions of bucket {bucket}"),
        opened(reader.stream(name, earlier)) as file,
        tarfile.open(fileobj=file, mode="r|") as archive,
    ):
        for entry in archive:
            body = archive.extractfile(entry) if entry.name in files else None
            if body is not None:
                place = directory / str(len(found))  # never a name of the backup's
                with place.open("wb") as target:
                    while piece := body.read(1 << 20):
                        target.write(piece)
                found[files[entry.name]] = place


# ---------------------------------------------------------------------- retention
def with_lapsed_retentions(found: list[Measure], reader: SetReader) -> list[Measure]:
    """A retention that had ended before the restore cannot be set again, and has no effect: no difference.

    Where some were, those that still run are compared with those of the list that still run; if they are the same,
    the manifest's measure holds.
    """
    wanted = {m.unit: m for m in reader.manifest.fingerprint if m.item == "retentions"}
    kept = []
    for one in found:
        if one.item == "retentions" and wanted.get(one.unit) not in (None, one):
            still = BucketMeasure(one.unit.partition(" ")[2])
            for version in stored_versions(reader, still.bucket):
                if LOCK[1] not in _arguments(version):
                    for name in LOCK:
                        version.headers.pop(name, None)
                still.add(version)
            same = next(m for m in still.measures() if m.item == "retentions") == one
            kept.append(wanted[one.unit] if same else one)
        else:
            kept.append(one)
    return kept


@contextmanager
def explained() -> Iterator[None]:
    """What the clients raise, in the project's own terms."""
    try:
        yield
    except ClientError as exc:
        status = int(exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        kind: type[IsaError] = PermanentError if 400 <= status < 500 else TemporaryError
        code = exc.response.get("Error", {}).get("Code", status)
        raise kind(f"MinIO, {exc.operation_name}: {code}", said=str(exc)) from exc
    except HTTPStatusError as exc:
        kind = PermanentError if exc.response.status_code < 500 else TemporaryError
        what = f"MinIO, {exc.request.url.path}: HTTP {exc.response.status_code}"
        raise kind(what, said=exc.response.text[:300]) from exc
    except (BotoCoreError, HTTPError) as exc:
        raise TemporaryError(f"MinIO: {exc}") from exc
