"""Rights that come back as they were, though MinIO's own import changes some of them (`importIAM` in minio/minio,
cmd/admin-handlers-users.go).

It takes the secret key of every user and service account from the export, and so would bring back the keys that were
rotated since. Those that the live MinIO has keep their own, and service accounts their end. The import makes every
service account again, switched on, and every new group enabled; it adds members and policies and takes none away; and
it refuses a service account whose end is near, once the live one is deleted.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from minio.crypto import encrypt

from archive.unpacking import unzip
from components.access import Access, Endpoint
from components.minio.client import admin, root_password

SECRET = "secretKey"
USERS, GROUPS, SERVICE_ACCOUNTS = "users.json", "groups.json", "svcaccts.json"
# Whose policies a file of an export maps.
MAPPINGS = {"user_mappings.json": USERS, "group_mappings.json": GROUPS}
# Files of an export (`mc admin cluster iam export`) with access keys and their secrets.
KEYS = (USERS, SERVICE_ACCOUNTS)
ENDS = "expiration"
# MinIO gives this one to what has no end (`timeSentinel`, cmd/common-main.go).
NEVER = datetime(1970, 1, 1, tzinfo=UTC)
# It takes no end that is nearer than 15 minutes (`minServiceAccountExpiry`, cmd/iam-store.go).
NEAREST_END = timedelta(minutes=16)
# A policy with this name removes the policy of a user (`PolicyDBSet`, cmd/iam-store.go).
NO_POLICY = {"version": 1, "policy": ""}

Documents = dict[str, dict[str, Any]]


def documents_of(export: bytes) -> Documents:
    """An IAM export as its documents, by the name of their file.

    Args:
        export: the zip of `mc admin cluster iam export`.
    """
    return {
        name.rpartition("/")[2]: json.loads(body or b"null") or {}
        for name, body in unzip(export).items()
    }


def expires(account: Mapping[str, Any]) -> bool:
    """Whether a service account has an end."""
    return _end(account) != NEVER


def importable(export: bytes, now: datetime) -> tuple[bytes, list[str]]:
    """An export without the service accounts whose end is over or too near for an import.

    Args:
        export: of the backup.
        now: time.

    Returns:
        The export, and the access keys that were left out.
    """
    accounts = documents_of(export).get(SERVICE_ACCOUNTS, {})
    over = [
        key
        for key, account in accounts.items()
        if expires(account) and _end(account) < now + NEAREST_END
    ]
    kept = {key: account for key, account in accounts.items() if key not in over}
    return _with(export, {SERVICE_ACCOUNTS: kept} if over else {}), sorted(over)


def with_live_keys(export: bytes, live: bytes) -> tuple[bytes, list[str]]:
    """An export whose users have the secret keys that they have in the live MinIO, and no policy that they had not.

    Args:
        export: of the backup.
        live: of the live MinIO.

    Returns:
        The export for its import, and the access keys that are not there any more: they get the backup's secrets.
    """
    wanted, there = documents_of(export), documents_of(live)
    gone: list[str] = []
    changed: Documents = {}
    for file in KEYS:
        for user, about in wanted.get(file, {}).items():
            if user in there.get(file, {}):
                now = there[file][user]
                about[SECRET] = now[SECRET]
                if file == SERVICE_ACCOUNTS and expires(about) and expires(now):
                    about[ENDS] = now[ENDS]
            else:
                gone.append(user)
        changed[file] = wanted.get(file, {})
    for file, owners in MAPPINGS.items():
        mapped = wanted.get(file, {})
        without = {
            name: NO_POLICY
            for name in there.get(file, {})
            if name in wanted.get(owners, {}) and name not in mapped
        }
        if without:
            changed[file] = {**mapped, **without}
    return _with(export, changed), sorted(gone)


def complete(access: Access, server: Endpoint, export: bytes) -> None:
    """Set what an import of rights leaves otherwise: who is switched off, and who is in a group no more.

    Args:
        access: the way in.
        server: that took the import.
        export: that it took.

    Raises:
        httpx.HTTPError: MinIO refuses it, or went away.
    """
    wanted, there = documents_of(export), documents_of(admin(access, server, "export-iam").content)
    for key, account in wanted.get(SERVICE_ACCOUNTS, {}).items():
        status = account.get("status")
        if status and status != there[SERVICE_ACCOUNTS].get(key, {}).get("status"):
            body = encrypt(json.dumps({"newStatus": status}).encode(), root_password(access))
            admin(access, server, "update-service-account", method="POST", body=body, accessKey=key)
    for name, group in wanted.get(GROUPS, {}).items():
        live = there[GROUPS].get(name, {})
        if group.get("status") and group["status"] != live.get("status"):
            admin(
                access, server, "set-group-status", method="PUT", group=name, status=group["status"]
            )
        more = sorted(set(live.get("members") or ()) - set(group.get("members") or ()))
        if more:
            body = json.dumps({"group": name, "members": more, "isRemove": True}).encode()
            admin(access, server, "update-group-members", method="PUT", body=body)


def of_the_set(live: bytes, export: bytes) -> bytes:
    """Return the live permissions that are in the backup too: those created since are not compared.

    Args:
        live: export of the live MinIO.
        export: of the backup.
    """
    wanted, there = documents_of(export), documents_of(live)
    kept: Documents = {}
    for file, document in there.items():
        known = set(wanted.get(file, {})) | set(wanted.get(MAPPINGS.get(file, ""), {}))
        kept[file] = {name: about for name, about in document.items() if name in known}
    return _with(live, kept)


# ---------------------------------------------------------------------- inside
def _end(account: Mapping[str, Any]) -> datetime:
    text = account.get(ENDS)
    return datetime.fromisoformat(str(text)) if text else NEVER


def _with(export: bytes, documents: Documents) -> bytes:
    """An export in which some documents are others."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as target:
        for name, body in unzip(export).items():
            changed = documents.get(name.rpartition("/")[2])
            target.writestr(name, body if changed is None else json.dumps(changed).encode())
    return made.getvalue()
