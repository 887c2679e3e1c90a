"""Replaces buckets of the live MinIO by those of a backup: deletes the old versions, writes the backup's, oldest first.

A bucket with object lock is restored only if it does not exist or is empty: the lock protects its objects. Writers are
not fenced, because `mc admin service freeze` blocks all clients, the restore included.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

from archive.backup.cleanup_journal import CleanupJournal
from archive.backup.manifest import Measure
from archive.backup.reader import SetReader
from components.access import Access, Endpoint
from components.base import Live, RunningScratch, without_fence
from components.minio.admin.exports import RIGHTS as RIGHTS_UNIT
from components.minio.admin.exports import (
    import_zip,
    measure_rights,
    rights_apart,
    settings_of,
    some_settings,
    without_lapsed_rules,
)
from components.minio.admin.rights import complete, importable, of_the_set, with_live_keys
from components.minio.capacity import refusals
from components.minio.client import PORT, STATEFULSET, admin, connect, health
from components.minio.fingerprint import BucketMeasure
from components.minio.objects.versions import Among, Version, list_versions, read_versions
from components.minio.restore import (
    ATTEMPTS,
    IMPORT_RIGHTS,
    IMPORT_SETTINGS,
    RIGHTS,
    SETTINGS,
    WRITERS,
    explained,
    held_bytes,
    make_bucket,
    replay,
    stored_versions,
    with_lapsed_retentions,
)
from errors import PermanentError, TemporaryError

# DeleteBucketHandler in https://github.com/minio/minio/blob/master/cmd/bucket-handlers.go
FORCE, BEFORE_DELETION = "x-minio-force-delete", "before-call.s3.DeleteBucket"


def units(reader: SetReader) -> dict[str, int]:
    """Buckets of the backup with their sizes."""
    buckets: dict[str, Any] = reader.manifest.topology["buckets"]
    return {f"bucket {name}": int(about["bytes"]) for name, about in buckets.items()}


def can_take(access: Access, reader: SetReader, chosen: Iterable[str]) -> list[str]:
    """Why MinIO would refuse buckets of a backup.

    Raises:
        TemporaryError: MinIO has no write quorum, or went away.
    """
    server, selected = _server(access), set(chosen)
    buckets: dict[str, Any] = reader.manifest.topology["buckets"]
    names = [name for name in buckets if f"bucket {name}" in selected]
    with explained():
        info, usage = (admin(access, server, path).json() for path in ("info", "datausageinfo"))
        live_buckets = connect(access, server, attempts=ATTEMPTS).list_buckets()["Buckets"]
    return refusals(buckets, names, info, usage, {str(bucket["Name"]) for bucket in live_buckets})


def replace(
    access: Access,
    served: RunningScratch | None,
    reader: SetReader,
    chosen: Iterable[str],
    cleanup: CleanupJournal,
) -> list[str]:
    """Replace live buckets and their settings by those of the backup.

    If all buckets of the backup are restored, its rights are imported too. Existing users keep their secret keys.

    Returns:
        Remarks for the report: settings that MinIO refused, and users that have the backup's secret keys.

    Raises:
        Damaged: an artefact differs from what was stored.
        PermanentError: a bucket has locked objects, or MinIO refuses something.
        TemporaryError: MinIO went away.
    """
    server = _server(access)
    client = connect(access, server, attempts=ATTEMPTS, connections=WRITERS + 2)
    buckets: dict[str, Any] = reader.json("buckets.json")
    names = [name for name in buckets if f"bucket {name}" in set(chosen)]
    with explained(), held_bytes(access, reader, buckets) as earlier_files:
        live_names = {str(bucket["Name"]) for bucket in client.list_buckets()["Buckets"]}
        locked = [name for name in names if name in live_names and buckets[name]["object_lock"]]
        nonempty = [name for name in locked if next(list_versions(client, name), None) is not None]
        if nonempty:
            raise PermanentError(
                f"{', '.join(nonempty)}: object lock protects the current objects; restore the other buckets by name "
                "(--unit)"
            )
        remarks: list[str] = []
        with cleanup.replacing(chosen):
            for name in names:
                if name in live_names:
                    remove_bucket(client, name)
                make_bucket(client, name, buckets[name])
                replay(client, name, reader, earlier_files)
            settings = some_settings(reader.read(SETTINGS), lambda bucket, _: bucket in names)
            settings, rules = without_lapsed_rules(settings, datetime.now(UTC))
            remarks += [f"left out: {rule}" for rule in rules]
            remarks += import_zip(access, server, IMPORT_SETTINGS, settings)
            if len(names) == len(buckets):  # rights belong to the whole server
                remarks += _restore_rights(access, server, reader.read(RIGHTS))
    return remarks


def measure(access: Access, reader: SetReader, chosen: Iterable[str]) -> list[Measure]:
    """Measure the backup's versions in the live buckets. Versions that clients have written since are left out."""
    server = _server(access)
    client = connect(access, server, attempts=ATTEMPTS, connections=WRITERS + 2)
    measures: list[Measure] = []
    buckets = [unit.partition(" ")[2] for unit in chosen]
    with explained():
        for name in buckets:
            measures += _of_the_set(client, reader, name).measures()
        measures += settings_of(access, server, reader, buckets)
        if _are_all(reader, chosen):
            export = admin(access, server, "export-iam").content
            comparable = of_the_set(export, reader.read(RIGHTS))
            measures += measure_rights(comparable, apart=rights_apart(reader.manifest))
    return with_lapsed_retentions(measures, reader)


