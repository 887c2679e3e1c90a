"""Reads Helm's own release records, the Secrets `sh.helm.release.v1.NAME.vN`, without starting helm.

One list call returns status, chart, values and manifest of all releases; ten `helm get` would cost seconds of CPU.
The format (base64 of gzip of JSON, in a Secret labelled `owner=helm`) is Helm's storage driver's and has been stable
since Helm 3.0: https://github.com/helm/helm/blob/main/pkg/storage/driver/secrets.go
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cluster.kube import Kube

GZIP_MAGIC = b"\x1f\x8b\x08"


@dataclass(frozen=True)
class ReleaseRecord:
    """One revision of a release.

    Attributes:
        name: release name.
        revision: counts from 1.
        status: `deployed`, `failed`, `superseded`, `uninstalled`, `pending-install`, `pending-upgrade`,
            `pending-rollback` or `uninstalling`.
        chart: `name-version`.
        app_version: version of the engine that the chart names.
        updated: when the operation began or ended.
        manifest: what was applied, as YAML text.
    """

    name: str
    revision: int
    status: str
    chart: str
    app_version: str
    updated: datetime
    manifest: str

    @property
    def pending(self) -> bool:
        """Whether an operation is, or seems to be, in progress: helm then refuses another one."""
        return self.status.startswith("pending") or self.status == "uninstalling"


def last_good(history: Sequence[ReleaseRecord]) -> ReleaseRecord | None:
    """The newest revision that was ever deployed: the target of `helm rollback` after a failed upgrade."""
    good = [record for record in history if record.status in ("deployed", "superseded")]
    return good[-1] if good else None


def read_records(kube: Kube, namespace: str) -> dict[str, list[ReleaseRecord]]:
    """Read all revisions of all releases in a namespace, each list oldest first."""
    records: dict[str, list[ReleaseRecord]] = {}
    for secret in kube.list("v1", "Secret", namespace, "owner=helm"):
        record = _decode(secret)
        records.setdefault(record.name, []).append(record)
    return {name: sorted(found, key=lambda r: r.revision) for name, found in records.items()}


def _decode(secret: dict[str, Any]) -> ReleaseRecord:
    raw = base64.b64decode(base64.b64decode(secret["data"]["release"]))
    document = json.loads(gzip.decompress(raw) if raw.startswith(GZIP_MAGIC) else raw)
    metadata = document["chart"]["metadata"]
    info = document["info"]
    return ReleaseRecord(
        name=document["name"],
        revision=int(document["version"]),
        status=info["status"],
        chart=f"{metadata['name']}-{metadata['version']}",
        app_version=metadata.get("appVersion", ""),
        updated=datetime.fromisoformat(info["last_deployed"]),
        manifest=document.get("manifest", ""),
    )
