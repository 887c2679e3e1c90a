"""MinIO's own exports of what buckets are set to and of the rights: measured, and given back.

`mc admin cluster bucket export` and `mc admin cluster iam export` make the same.
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

from archive.manifest import Manifest, Measure
from archive.reader import SetReader
from archive.unpacking import unzip
from components.access import Access, Endpoint
from components.digest import expiring, few, part
from components.minio.client import admin
from components.minio.rights import SERVICE_ACCOUNTS, expires
from errors import PermanentError

SETTINGS = "settings"
# Of a bucket's settings, what names other servers: queues of its events, targets of its replication, tiers, keys.
ELSEWHERE = ("notification.xml", "bucket-targets.json", "replication.xml")
NAMING = (b"<StorageClass>", b"<KMSMasterKeyID>")
# when MinIO wrote it
WRITTEN = re.compile(rb"<ExpiryUpdatedAt>[^<]*</ExpiryUpdatedAt>")
RIGHTS, EXPIRING = "rights", "svcaccts that expire"
LIFECYCLE = "lifecycle.xml"
RULE = re.compile(rb"<Rule>.*?</Rule>", re.DOTALL)
DATE = re.compile(rb"<Expiration>.*?<Date>([^<]*)</Date>", re.DOTALL)
EVENTS, KEYS, TIERS = "notification", "sse", "tier"  # as MinIO calls what it refuses


def import_zip(access: Access, server: Endpoint, path: str, body: bytes) -> list[str]:
    """Give MinIO one of its own exports back; it goes on after a fault, which we do not.

    Returns:
        What this MinIO refused since it names other servers that it does not know: queues of events, keys, tiers.

    Raises:
        PermanentError: it refused anything else.
    """
    answer = admin(access, server, path, method="PUT", body=body)
    said = answer.json() if answer.content.strip().startswith(b"{") else {}
    failed = [f"{kind}: {entry}" for kind, entry in (said.get("failed") or {}).items() if entry]
    elsewhere: list[str] = []
    for bucket, settings in (said.get("buckets") or {}).items():
        for kind, status in settings.items():
            if error := status.get("error"):
                others = kind in (EVENTS, KEYS) or TIERS in error.lower()
                (elsewhere if others else failed).append(f"{kind} of bucket {bucket}: {error}")
    if failed:
        raise PermanentError(
            f"MinIO, {path}: {len(failed)} entries rejected", said="; ".join(failed)[:1000]
        )
    return elsewhere


def settings_of(
    access: Access, server: Endpoint, reader: SetReader, buckets: Iterable[str]
) -> list[Measure]:
    """What buckets are set to, of those whose set measured it: earlier ones did not."""
    known = {measure.unit for measure in reader.manifest.fingerprint if measure.item == SETTINGS}
    wanted = [bucket for bucket in buckets if f"bucket {bucket}" in known]
    export = admin(access, server, "export-bucket-metadata").content
    return measure_settings(export, wanted)


def measure_settings(export: bytes, buckets: Collection[str]) -> list[Measure]:
    """Measure what buckets are set to: policy, lifecycle, quota, encryption, versioning, tags.

    Args:
        export: the zip of `mc admin cluster bucket export`.
        buckets: whose settings count.
    """
    named: dict[str, dict[str, str]] = {bucket: {} for bucket in buckets}
    for name, body in unzip(export).items():
        bucket, _, file = name.partition("/")
        if bucket not in named or file in ELSEWHERE or any(word in body for word in NAMING):
            continue
        named[bucket][file] = part(_setting(file, body))
    return [
        Measure(
            unit=f"bucket {bucket}", item=SETTINGS, count=len(names), digest=part(names),
            origin="source", names=names,
        )
        for bucket, names in named.items()
    ]  # fmt: skip


def measure_rights(export: bytes, *, apart: bool = True) -> list[Measure]:
    """Measure an IAM export: names and documents, without secrets. Service accounts that have an end are counted apart.

    Args:
        export: the zip of `mc admin cluster iam export`.
        apart: whether they are: earlier backups counted them with the others.
    """
    found = []
    for name, content in sorted(unzip(export).items()):
        document = json.loads(content or b"null") or {}
        kind = name.rpartition("/")[2].removesuffix(".json")
        if apart and name.endswith(SERVICE_ACCOUNTS):
            ending = [key for key, account in document.items() if expires(account)]
            document = {key: document[key] for key in document if key not in ending}
            found.append(expiring(RIGHTS, EXPIRING, len(ending)))
        kept = {entry: _public(value) for entry, value in document.items()}
        text = json.dumps(kept, sort_keys=True).encode()
        digest = blake2b(text, digest_size=16).hexdigest() if kept else ""
        names = few({entry: part(value) for entry, value in kept.items()})
        found.append(
            Measure(
                unit=RIGHTS,
                item=kind,
                count=len(kept),
                digest=digest,
                origin="source",
                names=names,
            )
        )
    return found


def rights_apart(manifest: Manifest) -> bool:
    """Whether a backup counted service accounts that have an end apart."""
    return any(
        measure.unit == RIGHTS and measure.item == EXPIRING for measure in manifest.fingerprint
    )


def joined(exports: Iterable[bytes]) -> bytes:
    """Exports of single buckets' settings as one of all."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as target:
        for export in exports:
            for name, body in unzip(export).items():
                target.writestr(name, body)
    return made.getvalue()


def some_settings(export: bytes, wanted: Callable[[str, str], bool]) -> bytes:
    """Some of the settings of an export.

    Args:
        export: the zip of `mc admin cluster bucket export`.
        wanted: whether a bucket's file is.
    """
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as target:
        for name, body in unzip(export).items():
            bucket, _, file = name.partition("/")
            if wanted(bucket, file):
                target.writestr(name, body)
    return made.getvalue()


def without_lapsed_rules(export: bytes, now: datetime) -> tuple[bytes, list[str]]:
    """Settings without rules of lifecycle whose date has come: these would delete what was just restored.

    Args:
        export: the zip of `mc admin cluster bucket export`.
        now: time.

    Returns:
        The export, and which rules were left out, for people.
    """
    made, left = io.BytesIO(), []
    with zipfile.ZipFile(made, "w") as target:
        for name, body in unzip(export).items():
            if name.endswith(f"/{LIFECYCLE}"):
                lapsed = [rule for rule in RULE.findall(body) if _has_lapsed(rule, now)]
                for rule in lapsed:
                    body = body.replace(rule, b"")
                    left.append(
                        f"a lifecycle rule of bucket {name.partition('/')[0]}, because its date has passed"
                    )
                if lapsed and not RULE.search(body):
                    continue
            target.writestr(name, body)
    return made.getvalue(), left


def _has_lapsed(rule: bytes, now: datetime) -> bool:
    date = DATE.search(rule)
    return bool(date and datetime.fromisoformat(date.group(1).decode()) <= now)


def _setting(file: str, body: bytes) -> Any:
    if file.endswith(".json"):
        return _public(json.loads(body or b"null"))
    return WRITTEN.sub(b"", body).decode()


def _public(value: Any) -> Any:
    """Without what is secret, or the server's own note of time."""
    if isinstance(value, list):  # MinIO gives a policy's actions in another order every time
        return sorted(
            (_public(inner) for inner in value), key=lambda inner: json.dumps(inner, sort_keys=True)
        )
    if not isinstance(value, dict):
        return value
    hidden = ("secretKey", "sessionToken", "updatedAt", "UpdateDate", "CreateDate")
    return {name: _public(inner) for name, inner in value.items() if name not in hidden}
