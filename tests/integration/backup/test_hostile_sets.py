"""Sets of hostile tenants: every name that an engine takes comes back, and no scratch engine calls anybody.

What an engine refuses is in `tests.hostile`, with the place in its source; these tests see that the rest is taken. EMQX
and Qdrant are doubles here.
"""

from __future__ import annotations

import io
import re
import socket
import zipfile
from collections.abc import Iterator
from typing import Any, LiteralString

import pytest
from nats.aio.client import Client
from psycopg import sql
from redis.crc import key_slot

from archive.backup.manifest import Manifest
from components.access import Access
from components.emqx import client as emqx
from components.minio import client as minio
from components.minio.live import remove_bucket
from components.nats.client import USER
from components.neo4j.client import DATABASE, driver_of, query
from components.postgresql.client import at_primary
from components.qdrant import client as qdrant
from components.redis import client as redis_client
from config.text.urls import path_part
from tests import hostile

from ..listening import called
from .conftest import Restorer
from .streams import ask, connected

pytestmark = pytest.mark.integration

BUCKET, STREAM, LABEL, LIBRARY = "hostile-names", "HOSTILE", "IsaHostile", "isa_hostile"


def accepted(context: hostile.Context) -> list[str]:
    return list(hostile.names(context).values())


def address(listener: socket.socket) -> str:
    return f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def copies(restorer: Restorer) -> Iterator[list[Manifest]]:
    """Forged sets that go with the test."""
    made: list[Manifest] = []
    yield made
    for one in made:
        restorer.forger.remove(one)


def proven(restorer: Restorer, component: str) -> Manifest:
    """A set that is whole, and whose proof passes."""
    good = restorer.take(component)
    assert not good.missing
    restorer.prove(good)
    return good


def restored(restorer: Restorer, good: Manifest, *units: str) -> None:
    chosen = [word for unit in units for word in ("--unit", unit)]
    for done in restorer.isa(good.id, *chosen)["restores"]:
        assert done["outcome"] == "restored", done


# ---------------------------------------------------------------------- Redis
class Masters:
    """Masters of the cluster, by the slots of keys."""

    def __init__(self, access: Access) -> None:
        members = access.endpoints(redis_client.STATEFULSET, 6, redis_client.PORT)
        self._slots = redis_client.read_view(access, members[0]).slots()
        owners = {address.partition(":")[0] for address in self._slots.values()}
        self.by_address = {
            m.pod_ip: redis_client.connect(access, m) for m in members if m.pod_ip in owners
        }

    def of(self, key: bytes) -> Any:
        return self.by_address[self._slots[key_slot(key)].partition(":")[0]]


def raw(master: Any, *words: Any) -> Any:
    """An answer in bytes: not every key is text."""
    return master.execute_command(*words, NEVER_DECODE=True)


def test_redis_keys_and_fields_of_every_name_come_back_and_functions_call_nobody(
    restorer: Restorer, listener: socket.socket
) -> None:
    names = [n.encode(errors="surrogateescape") for n in accepted(hostile.REDIS)]
    host, _, port = address(listener).partition(":")
    call = f'redis.call("MIGRATE", "{host}", {port}, "x", 0, 100)'
    body = (
        f'#!lua name={LIBRARY}\nredis.register_function("{LIBRARY}", function() return {call} end)'
    )
    with restorer.backups.access() as access:
        masters = Masters(access)
        for name in names:
            masters.of(name).set(name, name)
        masters.of(b"isa-hostile").hset("isa-hostile", mapping=dict.fromkeys(names, b"1"))
        for master in masters.by_address.values():
            master.function_load(body, replace=True)
        good = proven(restorer, "redis")
        assert not called(listener)
        for name in (*names, b"isa-hostile"):
            masters.of(name).delete(name)
        for master in masters.by_address.values():
            master.function_delete(LIBRARY)
        restored(restorer, good)
        masters = Masters(access)
        values = [raw(masters.of(name), "GET", name) for name in names]
        assert values == names
        assert set(raw(masters.of(b"isa-hostile"), "HKEYS", "isa-hostile")) == set(names)
        for name in (*names, b"isa-hostile"):
            masters.of(name).delete(name)
        for master in masters.by_address.values():
            master.function_delete(LIBRARY)
    assert not called(listener)


