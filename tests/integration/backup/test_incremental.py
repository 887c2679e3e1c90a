"""Sets that rest on earlier ones: what is new only, and everything when they are put together."""

from __future__ import annotations

import subprocess
import tarfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from archive.evidence.verdicts import Evidence, manifest_digest, write_evidence
from components.minio.backup import _server
from components.minio.client import connect
from components.postgresql.client import PORT, STATEFULSET, connect_long, node_status
from sandbox.machine import postgres
from sandbox.seed.nats import STREAM

from .conftest import Backups
from .streams import publish, take

pytestmark = pytest.mark.integration


def checkpoint(backups: Backups) -> None:
    """Somebody works, and a checkpoint passes: a standby begins a backup at its last one."""
    with backups.access() as access:
        nodes = access.endpoints(STATEFULSET, 3, PORT)
        primary = next(n for n in nodes if not node_status(access, n).standby)
        with connect_long(access, primary, "isa", "search_path=public") as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS later AS SELECT 1 AS n")
            connection.execute("INSERT INTO later SELECT generate_series(1, 1000)")
            connection.execute("CHECKPOINT")


def test_an_incremental_base_backup_is_whole_with_the_one_it_needs(
    backups: Backups, tmp_path: Path
) -> None:
    checkpoint(backups)
    first = backups.isa("backup", "postgresql", "--local")["backups"][0]
    checkpoint(backups)
    second = backups.isa(
        "backup", "postgresql", "--local", ISA_BACKUP__POSTGRESQL__FULL_EVERY_DAYS="7"
    )["backups"][0]
    manifest = backups.manifest("postgresql")
    assert (manifest.id, manifest.kind, manifest.needs) == (
        second["id"],
        "incremental",
        (first["id"],),
    )
    assert second["bytes_read"] < first["bytes_read"] / 2
    directories = []
    for one in backups.environment.catalogue(["postgresql"]).sets[-2:]:
        directory = tmp_path / one.id
        (tmp_path / "tar").write_bytes(backups.fetch(one, "base.tar"))
        with tarfile.open(tmp_path / "tar") as archive:
            archive.extractall(directory, filter="data")
        directories.append(str(directory))
    target = str(tmp_path / "whole")
    _run("pg_combinebackup", *directories, "-o", target)
    _run("pg_verifybackup", "--no-parse-wal", target)


def test_a_promotion_makes_a_full_one_due(backups: Backups) -> None:
    from components.postgresql.base_backup.increment import _same_history

    manifest = backups.manifest("postgresql")
    with backups.access() as access:
        node = access.endpoints(STATEFULSET, 3, PORT)[0]
        now = node_status(access, node)
    assert _same_history(manifest, now)
    assert not _same_history(
        manifest, type(now)(now.standby, now.system, now.timeline + 1, now.version)
    )
    assert not _same_history(manifest, type(now)(now.standby, "1", now.timeline, now.version))


def test_an_object_that_is_there_already_is_not_read_again(backups: Backups, report: Any) -> None:
    first = backups.manifest("minio")
    with backups.access() as access:
        client = connect(access, _server(access))
        client.put_object(Bucket="documents", Key="new.txt", Body=b"new")
        client.put_object_tagging(
            Bucket="exports",
            Key="export-00000.bin",
            Tagging={"TagSet": [{"Key": "late", "Value": "yes"}]},
        )
        try:
            said = backups.isa("backup", "minio", "--local")["backups"][0]
        finally:
            client.delete_object(Bucket="documents", Key="new.txt")
    second = backups.manifest("minio")
    assert second.needs == (*first.needs, first.id)
    sets = {one.id: one for one in backups.environment.catalogue(["minio"]).of("minio")}
    full = sets[second.needs[0]]
    assert said["bytes_read"] < full.plain_size
    versions = {(m.unit, m.item): m for m in second.fingerprint}
    before = {(m.unit, m.item): m for m in first.fingerprint}
    key = ("bucket documents", "versions")
    assert versions[key].count == before[key].count + 1
    other = ("bucket exports", "versions")
    assert versions[other].count == before[other].count
    assert (
        versions[other].digest != before[other].digest
    )  # its tag changed, though its bytes did not
    lines = backups.fetch(second, "buckets/documents/versions.jsonl").decode()
    assert lines.count('"held": ""') >= 1
    assert full.id in lines


def test_a_stream_that_has_moved_is_stored_again_and_no_other(
    backups: Backups, report: Any
) -> None:
    """Messages that are published, and acknowledged by a consumer."""

    def stored_streams() -> set[str]:
        backups.isa("backup", "nats", "--local")
        newest = backups.manifest("nats")
        return {one.unit for one in newest.artefacts if not one.stored_in} - {"fingerprint"}

    first = backups.manifest("nats")
    unit = f"stream app/{STREAM}"
    assert {one.unit for one in first.artefacts} > {unit, "fingerprint"}
    assert stored_streams() == set()
    with backups.access() as access:
        publish(access, "orders.new")
    assert stored_streams() == {unit}
    with backups.access() as access:
        take(access, STREAM, "audit", 1)
    assert stored_streams() == {unit}
    assert stored_streams() == set()
    point = {one.unit: one.point for one in backups.manifest("nats").consistency}
    before = {one.unit: one.point for one in first.consistency}
    assert {name for name in point if point[name] != before[name]} == {unit}


def test_nothing_rests_on_a_set_that_failed_its_proof(backups: Backups, report: Any) -> None:
    bad = backups.environment.catalogue(["minio"]).latest("minio")
    assert bad is not None
    said = Evidence(
        set=bad.id,
        component="minio",
        environment=bad.environment,
        manifest_sha256=manifest_digest(bad),
        verdict="fail",
        level="L0",
        failed_at="L1",
        begun=datetime.now(UTC),
        seconds=1.0,
    )
    write_evidence(backups.environment.store, bad.prefix, said, backups.identity)
    backups.isa("backup", "minio", "--local")
    after = backups.manifest("minio")
    assert after.id != bad.id
    assert bad.id not in after.needs


def _run(program: str, *arguments: str) -> None:
    path = str(postgres.programs() / program)
    done = subprocess.run([path, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
