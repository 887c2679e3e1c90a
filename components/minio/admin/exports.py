"""Measures and imports MinIO's own exports: settings of buckets, and rights.

They are those of `mc admin cluster bucket export` and `mc admin cluster iam export`.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable, Collection, Iterable
from datetime import datetime
from hashlib import blake2b
from typing import Any

from archive.backup.manifest import Manifest, Measure
from archive.backup.reader import SetReader
from archive.streams.unpacking import unzip
from components.access import Access, Endpoint
from components.digest import expiring, few, part
from components.minio.admin.rights import SERVICE_ACCOUNTS, expires
from components.minio.client import admin
from errors import PermanentError

SETTINGS = "settings"
# Settings of a bucket that name other servers: event queues, replication targets, tiers, keys.
ELSEWHERE = ("notification.xml", "bucket-targets.json", "replication.xml")
NAMING = (b"<StorageClass>", b"<KMSMasterKeyID>")
# The time when MinIO wrote the file.
WRITTEN = re.compile(rb"<ExpiryUpdatedAt>[^<]*</ExpiryUpdatedAt>")
RIGHTS, EXPIRING = "rights", "svcaccts that expire"
LIFECYCLE = "lifecycle.xml"
RULE = re.compile(rb"<Rule>.*?</Rule>", re.DOTALL)
DATE = re.compile(rb"<Expiration>.*?<Date>([^<]*)</Date>", re.DOTALL)
EVENTS, KEYS, TIERS = "notification", "sse", "tier"  # MinIO's names in its refusals


def import_zip(access: Access, server: Endpoint, path: str, body: bytes) -> list[str]:
    """Import an export. MinIO imports the rest after an error; this function fails instead.

    Returns:
        Entries that MinIO refused because they name servers it does not know: event queues, keys, tiers.

    Raises:
        PermanentError: MinIO refused any other entry.
    """
    answer = admin(access, server, path, method="PUT", body=body)
    reply = answer.json() if answer.content.strip().startswith(b"{") else {}
    failed = [f"{kind}: {entry}" for kind, entry in (reply.get("failed") or {}).items() if entry]
    refused: list[str] = []
    for bucket, settings in (reply.get("buckets") or {}).items():
        for kind, status in settings.items():
            if error := status.get("error"):
                foreign = kind in (EVENTS, KEYS) or TIERS in error.lower()
                (refused if foreign else failed).append(f"{kind} of bucket {bucket}: {error}")
    if failed:
        raise PermanentError(
            f"MinIO, {path}: {len(failed)} entries rejected", said="; ".join(failed)[:1000]
        )
    return refused


def settings_of(
    access: Access, server: Endpoint, reader: SetReader, buckets: Iterable[str]
) -> list[Measure]:
    """Measure the settings of buckets whose settings the backup measured. Backups of earlier versions did not."""
    measured = {measure.unit for measure in reader.manifest.fingerprint if measure.item == SETTINGS}
    selected = [bucket for bucket in buckets if f"bucket {bucket}" in measured]
    export = admin(access, server, "export-bucket-metadata").content
    return measure_settings(export, selected)


def measure_settings(export: bytes, buckets: Collection[str]) -> list[Measure]:
    """Measure the settings of buckets: policy, lifecycle, quota, encryption, versioning, tags.

    Args:
        export: the zip of `mc admin cluster bucket export`.
        buckets: the buckets to measure.
    """
    settings_by_bucket: dict[str, dict[str, str]] = {bucket: {} for bucket in buckets}
    for name, body in unzip(export).items():
        bucket, _, file = name.partition("/")
        if (
            bucket not in settings_by_bucket
            or file in ELSEWHERE
            or any(word in body for word in NAMING)
        ):
            continue
        settings_by_bucket[bucket][file] = part(_setting(file, body))
    return [
        Measure(
            unit=f"bucket {bucket}", item=SETTINGS, count=len(names), digest=part(names),
            origin="source", names=names,
        )
        for bucket, names in settings_by_bucket.items()
    ]  # fmt: skip


def measure_rights(export: bytes, *, apart: bool = True) -> list[Measure]:
    """Measure an IAM export: names and documents, without secrets.

    Args:
        export: the zip of `mc admin cluster iam export`.
        apart: count service accounts that expire separately; backups of earlier versions did not.
    """
    measures = []
    for name, content in sorted(unzip(export).items()):
        document = json.loads(content or b"null") or {}
        kind = name.rpartition("/")[2].removesuffix(".json")
        if apart and name.endswith(SERVICE_ACCOUNTS):
            ending = [key for key, account in document.items() if expires(account)]
            document = {key: document[key] for key in document if key not in ending}
            measures.append(expiring(RIGHTS, EXPIRING, len(ending)))
        entries = {entry: _public(value) for entry, value in document.items()}
        text = json.dumps(entries, sort_keys=True).encode()
        digest = blake2b(text, digest_size=16).hexdigest() if entries else ""
        names = few({entry: part(value) for entry, value in entries.items()})
        measures.append(
            Measure(
                unit=RIGHTS,
                item=kind,
                count=len(entries),
                digest=digest,
                origin="source",
                names=names,
            )
        )
    return measures


def rights_apart(manifest: Manifest) -> bool:
    """Whether a backup counted service accounts that expire separately."""
    return any(
        measure.unit == RIGHTS and measure.item == EXPIRING for measure in manifest.fingerprint
    )


def joined(exports: Iterable[bytes]) -> bytes:
    """Join exports of single buckets into one export."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target:
        for export in exports:
            for name, body in unzip(export).items():
                target.writestr(name, body)
    return buffer.getvalue()