def wanted_of(reader: SetReader, chosen: Iterable[str]) -> list[Measure]:
    """The expected measures: of the chosen buckets, and of the rights if all buckets were restored."""
    units = {*chosen, RIGHTS_UNIT} if _are_all(reader, chosen) else set(chosen)
    return [measure for measure in reader.manifest.fingerprint if measure.unit in units]


def remove_bucket(client: Any, bucket: str) -> None:
    """Delete a bucket with its content in one request, even while clients write to it.

    MinIO's header for this is not part of S3.

    Args:
        client: a client of MinIO.
        bucket: a bucket that has no object lock, or is empty.
    """
    try:
        client.delete_bucket(Bucket=bucket)
    except ClientError as exc:
        if exc.response["Error"]["Code"] != "BucketNotEmpty":
            raise
        client.meta.events.register(BEFORE_DELETION, _with_content)
        try:
            client.delete_bucket(Bucket=bucket)
        finally:
            client.meta.events.unregister(BEFORE_DELETION, _with_content)


LIVE = Live(
    units,
    without_fence(
        "clients keep access: what they write to a bucket during the restore is lost or mixed with the restored data"
    ),
    replace,
    measure,
    wanted=wanted_of,
    can_take=can_take,
    writers="MinIO cannot stop writers: what is written to a bucket until it is restored may be lost",
    accounts="if all buckets are restored, users and service accounts deleted since the backup come back with their "
    "old secret keys; existing ones keep their current keys",
)


def _of_the_set(client: Any, reader: SetReader, bucket: str) -> BucketMeasure:
    totals, stored = BucketMeasure(bucket), Among(stored_versions(reader, bucket))

    def note(version: Version) -> None:
        if stored(version):
            totals.add(version)

    read_versions(client, bucket, note)
    return totals


def _with_content(params: dict[str, Any], **_: Any) -> None:
    params["headers"][FORCE] = "true"


def _are_all(reader: SetReader, chosen: Iterable[str]) -> bool:
    """Whether all buckets of a backup are chosen. Then its rights are restored too."""
    return set(units(reader)) <= set(chosen)


def _restore_rights(access: Access, server: Endpoint, export: bytes) -> list[str]:
    """Import the rights of a backup. Returns remarks for the report."""
    live = admin(access, server, "export-iam").content
    rights, deleted = with_live_keys(export, live)
    rights, expired = importable(rights, datetime.now(UTC))
    import_zip(access, server, IMPORT_RIGHTS, rights)
    complete(access, server, rights)
    restored = sorted(set(deleted) - set(expired))
    remarks = (
        [f"restored with the secret keys of the backup: {', '.join(restored)}"] if restored else []
    )
    if expired:
        remarks.append(
            f"not restored, because they have expired or are about to: {', '.join(expired)}"
        )
    return remarks


def _server(access: Access) -> Endpoint:
    for server in access.endpoints(STATEFULSET, access.settings.components.minio.members, PORT):
        with explained():
            if server.host and health(access, server, "cluster") == 200:
                return server
    raise TemporaryError("MinIO has no write quorum: see `isa status`", delay=20)
