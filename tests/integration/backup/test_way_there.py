"""What stands between an engine and its set is tried first, and said: store, keys, spool, credentials, another run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster.pods.exec import exec_stream
from errors import PermanentError

from ..accounts import STORE_SECRET
from .conftest import Backups, small_disk
from .streams import publish
from .test_interrupted import writer_of

pytestmark = pytest.mark.integration


def test_a_full_spool_names_its_disk(backups: Backups, tmp_path: Path) -> None:
    with backups.access() as access:  # an unchanged stream needs no spool
        publish(access, "orders.new")
    with small_disk(tmp_path / "spool") as spool:
        # one attempt: the next would find the same disk a minute later
        variables = {"ISA_BACKUP__SPOOL": str(spool), "ISA_BACKUP__ATTEMPTS": "1"}
        said = backups.isa("backup", "nats", "--local", code=1, **variables)
    assert "spool" in said["backups"][0]["reason"]
    assert "MiB free" in said["backups"][0]["reason"]


@pytest.mark.parametrize(
    ("environ", "code", "words"),
    [
        ({"ISA_STORAGE__OBJECT__BUCKET": "no-such-bucket"}, 1, "storage.object.bucket"),
        ({"ISA_STORAGE__OBJECT__ENDPOINT": "http://127.0.0.1:9"}, 1, "127.0.0.1:9"),
        ({"ISA_BACKUP__AGE_RECIPIENTS": '["age1x"]'}, 2, "age public key"),
        ({"ISA_BACKUP__AGE_RECIPIENTS": "[]"}, 2, "two different keys"),
        ({"ISA_BACKUP__SPOOL": "/proc/no"}, 1, "backup.spool"),
    ],
)
def test_what_is_wrong_with_the_way_there_is_said_before_an_engine_is_asked(
    environ: dict[str, str], code: int, words: str, backups: Backups
) -> None:
    said = backups.isa("backup", "postgresql", "--local", code=code, **environ)
    assert words in json.dumps(said)
    assert not said.get("backups")  # it never got as far


def test_refused_credentials_are_said(backups: Backups) -> None:
    kube = backups.environment.kube
    name = backups.environ[STORE_SECRET]
    secret = kube.get("v1", "Secret", name, "isa-cloud-control")
    assert secret is not None
    kube.patch(secret, {"stringData": {"secret-key": "not the right one"}})
    try:
        said = backups.isa("backup", "redis", "--local", code=1)
        assert "SignatureDoesNotMatch" in json.dumps(said)
    finally:
        kube.patch(secret, {"data": secret["data"]})


def test_minio_is_not_backed_up_into_itself(backups: Backups) -> None:
    from datetime import UTC, datetime, timedelta

    from archive.object_store.store import Store
    from components.minio import backup as minio
    from components.minio.client import connect

    with backups.access() as access:
        client = connect(access, minio._server(access))
        client.create_bucket(Bucket="circle", ObjectLockEnabledForBucket=True)
        writer = writer_of(backups, "test/circle")
        writer.store = Store(client, "circle").locking(datetime.now(UTC) + timedelta(days=1))
        try:
            with pytest.raises(PermanentError, match="backups need another object store"):
                minio.back_up(access, writer)
            assert writer.store.pending("") == ()
            assert list(writer.store.list("")) == []
        finally:
            client.delete_bucket(Bucket="circle")


def test_two_backups_of_one_component_exclude_each_other(backups: Backups) -> None:
    environment = backups.environment
    with environment.lease("isa-backup-redis", "the first run"):
        said = backups.isa("backup", "redis", "--local", code=1, ISA_BACKUP__ATTEMPTS="1")
    assert "the first run" in said["backups"][0]["reason"]


def test_what_a_pod_writes_without_a_pause_arrives_whole(backups: Backups) -> None:
    # a server whose words nobody takes for half a minute drops the rest: 200 MiB must not wait to be joined
    size, environment = 200 << 20, backups.environment
    namespace = environment.settings.kubernetes.namespace
    command = ("head", "-c", str(size), "/dev/zero")
    pieces = exec_stream(environment.kube, namespace, "nats-0", "nats", command, stall=60)
    assert sum(map(len, pieces)) == size