def some_settings(export: bytes, selected: Callable[[str, str], bool]) -> bytes:
    """An export with only some of its files.

    Args:
        export: the zip of `mc admin cluster bucket export`.
        selected: whether to keep a file; called with bucket and file name.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        for name, body in unzip(export).items():
            bucket, _, file = name.partition("/")
            if selected(bucket, file):
                target.writestr(name, body)
    return buffer.getvalue()


def without_lapsed_rules(export: bytes, now: datetime) -> tuple[bytes, list[str]]:
    """Remove lifecycle rules whose date has passed: they would delete the objects that were just restored.

    Args:
        export: the zip of `mc admin cluster bucket export`.
        now: the current time.

    Returns:
        The export, and a description of each removed rule.
    """
    buffer, removed = io.BytesIO(), []
    with zipfile.ZipFile(buffer, "w") as target:
        for name, body in unzip(export).items():
            if name.endswith(f"/{LIFECYCLE}"):
                lapsed = [rule for rule in RULE.findall(body) if _has_lapsed(rule, now)]
                for rule in lapsed:
                    body = body.replace(rule, b"")
                    removed.append(
                        f"a lifecycle rule of bucket {name.partition('/')[0]}, because its date has passed"
                    )
                if lapsed and not RULE.search(body):
                    continue
            target.writestr(name, body)
    return buffer.getvalue(), removed


def _has_lapsed(rule: bytes, now: datetime) -> bool:
    date = DATE.search(rule)
    return bool(date and datetime.fromisoformat(date.group(1).decode()) <= now)


def _setting(file: str, body: bytes) -> Any:
    if file.endswith(".json"):
        return _public(json.loads(body or b"null"))
    return WRITTEN.sub(b"", body).decode()


def _public(value: Any) -> Any:
    """A value without secrets and without times that the server sets."""
    if isinstance(value, list):  # MinIO returns a policy's actions in a different order every time
        return sorted(
            (_public(inner) for inner in value), key=lambda inner: json.dumps(inner, sort_keys=True)
        )
    if not isinstance(value, dict):
        return value
    hidden = ("secretKey", "sessionToken", "updatedAt", "UpdateDate", "CreateDate")
    return {name: _public(inner) for name, inner in value.items() if name not in hidden}
