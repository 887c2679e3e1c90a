"""MinIO: versioned objects with tags and metadata, delete markers, a policy, a user."""

from __future__ import annotations

import io
import json
from random import Random
from typing import Any

from minio import Minio
from minio.commonconfig import ENABLED, Tags
from minio.credentials.providers import StaticProvider
from minio.minioadmin import MinioAdmin
from minio.versioningconfig import VersioningConfig

from components.access import Access
from components.minio.client import PORT, STATEFULSET
from sandbox.seed import words

OBJECTS = 60
BUCKET, PLAIN = "documents", "exports"
POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": [f"arn:aws:s3:::{BUCKET}/*"]}
    ],
}


def seed(access: Access, size: int, random: Random) -> dict[str, int]:
    """Fill two buckets, one of them with versions."""
    server = access.endpoints(STATEFULSET, access.settings.components.minio.members, PORT)[0]
    user = access.secret("minio-auth", "rootUser")
    password = access.secret("minio-auth", "rootPassword")
    client = Minio(server.url, user, password, secure=False)
    for bucket in (BUCKET, PLAIN):
        if client.bucket_exists(bucket):
            _empty(client, bucket)
        else:
            client.make_bucket(bucket)
    client.set_bucket_versioning(BUCKET, VersioningConfig(ENABLED))
    client.set_bucket_policy(PLAIN, json.dumps(_readable(PLAIN)))
    count, versions, markers = OBJECTS * size, 0, 0
    for number in range(count):
        name = f"{random.choice(words.CITIES)}/{number:05d}.txt"
        for _ in range(1 + number % 3):
            tags = Tags.new_object_tags()
            tags["kind"] = random.choice(words.GOODS)
            _put(client, BUCKET, name, random, tags)
            versions += 1
        if number % 7 == 0:
            client.remove_object(BUCKET, name)
            markers += 1
        _put(client, PLAIN, f"export-{number:05d}.bin", random, None)
    admin = MinioAdmin(
        endpoint=server.url, credentials=StaticProvider(user, password), secure=False
    )
    admin.policy_add("reader", policy=POLICY)
    if "analyst" not in json.loads(admin.user_list()):
        admin.user_add("analyst", random.randbytes(16).hex())
    return {"versions": versions, "delete markers": markers, "plain objects": count, "users": 1}


def _put(client: Minio, bucket: str, name: str, random: Random, tags: Tags | None) -> None:
    body = random.randbytes(random.randint(100, 20_000))
    metadata: Any = {"x-amz-meta-owner": words.person(random)}
    client.put_object(bucket, name, io.BytesIO(body), len(body), metadata=metadata, tags=tags)


def _empty(client: Minio, bucket: str) -> None:
    for entry in client.list_objects(bucket, recursive=True, include_version=True):
        client.remove_object(bucket, str(entry.object_name), version_id=entry.version_id)


def _readable(bucket: str) -> dict[str, Any]:
    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": ["*"]},
        "Action": ["s3:GetObject"],
        "Resource": [f"arn:aws:s3:::{bucket}/public/*"],
    }
    return {"Version": "2012-10-17", "Statement": [statement]}
