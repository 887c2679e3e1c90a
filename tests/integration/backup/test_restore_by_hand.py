"""docs/restore-by-hand.md, taken at its word: its commands are run as they stand, against fresh engines.

Nothing of this project is in reach of them; only the comparing is done with its measures.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import sys
import time
import zipfile
from collections.abc import Callable
from contextlib import closing, suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import nats
import psycopg
import pytest

from archive.backup.manifest import Manifest, Measure
from components.emqx.client import USER, sign_on
from components.emqx.exports.export import read_export
from components.emqx.fingerprint import counts
from components.emqx.fingerprint import measure as measure_brokers
from components.minio.admin.exports import measure_rights, measure_settings
from components.minio.client import admin, connect, health
from components.minio.fingerprint import BucketMeasure
from components.minio.objects.versions import read_versions
from components.nats.client import call, listed
from components.nats.fingerprint import has_expiring, measure_configuration, measures
from components.nats.streams.messages import measure_messages
from components.neo4j.fingerprint import measure_database as measure_graph
from components.neo4j.fingerprint import measure_users
from components.postgresql.catalog.settings import read_system
from components.postgresql.client import SECRET, SUPERUSER
from components.postgresql.connection.session import SESSION
from components.postgresql.fingerprint import (
    items_of,
    measure_database,
    measure_globals,
    measure_system,
)
from components.qdrant.fingerprint import measure_everything
from components.redis.fingerprint import measure_rdb
from sandbox.machine import binaries, neo4j_programs, postgres

from .hand import DOCUMENT, SECTIONS, START_SECONDS, Hand, hand

__all__ = ["hand"]  # the fixture

pytestmark = pytest.mark.integration


def same(found: list[Measure], manifest: Manifest) -> None:
    """What came back is what the manifest promises, unit by unit, digest by digest."""

    def table(measures: Any) -> dict[tuple[str, str], tuple[int, str]]:
        return {(m.unit, m.item): (m.count, m.digest) for m in measures}

    wanted, there = table(manifest.fingerprint), table(found)
    assert any(digest for _, digest in wanted.values())
    for key, (_, digest) in wanted.items():
        if not digest and key in there:  # it moved during the backup, and was counted only
            there[key] = (there[key][0], "")
    assert there == wanted


def test_the_document_has_a_section_for_every_kind_of_set() -> None:
    assert [title.partition(",")[0] for title, script in SECTIONS.items() if script] == [
        "Fetch", *["PostgreSQL"] * 3, "Redis", "NATS", "MinIO", "Qdrant", "Neo4j", "EMQX", "Platform",
    ]  # fmt: skip


def test_the_document_lists_the_sets_and_refuses_a_damaged_artefact(hand: Hand) -> None:
    manifest = hand.backups.manifest("redis")
    name = manifest.artefacts[0].name.removesuffix(".zst.age")
    SECTIONS["try"] = f"""
        sets sandbox/redis
        fetch '{name}' > whole
        sed -i 's/"stored_sha256": "./"stored_sha256": "x/' manifest.json
        if fetch '{name}' > damaged; then exit 1; fi
    """
    assert manifest.id in hand.restore(manifest, "try")


def test_postgresql_comes_back_from_its_files(hand: Hand) -> None:
    manifest = hand.backups.manifest("postgresql")
    hand.restore(
        manifest,
        "PostgreSQL, all databases (physical)",
        PGDATA=str(hand.work / "data"),
        PGHOST=hand.address,
        PGPORT="5432",
    )
    same(_databases(hand, manifest, hand.access.secret(SECRET, "postgres-password")), manifest)


def test_postgresql_comes_back_from_its_dumps(hand: Hand) -> None:
    manifest = hand.backups.manifest("postgresql")
    data, password = hand.work / "data", secrets.token_hex(16)
    postgres.initialise(data, SUPERUSER, password)
    settings = {"listen_addresses": hand.address, "unix_socket_directories": "", "fsync": "off"}
    options = [word for pair in settings.items() for word in ("-c", "=".join(pair))]
    (data / "pg_hba.conf").write_text("host all all 127.0.0.0/8 scram-sha-256\n")
    server = hand.start(
        "postgresql",
        postgres.unprivileged(str(postgres.programs() / "postgres"), "-D", str(data), *options),
    )

    def ready() -> bool:
        with closing(_postgres(hand, SUPERUSER, password)):
            return True

    hand.until(ready, server)
    hand.restore(
        manifest,
        "PostgreSQL, one database at a time (logical)",
        PGHOST=hand.address,
        PGPORT="5432",
        PGUSER=SUPERUSER,
        PGPASSFILE=hand.secret("pgpass", f"*:*:*:{SUPERUSER}:{password}\n"),
    )
    same(_databases(hand, manifest, password), manifest)


def _postgres(hand: Hand, database: str, password: str) -> psycopg.Connection[Any]:
    options = " ".join(f"-c {option}" for option in SESSION)
    return psycopg.connect(
        host=hand.address,
        user=SUPERUSER,
        password=password,
        dbname=database,
        options=options,
        connect_timeout=5,
    )


def _databases(hand: Hand, manifest: Manifest, password: str) -> list[Measure]:
    units = dict.fromkeys(m.unit for m in manifest.fingerprint)
    found: list[Measure] = []
    for unit in units:
        kind, _, name = unit.partition(" ")
        with closing(_postgres(hand, name or SUPERUSER, password)) as connection:
            found += (
                measure_database(connection, name, items_of(manifest.fingerprint, unit))
                if kind == "database"
                else [*measure_globals(connection), measure_system(read_system(connection))]
            )
    return found


def test_redis_comes_back_shard_by_shard(hand: Hand) -> None:
    import redis

    manifest = hand.backups.manifest("redis")
    directory = hand.work / "shards"
    said = hand.restore(
        manifest, "Redis", REDIS_HOST=hand.address, REDIS_PORT="6379", REDIS_DIR=str(directory)
    )
    found: list[Measure] = []
    units = {a.name.removesuffix(".zst.age"): a.unit for a in manifest.artefacts}
    for name, port in re.findall(r"^(shard-.*): port (\d+)$", said, re.MULTILINE):
        client = redis.Redis(hand.address, int(port))
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with suppress(redis.RedisError):
                if client.ping():
                    break
            time.sleep(0.1)
        (directory / port / "dump.rdb").unlink()  # what is compared is what the server has
        client.save()
        with (directory / port / "dump.rdb").open("rb") as file:
            found += measure_rdb(file, units[name])
        client.close()
    same(found, manifest)


def test_nats_comes_back_stream_by_stream(hand: Hand) -> None:
    manifest = hand.backups.manifest("nats")
    password = secrets.token_hex(16)
    configuration = f"""
        host: {hand.address}
        port: 4222
        jetstream {{ store_dir: "{hand.work}/jetstream" }}
        accounts {{ APP {{ jetstream: enabled, users: [{{ user: app, password: "{password}" }}] }} }}
    """
    program = str(Path(sys.executable).with_name("nats-server"))
    server = hand.start("nats", [program, "--config", hand.secret("nats.conf", configuration)])

    async def ask(what: Callable[[Any], Any]) -> Any:
        client = await nats.connect(
            f"nats://{hand.address}:4222", user="app", password=password, allow_reconnect=False
        )
        try:
            return await what(client)
        finally:
            await client.close()

    hand.until(lambda: asyncio.run(ask(lambda c: call(c, "INFO", timeout=2))), server)
    hand.restore(
        manifest,
        "NATS",
        NATS_URL=f"nats://{hand.address}:4222",
        NATS_USER="app",
        NATS_PASSWORD=password,
    )

    async def measured(client: Any) -> list[Measure]:
        found: list[Measure] = []
        for unit in dict.fromkeys(m.unit for m in manifest.fingerprint):
            stream = unit.partition("/")[2]
            info = await call(client, f"STREAM.INFO.{stream}", timeout=10)
            state, config = info["state"], info["config"]
            consumers = await listed(client, f"CONSUMER.LIST.{stream}", "consumers", timeout=10)
            apart = has_expiring(manifest, unit)
            seen = await measure_messages(client, stream, state, apart=apart)
            found += measures(unit, state, consumers, seen)
            found.append(measure_configuration(unit, config, config))
        return found

    same(asyncio.run(ask(measured)), manifest)


def test_minio_comes_back_version_by_version(hand: Hand) -> None:
    hand.backups.isa("backup", "minio", "--local", "--slot", "by-hand")
    manifest = hand.backups.manifest("minio")
    assert manifest.needs  # its bytes are in the set before it
    user, password = (hand.access.secret("minio-auth", k) for k in ("rootUser", "rootPassword"))
    program = str(binaries.ensure(["minio"])["minio"])
    listen = ["--address", f"{hand.address}:9000", "--console-address", f"{hand.address}:9001"]
    server = hand.start(
        "minio",
        [program, "server", *listen, str(hand.work / "minio")],
        {
            "MINIO_ROOT_USER": user,
            "MINIO_ROOT_PASSWORD": password,
            "MINIO_UPDATE": "off",
            "MINIO_CI_CD": "1",
        },
    )
    scratch = hand.endpoint(9000)
    hand.until(lambda: health(hand.access, scratch, "cluster") == 200, server)
    hand.restore(
        manifest,
        "MinIO",
        MINIO_URL=f"http://{scratch.url}",
        MINIO_CONFIG=hand.login("minio", user, password),
    )
    client = connect(hand.access, scratch)
    rights = admin(hand.access, scratch, "export-iam").content
    assert _policies(rights) == _policies(hand.backups.fetch(manifest, "iam.zip"))
    found = [m for m in measure_rights(rights) if m.item != "policies"]
    settings = admin(hand.access, scratch, "export-bucket-metadata").content
    found += measure_settings(settings, manifest.topology["buckets"])
    for bucket in manifest.topology["buckets"]:
        measure = BucketMeasure(bucket)
        read_versions(client, bucket, measure.add)
        found += measure.measures()
    measured = tuple(m for m in manifest.fingerprint if m.item != "policies")
    same(found, manifest.model_copy(update={"fingerprint": measured}))


def _policies(export: bytes) -> Any:
    """Policies of an IAM export; MinIO lists a statement's actions in another order every time."""

    def ordered(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: ordered(inner) for key, inner in value.items()}
        return sorted(map(ordered, value), key=json.dumps) if isinstance(value, list) else value

    with zipfile.ZipFile(BytesIO(export)) as archive:
        return ordered(json.loads(archive.read("iam-assets/policies.json")))


