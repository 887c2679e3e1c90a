"""Corrects what MinIO's own import of rights changes (`importIAM` in minio/minio, cmd/admin-handlers-users.go).

- The import replaces the secret key of every user and service account. Existing accounts must keep their current
  keys, so the export gets the live keys before its import. Service accounts also keep their current expiry.
- The import enables every service account and every new group. The saved status is set again afterwards.
- The import adds members and policies but removes none. Extra ones are removed.
- The import deletes a live service account and then refuses the saved one if its expiry is too near. Such accounts are
  left out.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from minio.crypto import encrypt

from archive.streams.unpacking import unzip
from components.access import Access, Endpoint
from components.minio.client import admin, root_password

SECRET = "secretKey"
USERS, GROUPS, SERVICE_ACCOUNTS = "users.json", "groups.json", "svcaccts.json"
# File with policies → file with the users or groups that have them.
MAPPINGS = {"user_mappings.json": USERS, "group_mappings.json": GROUPS}
# Files of an export (`mc admin cluster iam export`) with access keys and their secrets.
KEYS = (USERS, SERVICE_ACCOUNTS)
ENDS = "expiration"
# MinIO's value for "no expiry" (`timeSentinel`, cmd/common-main.go).
NEVER = datetime(1970, 1, 1, tzinfo=UTC)
# MinIO refuses an expiry in less than 15 minutes (`minServiceAccountExpiry`, cmd/iam-store.go).
NEAREST_END = timedelta(minutes=16)
# A policy with this name removes the policy of a user (`PolicyDBSet`, cmd/iam-store.go).
NO_POLICY = {"version": 1, "policy": ""}

Documents = dict[str, dict[str, Any]]


def documents_of(export: bytes) -> Documents:
    """The documents of an IAM export, by file name.

    Args:
        export: the zip of `mc admin cluster iam export`.
    """
    return {
        name.rpartition("/")[2]: json.loads(body or b"null") or {}
        for name, body in unzip(export).items()
    }


def expires(account: Mapping[str, Any]) -> bool:
    """Whether a service account expires."""
    return _end(account) != NEVER


def importable(export: bytes, now: datetime) -> tuple[bytes, list[str]]:
    """An export without service accounts that have expired or expire too soon for an import.

    Args:
        export: the backup's export.
        now: the current time.

    Returns:
        The export, and the access keys that were left out.
    """
    accounts = documents_of(export).get(SERVICE_ACCOUNTS, {})
    expired = [
        key
        for key, account in accounts.items()
        if expires(account) and _end(account) < now + NEAREST_END
    ]
    remaining = {key: account for key, account in accounts.items() if key not in expired}
    return _with(export, {SERVICE_ACCOUNTS: remaining} if expired else {}), sorted(expired)


def with_live_keys(export: bytes, live: bytes) -> tuple[bytes, list[str]]:
    """Put the current secret keys into an export, and remove policies that users did not have at the backup.

    Args:
        export: the backup's export.
        live: an export of the live MinIO.

    Returns:
        The export to import, and the access keys that no longer exist: they come back with the backup's secret keys.
    """
    saved, current = documents_of(export), documents_of(live)
    deleted: list[str] = []
    changed: Documents = {}
    for file in KEYS:
        for user, account in saved.get(file, {}).items():
            if user in current.get(file, {}):
                live_account = current[file][user]
                account[SECRET] = live_account[SECRET]
                if file == SERVICE_ACCOUNTS and expires(account) and expires(live_account):
                    account[ENDS] = live_account[ENDS]
            else:
                deleted.append(user)
        changed[file] = saved.get(file, {})
    for file, owners in MAPPINGS.items():
        mapped = saved.get(file, {})
        cleared = {
            name: NO_POLICY
            for name in current.get(file, {})
            if name in saved.get(owners, {}) and name not in mapped
        }
        if cleared:
            changed[file] = {**mapped, **cleared}
    return _with(export, changed), sorted(deleted)


def complete(access: Access, server: Endpoint, export: bytes) -> None:
    """Disable what the import enabled, and remove group members that the backup does not have.

    Args:
        access: addresses and credentials.
        server: the server that did the import.
        export: the imported export.

    Raises:
        httpx.HTTPError: MinIO refuses it, or went away.
    """
    saved, current = documents_of(export), documents_of(admin(access, server, "export-iam").content)
    for key, account in saved.get(SERVICE_ACCOUNTS, {}).items():
        status = account.get("status")
        if status and status != current[SERVICE_ACCOUNTS].get(key, {}).get("status"):
            body = encrypt(json.dumps({"newStatus": status}).encode(), root_password(access))
            admin(access, server, "update-service-account", method="POST", body=body, accessKey=key)
    for name, group in saved.get(GROUPS, {}).items():
        live = current[GROUPS].get(name, {})
        if group.get("status") and group["status"] != live.get("status"):
            admin(
                access, server, "set-group-status", method="PUT", group=name, status=group["status"]
            )
        extra = sorted(set(live.get("members") or ()) - set(group.get("members") or ()))
        if extra:
            body = json.dumps({"group": name, "members": extra, "isRemove": True}).encode()
            admin(access, server, "update-group-members", method="PUT", body=body)


def of_the_set(live: bytes, export: bytes) -> bytes:
    """The live rights without accounts, groups and policies created since the backup: those are not compared.

    Args:
        live: an export of the live MinIO.
        export: the backup's export.
    """
    saved, current = documents_of(export), documents_of(live)
    shared: Documents = {}
    for file, document in current.items():
        names = set(saved.get(file, {})) | set(saved.get(MAPPINGS.get(file, ""), {}))
        shared[file] = {name: entry for name, entry in document.items() if name in names}
    return _with(live, shared)


# ---------------------------------------------------------------------- inside
def _end(account: Mapping[str, Any]) -> datetime:
    text = account.get(ENDS)
    return datetime.fromisoformat(str(text)) if text else NEVER


def _with(export: bytes, documents: Documents) -> bytes:
    """A copy of an export with some documents replaced."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target:
        for name, body in unzip(export).items():
            changed = documents.get(name.rpartition("/")[2])
            target.writestr(name, body if changed is None else json.dumps(changed).encode())
    return buffer.getvalue()
