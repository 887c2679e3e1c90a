"""Whatever a database holds and however it is called: it is backed up, proven and restored."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql

from components.access import Access
from components.minio import client as minio
from components.minio.live import remove_bucket
from components.minio.objects.versions import read_versions
from components.postgresql.client import at_primary

from .conftest import Restorer, at_work

pytestmark = pytest.mark.integration

KINDS = Path(__file__).with_name("kinds.sql")
NAME = """every "kind" of/thing 100%'s"""


@pytest.fixture
def kinds(restorer: Restorer) -> Iterator[str]:
    """A database with one of every kind of thing."""
    name = sql.Identifier(NAME)
    with restorer.backups.access() as access:
        with at_primary(access, "postgres") as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(name))
        try:
            with at_primary(access, NAME, "search_path=public") as connection:
                connection.execute(KINDS.read_bytes())
            yield NAME
        finally:
            with at_primary(access, "postgres") as connection:
                rows = connection.execute("SELECT datname FROM pg_database").fetchall()
                for (there,) in rows:
                    if there == NAME or there.startswith("isa__before"):
                        drop = sql.SQL("DROP DATABASE {} (FORCE)").format(sql.Identifier(there))
                        connection.execute(drop)


def _kept(access: Any) -> Any:
    with at_primary(access, NAME, "search_path=public") as connection:
        rows = connection.execute(
            "SELECT relname, relkind, relispopulated FROM pg_class "
            "WHERE relnamespace = 'public'::regnamespace ORDER BY 1"
        ).fetchall()
        fresh = connection.execute("SELECT count(*) FROM stale").fetchone()
    return rows, fresh


def test_a_database_of_any_name_with_one_of_every_kind_of_thing_comes_back(
    restorer: Restorer, kinds: str
) -> None:
    good = restorer.take("postgresql")
    restorer.prove(good)
    with restorer.backups.access() as access:
        before, stale = _kept(access)
        with at_primary(access, kinds, "search_path=public") as connection:
            connection.execute("DROP TABLE base CASCADE")
        (done,) = restorer.isa(good.id, "--unit", kinds)["restores"]
        assert done["outcome"] == "restored", done
        after, fresh = _kept(access)
    assert after == before
    assert (stale, fresh) == ((10,), (11,))  # rows of a materialized view are those of a refresh


BUCKET = "kinds"
KEYS = ("dir/", "ü/ñ", "x\x01y", "sp ace+plus%25&", "a\\b", "emoji😀", "a:b", "e\u0301")
NEW = "new"
PARTS = 20 << 20  # more than a restore holds in memory: it goes in parts


@pytest.fixture
def bucket(restorer: Restorer) -> Iterator[Any]:
    """A bucket with versions of every kind: from before it had versions, while it had them and while suspended."""
    with restorer.backups.access() as access:
        client = minio.connect(access, _server(access))
        client.create_bucket(Bucket=BUCKET)
        _put(client, "old", b"before there were versions")
        _versions(client, "Enabled")
        _put(client, "old", b"second")
        client.delete_object(Bucket=BUCKET, Key="old")
        _put(client, "old", b"third")
        _put(
            client, "told", b"x", ContentDisposition='attachment; filename="ü €.txt"',
            CacheControl="no-store", ContentEncoding="gzip", ContentLanguage="de",
            ContentType="text/plain; charset=utf-8", Expires=datetime(2030, 1, 1, tzinfo=UTC),
            Metadata={"Owner": "=?UTF-8?q?gr=C3=BCn?="}, Tagging="k%20ey=v%2Bx&empty=",
        )  # fmt: skip
        for key in KEYS:
            _put(client, key, b"")
        client.upload_fileobj(io.BytesIO(bytes(PARTS)), BUCKET, "big")
        rule = {"ID": "old", "Status": "Enabled", "Filter": {"Prefix": "tmp/"}}
        rule["Expiration"] = {"Days": 9}
        client.put_bucket_lifecycle_configuration(
            Bucket=BUCKET, LifecycleConfiguration={"Rules": [rule]}
        )
        _versions(client, "Suspended")
        _put(client, "old", b"fourth, without a version")
        client.delete_object(Bucket=BUCKET, Key="told")
        yield client
        remove_bucket(client, BUCKET)


def _server(access: Access) -> Any:
    return access.endpoints(minio.STATEFULSET, 4, minio.PORT)[0]


def _put(client: Any, key: str, body: bytes, **told: Any) -> None:
    client.put_object(Bucket=BUCKET, Key=key, Body=body, **told)


def _versions(client: Any, status: str) -> None:
    client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": status})


def _history(client: Any) -> list[Any]:
    found: list[Any] = []
    read_versions(client, BUCKET, found.append)
    return [(v.key, v.ordinal, v.marker, v.size, v.content, v.headers, v.tags) for v in found]


def _write(client: Any, stop: threading.Event) -> None:
    """Write a key that the set has not, as soon as there is the bucket."""
    while not stop.wait(0.05):
        with suppress(client.exceptions.NoSuchBucket):
            _put(client, NEW, b"from somebody at work")


def test_a_bucket_with_a_version_of_every_kind_comes_back(restorer: Restorer, bucket: Any) -> None:
    good = restorer.take("minio")
    before = _history(bucket)
    assert [version[0] for version in before if version[3] == PARTS] == ["big"]
    restorer.prove(good)
    remove_bucket(bucket, BUCKET)
    with at_work(partial(_write, bucket)):
        (done,) = restorer.isa(good.id, "--unit", BUCKET)["restores"]
    assert done["outcome"] == "restored", done
    assert [version for version in _history(bucket) if version[0] != NEW] == before
    assert bucket.get_bucket_versioning(Bucket=BUCKET)["Status"] == "Suspended"
    rules = bucket.get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"]
    assert [rule["Expiration"] for rule in rules] == [{"Days": 9}]