def test_qdrant_comes_back_collection_by_collection(hand: Hand) -> None:
    manifest = hand.backups.manifest("qdrant")
    key = hand.access.secret("qdrant-auth", "api-key")
    module = ["-m", "sandbox.doubles.qdrant", "--name", "qdrant-0"]
    place = ["--data", str(hand.work / "qdrant"), "--peers", f"qdrant-0={hand.address}"]
    environ = {"QDRANT__SERVICE__API_KEY": key, "PYTHONPATH": str(DOCUMENT.parents[1])}
    server = hand.start("qdrant", [sys.executable, *module, *place], environ)
    scratch = hand.endpoint(6333)
    hand.until(lambda: httpx.get(f"http://{scratch.url}/readyz").status_code == 200, server)
    hand.restore(
        manifest,
        "Qdrant",
        QDRANT_URL=f"http://{scratch.url}",
        QDRANT_CONFIG=hand.secret("qdrant.curl", f'header = "api-key: {key}"\n'),
    )
    same(measure_everything(hand.access, scratch), manifest)


def test_neo4j_comes_back_with_its_users(hand: Hand) -> None:
    manifest = hand.backups.manifest("neo4j")
    home = hand.work / "neo4j"
    neo4j_programs.write_config(home, home / "data", hand.address)
    neo4j_programs.write_admin(hand.tools, home)
    hand.restore(manifest, "Neo4j")
    server = hand.start("neo4j", list(neo4j_programs.server_argv(home)))
    scratch = hand.endpoint(7687)
    hand.until(lambda: measure_graph(hand.access, scratch, "neo4j"), server)
    found = [
        measure
        for database in manifest.topology["databases"]
        for measure in measure_graph(hand.access, scratch, database)
    ]
    same([measure_users(hand.access, scratch), *found], manifest)