# ---------------------------------------------------------------------- NATS
def test_nats_streams_consumers_and_subjects_of_every_name_come_back(restorer: Restorer) -> None:
    # a name with a NUL passes NATS' own rule, and the directory of its store cannot be made
    streams = [name for name in accepted(hostile.NATS_STREAM) if "\0" not in name]
    # one with a DEL is stored, and not counted by the server that is asked here (server/stree/util.go: noPivot)
    subjects = [name for name in accepted(hostile.NATS_SUBJECT) if "\x7f" not in name]
    small = {"storage": "file", "num_replicas": 1}

    async def fill(client: Client) -> None:
        for subject in subjects:
            await client.publish(f"{STREAM}.{subject}", subject.encode())
        await client.flush()

    with restorer.backups.access() as access:
        made = {STREAM: f"{STREAM}.>", **{name: f"hs.{n}" for n, name in enumerate(streams)}}
        ask(
            access,
            *(
                (f"STREAM.CREATE.{name}", {"name": name, "subjects": [subject], **small})
                for name, subject in made.items()
            ),
        )
        try:
            connected(access, fill)
            consumer = {"ack_policy": "explicit"}
            ask(
                access,
                *(
                    (
                        f"CONSUMER.DURABLE.CREATE.{STREAM}.{name}",
                        {"stream_name": STREAM, "config": {"durable_name": name, **consumer}},
                    )
                    for name in streams
                ),
            )
            good = proven(restorer, "nats")
            lost = streams[
                ::6
            ]  # one by one they are deleted and restored: not all of them for each test
            ask(access, *((f"STREAM.DELETE.{name}", None) for name in (STREAM, *lost)))
            restored(restorer, good, *(f"stream {USER}/{name}" for name in (STREAM, *lost)))
            (about,) = ask(access, (f"STREAM.INFO.{STREAM}", {"subjects_filter": ">"}))
            assert set(about["state"]["subjects"]) == {f"{STREAM}.{s}" for s in subjects}
            (there,) = ask(access, (f"CONSUMER.NAMES.{STREAM}", None))
            assert set(streams) <= set(there["consumers"])  # and one of the comparison, for a while
            found = ask(access, *((f"STREAM.INFO.{name}", None) for name in streams))
            assert [one["config"]["name"] for one in found] == streams
        finally:
            for name in made:
                ask(access, (f"STREAM.DELETE.{name}", None))


# ---------------------------------------------------------------------- MinIO
TARGETS = """[{"sourcebucket": "%s", "endpoint": "%s", "credentials": {"accessKey": "aaaa", "secretKey": "bbbbbbbb"},
"targetbucket": "x", "secure": false, "type": "replication", "arn": "arn:minio:replication::1:x"}]"""
REPLICATION = """<ReplicationConfiguration><Rule><ID>1</ID><Status>Enabled</Status><Priority>1</Priority><Filter/>
<DeleteMarkerReplication><Status>Enabled</Status></DeleteMarkerReplication><DeleteReplication><Status>Enabled</Status>
</DeleteReplication><Destination><Bucket>arn:minio:replication::1:x</Bucket></Destination></Rule>
</ReplicationConfiguration>"""
EVENTS = """<NotificationConfiguration><QueueConfiguration><Id>1</Id><Queue>arn:minio:sqs::1:webhook</Queue>
<Event>s3:ObjectCreated:*</Event></QueueConfiguration></NotificationConfiguration>"""


def calling_out(settings: bytes, there: str) -> bytes:
    """Settings of buckets with targets, replication and events for another server."""
    made = io.BytesIO(settings)
    with zipfile.ZipFile(made, "a") as archive:
        for file, body in (
            ("bucket-targets.json", TARGETS % (BUCKET, there)),
            ("replication.xml", REPLICATION),
            ("notification.xml", EVENTS),
        ):
            archive.writestr(f"{BUCKET}/{file}", body)
    return made.getvalue()


