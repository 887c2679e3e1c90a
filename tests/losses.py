"""One thing that goes from each engine before it is backed up, so that nothing but a comparison can miss it.

Each takes it away and returns how it is put back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from components.access import Access
from components.emqx.client import API_PORT, USERS, rows, sign_on
from components.minio import client as minio
from components.nats import client as nats
from components.neo4j.client import DATABASE, query
from components.postgresql import client as postgresql
from components.qdrant import client as qdrant
from components.redis import client as redis

Undo = Callable[[], Any]
NAME = "isa-lost"


def table(access: Access) -> Undo:
    """PostgreSQL: a table."""
    nodes = access.endpoints(postgresql.STATEFULSET, 3, postgresql.PORT)
    primary = next(n for n in nodes if not postgresql.node_status(access, n).standby)

    def run(text: str) -> None:
        with postgresql.connect_long(access, primary, "isa", "search_path=public") as connection:
            connection.execute(text.encode())

    run('CREATE TABLE IF NOT EXISTS "isa-lost" AS SELECT 1 AS one')
    return lambda: run('DROP TABLE IF EXISTS "isa-lost"')


def key(access: Access) -> Undo:
    """Redis: a key."""

    def run(*words: str) -> None:
        import redis as library

        members = access.endpoints(redis.STATEFULSET, 6, redis.PORT)
        slots = redis.read_view(access, members[0]).slots()
        owner = slots[library.crc.key_slot(NAME.encode())].partition(":")[0]
        member = next(m for m in members if m.pod_ip == owner)
        with redis.connect(access, member) as client:
            client.execute_command(*words)

    run("SET", NAME, "1")
    return lambda: run("DEL", NAME)


def consumer(access: Access) -> Undo:
    """NATS: a durable consumer."""

    def run(subject: str, body: Any = None) -> None:
        async def ask() -> None:
            servers = access.endpoints(nats.STATEFULSET, 3, nats.CLIENT_PORT)
            client = await nats.connect(access, servers)
            try:
                names = await nats.listed(client, "STREAM.NAMES", "streams", timeout=10)
                stream = sorted(str(n) for n in names if str(n).isupper())[0]
                text = subject.replace("*", stream)
                request = {"stream_name": stream, **body} if body else None
                await nats.call(client, text, request, timeout=10)
            finally:
                await client.close()

        asyncio.run(ask())

    config = {"durable_name": NAME, "ack_policy": "explicit"}
    run(f"CONSUMER.DURABLE.CREATE.*.{NAME}", {"config": config})
    return lambda: run(f"CONSUMER.DELETE.*.{NAME}")


def version(access: Access) -> Undo:
    """MinIO: one of several versions of an object."""
    server = access.endpoints(minio.STATEFULSET, 4, minio.PORT)[0]
    client = minio.connect(access, server)
    bucket = next(
        str(b["Name"])
        for b in client.list_buckets()["Buckets"]
        if client.get_bucket_versioning(Bucket=b["Name"]).get("Status") == "Enabled"
    )
    made = [client.put_object(Bucket=bucket, Key=NAME, Body=b"%d" % n) for n in range(2)]
    first = made[0]["VersionId"]
    return lambda: client.delete_object(Bucket=bucket, Key=NAME, VersionId=first)


def point(access: Access) -> Undo:
    """Qdrant: a point, by giving another one back."""
    peer = access.endpoints(qdrant.STATEFULSET, 3, qdrant.PORT)[0]
    listed = qdrant.get(access, peer, "/collections")["collections"]
    name = sorted(str(c["name"]) for c in listed)[0]
    path = f"{qdrant.path_of(name)}/points"
    body = {"limit": 1, "with_vector": True, "with_payload": True}
    found = qdrant.call(access, peer, "POST", f"{path}/scroll", body)["points"][0]
    extra = {**{k: found[k] for k in ("vector", "payload")}, "id": 999_999_999}
    qdrant.call(access, peer, "PUT", f"{path}?wait=true", {"points": [extra]}, timeout=30)
    gone = {"points": [extra["id"]]}
    return lambda: qdrant.call(access, peer, "POST", f"{path}/delete?wait=true", gone, timeout=30)


def relationship(access: Access) -> Undo:
    """Neo4j: a relationship."""
    member = access.endpoint("neo4j-1-0", 7687)

    def run(text: str) -> None:
        query(access, member, text, DATABASE)

    run("MERGE (a:IsaLost {n: 1}) MERGE (b:IsaLost {n: 2}) MERGE (a)-[:ISA_LOST]->(b)")
    return lambda: run("MATCH (:IsaLost)-[r:ISA_LOST]->() DELETE r")


def user(access: Access) -> Undo:
    """EMQX: a user."""
    node = access.endpoints("emqx", 3, API_PORT)[0]
    api = sign_on(access, node)
    made = {"user_id": NAME, "password": "x" * 16, "is_superuser": False}
    if not any(row["user_id"] == NAME for row in rows(api, USERS)):
        api("POST", USERS, made).raise_for_status()
    return lambda: sign_on(access, node)("DELETE", f"{USERS}/{NAME}").raise_for_status()


# What is lost → how; called before the first backup, what it returns before the second one.
LOSSES: dict[str, tuple[str, Callable[[Access], Undo]]] = {
    "postgresql": ("table", table),
    "redis": ("key", key),
    "nats": ("consumer", consumer),
    "minio": ("object version", version),
    "qdrant": ("point", point),
    "neo4j": ("relationship", relationship),
    "emqx": ("user", user),
}