def test_emqx_comes_back_with_its_users_and_retained_messages(hand: Hand) -> None:
    manifest = hand.backups.manifest("emqx")
    module = ["-m", "sandbox.doubles.emqx", "--name", "emqx-0", "--host", "scratch"]
    place = ["--data", str(hand.work / "emqx"), "--peers", f"emqx-0={hand.address}"]
    login = {"username": USER, "password": secrets.token_hex(16)}
    server = hand.start(
        "emqx",
        [sys.executable, *module, *place],
        {
            "EMQX_NODE__COOKIE": secrets.token_hex(16),
            "EMQX_DASHBOARD__DEFAULT_USERNAME": login["username"],
            "EMQX_DASHBOARD__DEFAULT_PASSWORD": login["password"],
            "EMQX_AUTHENTICATION__1__BACKEND": "built_in_database",
            "PYTHONPATH": str(DOCUMENT.parents[1]),
        },
    )
    scratch = hand.endpoint(18083)
    hand.until(lambda: httpx.get(f"http://{scratch.url}/status").status_code == 200, server)
    hand.restore(
        manifest,
        "EMQX",
        EMQX_URL=f"http://{scratch.url}",
        EMQX_LOGIN=hand.secret("emqx.json", json.dumps(login)),
    )
    (file,) = hand.work.glob("emqx-export-*.tar.gz")
    with file.open("rb") as opened:
        messages = read_export(opened, file.name, counts, all_expire=False).retained
    same(measure_brokers(sign_on(hand.access, scratch), manifest, messages), manifest)


def test_the_platforms_secrets_come_back(hand: Hand) -> None:
    manifest = hand.backups.manifest("platform")
    kube, namespace = hand.backups.environment.kube, f"t-{secrets.token_hex(4)}"
    kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    try:
        kubeconfig = hand.backups.sandbox.environ()["KUBECONFIG"]
        hand.restore(manifest, "Platform", KUBECONFIG=kubeconfig, NAMESPACE=namespace)
        there = {s["metadata"]["name"]: s for s in kube.list("v1", "Secret", namespace)}
    finally:
        kube.delete("v1", "Namespace", namespace)
    counts = {m.unit: m.count for m in manifest.fingerprint}
    assert len(there) == counts["secrets"] + counts["releases"] > 10
    for name in ("secrets.json", "helm-releases.json"):
        for secret in json.loads(hand.backups.fetch(manifest, name))["items"]:
            found = there[secret["metadata"]["name"]]
            assert (found["type"], found["data"]) == (secret["type"], secret["data"])