def test_minio_keys_of_every_name_come_back_and_targets_are_not_called(
    restorer: Restorer, listener: socket.socket, copies: list[Manifest]
) -> None:
    names = accepted(hostile.S3_KEY)
    with restorer.backups.access() as access:
        server = access.endpoints(minio.STATEFULSET, 4, minio.PORT)[0]
        client = minio.connect(access, server)
        client.create_bucket(Bucket=BUCKET)
        taken = [name for name in names if put(client, name)]
        assert set(names) - set(taken) == {name for name in names if shadowed(name, names)}
        good = proven(restorer, "minio")
        settings = restorer.backups.fetch(good, "bucket-metadata.zip")
        hostile_set = restorer.forger.with_content(
            good, "bucket-metadata.zip", calling_out(settings, address(listener))
        )
        copies.append(hostile_set)
        restorer.prove(hostile_set)
        assert not called(listener)
        # else the safety backup would rest on it, and every later one would miss it
        restorer.forger.remove(copies.pop())
        remove_bucket(client, BUCKET)
        restored(restorer, good, BUCKET)
        try:
            for name in taken:
                body = client.get_object(Bucket=BUCKET, Key=name)["Body"].read()
                assert body == name.encode()
        finally:
            remove_bucket(client, BUCKET)


def shadowed(name: str, names: list[str]) -> bool:
    """Whether another one is a folder of it on MinIO's disks."""
    return any(other.startswith(f"{name}/") or name.startswith(f"{other}/") for other in names)


def put(client: Any, name: str) -> bool:
    try:
        client.put_object(Bucket=BUCKET, Key=name, Body=name.encode())
    except client.exceptions.ClientError:
        return False
    return True


# ---------------------------------------------------------------------- Neo4j
def test_neo4j_labels_types_and_properties_of_every_name_come_back(restorer: Restorer) -> None:
    names = accepted(hostile.NEO4J_TOKEN)
    with restorer.backups.access() as access:
        member = access.endpoint("neo4j-1-0", 7687)
        text = f"CREATE (a:{LABEL}) SET a:$($name), a[$name] = 1 CREATE (a)-[:$($name)]->(a)"
        try:
            with driver_of(access, member) as driver, driver.session(database=DATABASE) as session:
                for name in names:
                    session.run(text, name=name).consume()
            good = proven(restorer, "neo4j")
            items = {one.item for one in good.fingerprint}
            for name in names:
                assert any(name in item for item in items), name
        finally:
            query(access, member, f"MATCH (a:{LABEL}) DETACH DELETE a", DATABASE)


# ---------------------------------------------------------------------- PostgreSQL
# Each costs a dump and a restore, so only those that something may read as more than a name.
DATABASES = (
    "single-quote", "double-quote", "newline", "option-value", "conninfo", "url", "sql-identifier", "percent-escape",
    "parents", "forged-pass", "psql-variable", "blanks",
)  # fmt: skip


def test_postgresql_roles_schemas_tables_and_databases_of_every_name_come_back(
    restorer: Restorer,
) -> None:
    names = accepted(hostile.POSTGRESQL)
    databases = [hostile.NAMES[key] for key in DATABASES if hostile.NAMES[key] in names]
    first = databases[0]
    with restorer.backups.access() as access:
        try:
            with at_primary(access, "postgres") as connection:
                for name in databases:
                    run(connection, "CREATE DATABASE {name}", name)
                for name in names:
                    run(connection, "CREATE ROLE {name}", name)
            with at_primary(access, first) as connection:
                for name in names:
                    run(connection, "CREATE SCHEMA {name} AUTHORIZATION {name}", name)
                    run(connection, "CREATE TABLE {name}.{name} ({name} text DEFAULT {word})", name)
                    run(connection, "INSERT INTO {name}.{name} DEFAULT VALUES", name)
                    run(connection, "COMMENT ON TABLE {name}.{name} IS {word}", name)
            good = proven(restorer, "postgresql")
            with at_primary(access, "postgres") as connection:
                for name in databases[:3]:
                    run(connection, "DROP DATABASE {name} (FORCE)", name)
            restored(restorer, good, *(f"database {name}" for name in databases[:3]))
            with at_primary(access, first) as connection:
                rows = connection.execute(
                    "SELECT nspname, relname, r.rolname, obj_description(c.oid) "
                    "FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace JOIN pg_roles r ON r.oid = nspowner "
                    "WHERE relkind = 'r' AND nspname = relname"
                ).fetchall()
            assert {(name, name, name, name) for name in names} == set(rows)
        finally:
            with at_primary(access, "postgres") as connection:
                found = connection.execute("SELECT datname FROM pg_database").fetchall()
                for (there,) in found:
                    if there in databases or there.startswith("isa__before"):
                        run(connection, "DROP DATABASE {name} (FORCE)", there)
                for name in names:
                    run(connection, "DROP ROLE IF EXISTS {name}", name)


