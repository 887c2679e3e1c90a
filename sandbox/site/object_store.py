"""The stand-in for the array's S3 service: a separate MinIO server, with versioning and object lock.

It is not the MinIO that the platform deploys, because a backup must not be stored in what it backs up.
"""

from __future__ import annotations

import io
import json
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from string import Template
from typing import Any
from zipfile import ZipFile

from errors import TemporaryError
from sandbox.machine.paths import write_atomic
from sandbox.machine.processes import Daemon

BUCKET = "isa-cloud-backups"
START_SECONDS = 120
ENVIRONMENT = "sandbox"
POLICIES = Path(__file__).resolve().parents[2] / "deployments" / "object-store" / "policies"
# Account without `isa-` → its policy (deployments/object-store/README.md).
POLICY_OF = {
    "deployer": "deployer",
    "backup": "backup",
    "verify": "verify",
    "restore": "backup",
    "rebuild": "backup",
    "retention": "retention",
    "wal": "wal",
}


@dataclass(frozen=True)
class ObjectStore:
    """Address and credentials of the store.

    Attributes:
        endpoint: http address on loopback.
        bucket: bucket of the backups.
        access_key: user.
        secret_key: password.
    """

    endpoint: str
    bucket: str
    access_key: str
    secret_key: str


def describe(directory: Path, port: int) -> ObjectStore:
    """Endpoint and credentials. They are created at the first call."""
    file = directory / "object-store.json"
    if not file.exists():
        made = ObjectStore(
            f"http://127.0.0.1:{port}",
            BUCKET,
            f"isa{secrets.token_hex(8)}",
            secrets.token_urlsafe(32),
        )
        write_atomic(file, json.dumps(asdict(made)))
    return ObjectStore(**json.loads(file.read_text(encoding="utf-8")))


def start(
    directory: Path,
    port: int,
    console: int,
    program: Path,
    listen: str = "127.0.0.1",
    command: Callable[..., list[str]] = lambda *argv: [*argv],
) -> ObjectStore:
    """Start the server and create its bucket; leave both as they are if they exist.

    Args:
        directory: state of the sandbox.
        port: of the server; reached on this machine's loopback.
        console: port of its console.
        program: the server.
        listen: address that it listens on.
        command: makes the command line that runs a program where the server belongs.

    Raises:
        TemporaryError: the server did not answer in time; the message has the end of its log.
    """
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    store = describe(directory, port)
    daemon = Daemon("object-store", directory / "run")
    data = directory / "object-store"
    data.mkdir(parents=True, exist_ok=True)
    environ = {
        **os.environ,
        "MINIO_ROOT_USER": store.access_key,
        "MINIO_ROOT_PASSWORD": store.secret_key,
        "MINIO_UPDATE": "off",
        "MINIO_CI_CD": "1",  # accept a directory of the root disk as a drive
    }
    at = ["--address", f"{listen}:{port}", "--console-address", f"{listen}:{console}"]
    daemon.start(command(str(program), "server", *at, str(data)), environ)
    client = boto3.client(
        "s3",
        endpoint_url=store.endpoint,
        region_name="us-east-1",
        aws_access_key_id=store.access_key,
        aws_secret_access_key=store.secret_key,
        config=Config(
            s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, connect_timeout=2
        ),
    )
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            names = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
            if BUCKET not in names:
                client.create_bucket(
                    Bucket=BUCKET, ObjectLockEnabledForBucket=True
                )  # versioning comes with it
            return store
        except (ClientError, BotoCoreError) as exc:
            if time.monotonic() > deadline:
                raise TemporaryError(
                    f"the object store did not start: {exc}\n{daemon.tail()}"
                ) from exc
            time.sleep(0.2)


def users(directory: Path, store: ObjectStore) -> dict[str, dict[str, str]]:
    """Create a user for each account, with production's policies. Returns account → `access-key` and `secret-key`.

    The server's import of accounts is used because it accepts unencrypted keys, unlike `mc admin user add`
    (minio/minio: cmd/admin-handlers-users.go, `ImportIAM`).
    """
    file = directory / "object-store-users.json"
    found: dict[str, dict[str, str]] = {}
    if file.exists():
        found = json.loads(file.read_text(encoding="utf-8"))
    missing = [name for name in POLICY_OF if name not in found]
    for name in missing:  # all at first; later what a new version of the project adds
        found[name] = {"access-key": f"isa-{name}", "secret-key": secrets.token_urlsafe(24)}
    if missing:
        write_atomic(file, json.dumps(found))
    policies = {name: _policy(name, store.bucket) for name in set(POLICY_OF.values())}
    documents = {
        "policies": policies,
        "users": {
            one["access-key"]: {"secretKey": one["secret-key"], "status": "enabled"}
            for one in found.values()
        },
        "user_mappings": {
            found[name]["access-key"]: {"version": 1, "policy": policy}
            for name, policy in POLICY_OF.items()
        },
    }
    archive = io.BytesIO()
    with ZipFile(archive, "w") as target:
        for name, document in documents.items():
            target.writestr(f"iam-assets/{name}.json", json.dumps(document))
    _import(store, archive.getvalue())
    return found


def _policy(name: str, bucket: str) -> Any:
    """A policy of deployments/object-store for this bucket, like the envsubst command in its README."""
    text = (POLICIES / f"{name}.json").read_text(encoding="utf-8")
    return json.loads(Template(text).substitute(bucket=bucket, environment=ENVIRONMENT))


def _import(store: ObjectStore, archive: bytes) -> None:
    import httpx
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    url = f"{store.endpoint}/minio/admin/v3/import-iam-v2"
    request = AWSRequest("PUT", url, data=archive)
    S3SigV4Auth(Credentials(store.access_key, store.secret_key), "s3", "us-east-1").add_auth(
        request
    )
    headers = dict(request.headers.items())
    answer = httpx.put(url, content=archive, headers=headers, timeout=START_SECONDS)
    answer.raise_for_status()
    failed = {kind: found for kind, found in answer.json().get("failed", {}).items() if found}
    if failed:
        raise TemporaryError(f"{url} refused {failed}")


def stop(directory: Path) -> None:
    """Stop the server. Its data is kept."""
    Daemon("object-store", directory / "run").stop()
