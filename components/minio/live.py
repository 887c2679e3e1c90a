"""Replaces buckets of the live MinIO by those of a backup: the old versions go, the backup's are written, oldest first.

A bucket with object lock is left as it is, since that is what the lock is for: it is restored only if it does not
exist. MinIO can stop all clients or none (`mc admin service freeze` would stop us too), so writers are not fenced.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

from archive.cleanup_journal import CleanupJournal
from archive.manifest import Measure
from archive.reader import SetReader
from components.access import Access, Endpoint
from components.base import Live, RunningScratch, without_fence
from components.minio.capacity import refusals
from components.minio.client import PORT, STATEFULSET, admin, connect, health
from components.minio.exports import RIGHTS as RIGHTS_UNIT
from components.minio.exports import (
    import_zip,
    measure_rights,
    rights_apart,
    settings_of,
    some_settings,
    without_lapsed_rules,
)
from components.minio.fingerprint import BucketMeasure
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
from components.minio.rights import complete, importable, of_the_set, with_live_keys
from components.minio.versions import Among, Version, list_versions, read_versions
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
        TemporaryError: it has no write quorum, or went away.
    """
    server, wanted = _server(access), set(chosen)
    buckets: dict[str, Any] = reader.manifest.topology["buckets"]
    names = [name for name in buckets if f"bucket {name}" in wanted]
    with explained():
        info, usage = (admin(access, server, path).json() for path in ("info", "datausageinfo"))
        there = connect(access, server, attempts=ATTEMPTS).list_buckets()["Buckets"]
    return refusals(buckets, names, info, usage, {str(bucket["Name"]) for bucket in there})


def replace(
    access: Access,
    served: RunningScratch | None,
    reader: SetReader,
    chosen: Iterable[str],
    cleanup: CleanupJournal,
) -> list[str]:
    """Restore buckets with their settings in the place of the live ones; with all of them also the rights, over those
    that there are. Users who are there keep their secret keys.

    Returns:
        What of the settings MinIO does not take, and whose secret keys are the backup's, for people.

    Raises:
        Damaged: an artefact is not what was stored.
        PermanentError: a bucket is locked; MinIO refuses something.
        TemporaryError: it went away.
    """
    server = _server(access)
    client = connect(access, server, attempts=ATTEMPTS, connections=WRITERS + 2)
    made: dict[str, Any] = reader.json("buckets.json")
    wanted = [name for name in made if f"bucket {name}" in set(chosen)]
    with explained(), held_bytes(access, reader, made) as held:
        there = {str(bucket["Name"]) for bucket in client.list_buckets()["Buckets"]}
        locked = [name for name in wanted if name in there and made[name]["object_lock"]]
        filled = [name for name in locked if next(list_versions(client, name), None) is not None]
        if filled:
            raise PermanentError(
                f"{', '.join(filled)}: object lock protects the current objects; restore the other buckets by name "
                "(--unit)"
            )
        told: list[str] = []
        with cleanup.replacing(chosen):
            for name in wanted:
                if name in there:
                    remove_bucket(client, name)
                make_bucket(client, name, made[name])
                replay(client, name, reader, held)
            settings = some_settings(reader.read(SETTINGS), lambda bucket, _: bucket in wanted)
            settings, rules = without_lapsed_rules(settings, datetime.now(UTC))
            told += [f"left out: {rule}" for rule in rules]
            told += import_zip(access, server, IMPORT_SETTINGS, settings)
            if len(wanted) == len(made):  # permissions belong to no bucket
                told += _restore_rights(access, server, reader.read(RIGHTS))
    return told


def measure(access: Access, reader: SetReader, chosen: Iterable[str]) -> list[Measure]:
    """What the live buckets hold now of a backup's versions; clients have written others since."""
    server = _server(access)
    client = connect(access, server, attempts=ATTEMPTS, connections=WRITERS + 2)
    found: list[Measure] = []
    buckets = [unit.partition(" ")[2] for unit in chosen]
    with explained():
        for name in buckets:
            found += _of_the_set(client, reader, name).measures()
        found += settings_of(access, server, reader, buckets)
        if _are_all(reader, chosen):
            export = admin(access, server, "export-iam").content
            kept = of_the_set(export, reader.read(RIGHTS))
            found += measure_rights(kept, apart=rights_apart(reader.manifest))
    return with_lapsed_retentions(found, reader)


def wanted_of(reader: SetReader, chosen: Iterable[str]) -> list[Measure]:
    """What the buckets must hold, and the rights where these were restored."""
    units = {*chosen, RIGHTS_UNIT} if _are_all(reader, chosen) else set(chosen)
    return [measure for measure in reader.manifest.fingerprint if measure.unit in units]


def remove_bucket(client: Any, bucket: str) -> None:
    """Delete a bucket with all that it holds, however fast clients go on writing into it.

    Args:
        client: of MinIO; its own header for that is no part of S3.
        bucket: that has no object lock, or is empty.
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
    found, among = BucketMeasure(bucket), Among(stored_versions(reader, bucket))

    def note(version: Version) -> None:
        if among(version):
            found.add(version)

    read_versions(client, bucket, note)
    return found


def _with_content(params: dict[str, Any], **_: Any) -> None:
    params["headers"][FORCE] = "true"


def _are_all(reader: SetReader, chosen: Iterable[str]) -> bool:
    """Whether these are all buckets of a backup: then its rights are restored too."""
    return set(units(reader)) <= set(chosen)


def _restore_rights(access: Access, server: Endpoint, export: bytes) -> list[str]:
    """Give MinIO the rights of a backup; returns what people must know of it."""
    live = admin(access, server, "export-iam").content
    rights, gone = with_live_keys(export, live)
    rights, over = importable(rights, datetime.now(UTC))
    import_zip(access, server, IMPORT_RIGHTS, rights)
    complete(access, server, rights)
    back = sorted(set(gone) - set(over))
    told = [f"restored with the secret keys of the backup: {', '.join(back)}"] if back else []
    if over:
        told.append(f"not restored, because they have expired or are about to: {', '.join(over)}")
    return told


def _server(access: Access) -> Endpoint:
    for server in access.endpoints(STATEFULSET, access.settings.components.minio.members, PORT):
        with explained():
            if server.host and health(access, server, "cluster") == 200:
                return server
    raise TemporaryError("MinIO has no write quorum: see `isa status`", delay=20)
