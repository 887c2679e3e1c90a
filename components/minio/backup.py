"""Backs up MinIO: all versions of all buckets, the rights, and the settings of buckets. Incremental by version.

A bucket is stored as a tar of contents and a list of its versions. Users, policies and settings are stored as MinIO's
own exports (`mc admin cluster iam export`, `mc admin cluster bucket export`). A MinIO is never backed up into itself.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from httpx import HTTPError, HTTPStatusError

from archive.backup.manifest import Consistency, Engine, Measure
from archive.backup.writer import SetWriter
from archive.catalogue.chain import open_chain
from archive.streams.spool import pieces
from components.access import Access, Endpoint
from components.base import BackupContent
from components.minio.admin.exports import joined, measure_rights, measure_settings
from components.minio.capacity import KMS
from components.minio.client import PORT, STATEFULSET, admin, connect, health
from components.minio.fingerprint import BucketMeasure
from components.minio.objects.index import Index, hash_of, packed, record
from components.minio.objects.versions import READERS, Unlisted, Version, VersionTar, listing
from components.questions import PROBE
from errors import PermanentError, TemporaryError

INDEX = "versions.bin"  # earlier versions wrote `index.bin`, with plain hashes of the contents
NOT_COVERED = (
    "a common recovery point: objects are read one after another while clients write; each version is complete",
    "version ids and modification times: a restore creates new ones, and lifecycle rules count from the new times",
    "ETags of multipart objects, checksums that clients sent, and incomplete uploads",
    "objects encrypted with client keys (SSE-C)",
    "the KMS key of each object: a restore encrypts with the default key",
    "objects whose key continues another object's key (`dir/x` beside `dir`): MinIO lists only `dir`, and a restore "
    "of the bucket deletes `dir/x`",
    "event notifications, replication queues, and objects moved to a remote tier",
    "temporary credentials (STS)",
    "the root user's password (the backup of `platform` has the Secret)",
)
ATTEMPTS = 4
EXPORT_SETTINGS = "export-bucket-metadata"
ENCRYPTED = "ServerSideEncryption"  # header of a version that MinIO encrypts with keys of its own
NO_LOCK = "ObjectLockConfigurationNotFoundError"


def back_up(access: Access, writer: SetWriter) -> BackupContent:
    """Take one backup of all buckets.

    Raises:
        PermanentError: the store for backups is this MinIO.
        TemporaryError: MinIO has no read quorum, or went away.
    """
    server = _server(access)
    client = connect(access, server, attempts=ATTEMPTS, connections=READERS + 2)
    buckets = [name for name in _list_buckets(client) if name != PROBE]
    _refuse_itself(access, writer, client)
    days = access.settings.backup.minio.full_every_days
    sets = open_chain(writer.earlier, days, interval=writer.interval)
    if sets and not any(artefact.name == INDEX for artefact in sets[-1].artefacts):
        sets = ()  # an index of an earlier version cannot be used, so this backup is a full one
    chain = tuple(manifest.id for manifest in sets)
    index = Index(writer.read_plain(sets[-1], INDEX), chain) if sets else Index()
    results: dict[str, BucketBackup] = {}
    missing: list[str] = []
    for bucket in buckets:
        try:
            results[bucket] = _bucket(writer, client, bucket, index, chain)
        except Unlisted as exc:
            writer.drop(f"buckets/{bucket}/")
            if not exc.gone:  # a bucket that a client deleted does not belong to this backup
                _list_buckets(client)  # fails if MinIO itself does not answer
                missing.append(f"bucket {bucket}: {exc}")
            continue
        unreadable = results[bucket].unreadable
        missing += [
            f"bucket {bucket}: {count} versions, {why}" for why, count in unreadable.items()
        ]
    if missing and not results:
        raise TemporaryError(f"no bucket of MinIO could be read: {'; '.join(missing)}", delay=30)
    settings = {bucket: result.settings for bucket, result in results.items()}
    measures = [measure for result in results.values() for measure in result.measures]
    records = [record for result in results.values() for record in result.records]
    writer.add_json("buckets.json", "settings", settings)
    exported = _exports(access, writer, server, list(results), missing)
    writer.add_plain(INDEX, "all buckets", "index of versions", packed(records))
    info = _info(access, server)
    return BackupContent(
        engine=Engine(
            name="MinIO",
            version=str(info["servers"][0].get("version", "")),
            identity=str(info.get("deploymentID", "")),
        ),
        topology={"buckets": settings, "servers": len(info["servers"])},
        consistency=tuple(result.consistency for result in results.values()),
        fingerprint=(*measures, *exported),
        not_covered=NOT_COVERED,
        missing=tuple(missing),
        needs=chain,
    )


def _server(access: Access) -> Endpoint:
    """The first server that reports a read quorum."""
    for server in access.endpoints(STATEFULSET, access.settings.components.minio.members, PORT):
        try:
            if server.host and health(access, server, "cluster/read") == 200:
                return server
        except HTTPError:
            continue
    raise TemporaryError("MinIO has no read quorum: see `isa status`", delay=20)


def _list_buckets(client: Any) -> list[str]:
    try:
        return [str(bucket["Name"]) for bucket in client.list_buckets()["Buckets"]]
    except (ClientError, BotoCoreError) as exc:
        raise TemporaryError(f"MinIO cannot list its buckets: {exc}") from exc


def _refuse_itself(access: Access, writer: SetWriter, client: Any) -> None:
    """Begin an upload in the store for backups and look for it in the source. If it is there, both are one server.

    An aborted upload leaves no version and nothing that an object lock could keep.
    """
    store, mark = writer.store, f"{writer.prefix}mark"
    upload = store.begin(mark)
    try:
        client.list_parts(Bucket=store.bucket, Key=mark, UploadId=upload)
    except (ClientError, BotoCoreError) as exc:
        answer = exc.response["ResponseMetadata"] if isinstance(exc, ClientError) else {}
        if 0 < int(answer.get("HTTPStatusCode", 0)) < 500:
            return  # no such upload, no such bucket
        raise TemporaryError(f"MinIO cannot tell whether it holds {mark}: {exc}") from exc
    finally:
        store.abort(mark, upload)
    raise PermanentError(
        f"storage.object.endpoint {access.settings.storage.object.endpoint} is the MinIO that would be backed up: "
        "backups need another object store. Set it to the array's own S3 service"
    )


# ---------------------------------------------------------------------- one bucket
@dataclass(frozen=True)
class BucketBackup:
    """The backup of one bucket.

    Attributes:
        measures: its fingerprint.
        consistency: its recovery point.
        settings: what a restore needs to create it, its size, and whether MinIO encrypts objects in it.
        records: records of its versions, for the index of the next backup.
        unreadable: reason → number of versions that are not in the backup.
    """

    measures: list[Measure]
    consistency: Consistency
    settings: dict[str, Any]
    records: list[bytes]
    unreadable: dict[str, int]


def _bucket(
    writer: SetWriter, client: Any, bucket: str, index: Index, chain: tuple[str, ...]
) -> BucketBackup:
    """Store a bucket.

    Raises:
        Unlisted: the bucket cannot be read.
        TemporaryError: MinIO or the store for backups does not answer.
    """
    begun, unit = datetime.now(UTC), f"bucket {bucket}"
    numbers = {identity: number for number, identity in enumerate(chain)}
    measure, records, encrypted = BucketMeasure(bucket), list[bytes](), False
    with tempfile.TemporaryFile(dir=writer.spool) as lines:

        def note(version: Version) -> None:
            nonlocal encrypted
            measure.add(version)
            lines.write(json.dumps(asdict(version)).encode() + b"\n")
            encrypted = encrypted or ENCRYPTED in version.headers
            if version.marker:
                return
            version_hash = hash_of(bucket, version.key, version.identity, version.etag)
            records.append(
                record(version_hash, version.content, numbers.get(version.held, len(chain)))
            )

        def earlier(version: Version) -> tuple[str, str] | None:
            return index.find(hash_of(bucket, version.key, version.identity, version.etag))

        tar = VersionTar(client, bucket, earlier, note)
        name, size = f"buckets/{bucket}/versions.tar", _estimate(client, bucket)
        writer.add(name, unit, "tar of objects' bytes", tar, size)
        lines.seek(0)
        writer.add(f"buckets/{bucket}/versions.jsonl", unit, "JSON lines", pieces(lines))
    settings = {**_settings(client, bucket), "bytes": measure.bytes, KMS: encrypted}
    moments = Consistency(
        unit=unit, point="each version by itself", begun=begun, ended=datetime.now(UTC)
    )
    return BucketBackup(measure.measures(), moments, settings, records, tar.unreadable)


def _estimate(client: Any, bucket: str) -> int:
    """A rough size, for the size of upload parts: that of the first page, times 100 if there are more."""
    with listing(bucket):
        page = client.list_object_versions(Bucket=bucket)
    size = sum(int(entry["Size"]) for entry in page.get("Versions", []))
    return size * 100 if page.get("IsTruncated") else size


# ---------------------------------------------------------------------- the rest
def _settings(client: Any, bucket: str) -> dict[str, Any]:
    """The settings that a bucket must be created with. All others are in MinIO's export."""
    with listing(bucket):
        versioning = client.get_bucket_versioning(Bucket=bucket).get("Status", "")
        try:
            lock = client.get_object_lock_configuration(Bucket=bucket)["ObjectLockConfiguration"]
        except ClientError as exc:
            if exc.response["Error"].get("Code") != NO_LOCK:
                raise
            lock = {}
    return {"versioning": versioning, "object_lock": lock}


