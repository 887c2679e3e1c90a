"""Whose secret keys a live MinIO has after its rights were restored: whoever is there keeps the one that he has.

An import takes the secret key of every user and service account from the export, and so would bring back the keys that
were rotated since (minio/minio: cmd/admin-handlers-users.go, ImportIAM). Policies, groups and who is in them are the
set's.
"""

from __future__ import annotations

import io
import json
import zipfile

SECRET = "secretKey"
# Files of an export (`mc admin cluster iam export`) with access keys and their secrets.
KEYS = ("users.json", "svcaccts.json")


def with_live_keys(export: bytes, live: bytes) -> tuple[bytes, list[str]]:
    """An export whose users have the secret keys that they have in the live MinIO.

    Args:
        export: of the set.
        live: of the live MinIO.

    Returns:
        The export for its import, and the access keys that are not there any more: they get the set's secrets.
    """
    made, gone = io.BytesIO(), []
    with (
        zipfile.ZipFile(io.BytesIO(export)) as source,
        zipfile.ZipFile(io.BytesIO(live)) as there,
        zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            body = source.read(name)
            if name.rpartition("/")[2] in KEYS:
                users = json.loads(body or b"null") or {}
                now = there.read(name) if name in there.namelist() else b""
                known = json.loads(now or b"null") or {}
                for user, about in users.items():
                    if user in known:
                        about[SECRET] = known[user][SECRET]
                    else:
                        gone.append(user)
                body = json.dumps(users).encode()
            target.writestr(name, body)
    return made.getvalue(), sorted(gone)