def run(connection: Any, text: LiteralString, name: str) -> None:
    made = sql.SQL(text).format(name=sql.Identifier(name), word=sql.Literal(name))
    connection.execute(made)


# ---------------------------------------------------------------------- doubles
def test_qdrant_collections_of_every_name_come_back(restorer: Restorer) -> None:
    # No path of the API leads to a collection that is called like a way up. Of one with a name of 255 bytes the server
    # can make no snapshot, whose file has a longer one; nor can it send one whose name has control characters, but for
    # line breaks, which it encodes for its header (actix-files, named.rs). A set names such collections as missing.
    names = [
        name
        for name in accepted(hostile.QDRANT_COLLECTION)
        if name.strip(".")
        and hostile.size(name) < 200
        and not re.search(r"[\x00-\x09\x0e-\x1f\x7f]", name)
    ]
    shape = {"vectors": {"size": 2, "distance": "Dot"}, "shard_number": 1, "replication_factor": 1}
    with restorer.backups.access() as access:
        peer = access.endpoints(qdrant.STATEFULSET, 3, qdrant.PORT)[0]

        def call(method: str, name: str, path: str = "", body: Any = None) -> Any:
            return qdrant.call(
                access, peer, method, f"{qdrant.path_of(name)}{path}", body, timeout=30
            )

        try:
            for name in names:
                call("PUT", name, "", shape)
                points = [{"id": 1, "vector": [1.0, 2.0], "payload": {name: name}}]
                call("PUT", name, "/points?wait=true", {"points": points})
            good = proven(restorer, "qdrant")
            lost = names[::6]
            for name in lost:
                call("DELETE", name)
            restored(restorer, good, *(f"collection {name}" for name in lost))
            for name in names:
                body = {"limit": 9, "with_payload": True}
                (point,) = call("POST", name, "/points/scroll", body)["points"]
                assert point["payload"] == {name: name}
        finally:
            for name in names:
                call("DELETE", name)


def test_emqx_users_of_hostile_names_come_back(restorer: Restorer) -> None:
    """Not topics: the broker behind the double (amqtt) matches few signs with a subscription."""
    # some of them: a change of the double takes its time, since its nodes agree on each
    names = list(dict.fromkeys(("..", ".", *accepted(hostile.MQTT_STRING)[::4])))
    with restorer.backups.access() as access:
        api = emqx.sign_on(access, access.endpoints(emqx.STATEFULSET, 3, emqx.API_PORT)[0])

        def users() -> set[str]:
            return {str(row["user_id"]) for row in emqx.rows(api, emqx.USERS)}

        for name in names:
            made = {"user_id": name, "password": "x" * 16}
            api("POST", emqx.USERS, made).raise_for_status()
        try:
            good = proven(restorer, "emqx")
            for name in names:
                api("DELETE", f"{emqx.USERS}/{path_part(name)}").raise_for_status()
            restored(restorer, good)
            assert set(names) <= users()
        finally:
            for name in set(names) & users():
                api("DELETE", f"{emqx.USERS}/{path_part(name)}")