def _exports(
    access: Access, writer: SetWriter, server: Endpoint, buckets: list[str], missing: list[str]
) -> list[Measure]:
    """Store MinIO's own exports. Adds buckets whose settings cannot be exported to `missing`."""
    try:
        rights = admin(access, server, "export-iam").content
        settings = _settings_of_all(access, server, buckets, missing)
    except HTTPError as exc:
        raise TemporaryError(f"MinIO cannot export its settings: {exc}") from exc
    writer.add("iam.zip", "rights", "mc admin cluster iam export", [rights])
    writer.add("bucket-metadata.zip", "settings", "mc admin cluster bucket export", [settings])
    return [*measure_settings(settings, buckets), *measure_rights(rights)]


def _settings_of_all(
    access: Access, server: Endpoint, buckets: list[str], missing: list[str]
) -> bytes:
    """The export of the settings of all buckets. If it fails, each bucket is exported alone."""
    try:
        return admin(access, server, EXPORT_SETTINGS).content
    except HTTPStatusError:
        exports = []
        for bucket in buckets:
            try:
                exports.append(admin(access, server, EXPORT_SETTINGS, bucket=bucket).content)
            except HTTPStatusError as exc:
                missing.append(f"bucket {bucket}: MinIO cannot export its settings: {exc}")
        if not exports:
            raise
        return joined(exports)


def _info(access: Access, server: Endpoint) -> dict[str, Any]:
    try:
        info: dict[str, Any] = admin(access, server, "info").json()
    except HTTPError as exc:
        raise TemporaryError(f"MinIO does not answer with its version: {exc}") from exc
    return info
