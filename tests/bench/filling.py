"""What the benches measure on: two GiB of PostgreSQL, a shard of Redis, a stream of NATS."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

from redis.crc import key_slot

from components.access import Access, Endpoint
from components.postgresql.client import PORT, STATEFULSET, connect_long, node_status
from components.redis import client as redis_client

ROWS = 9_000_000  # 2 GiB with their index
SHARD_KEYS, KEY_BYTES = 40_000, 2048  # 80 MiB, of the 128 that a sandbox's member may hold
STREAM, MESSAGES, MESSAGE_BYTES = "bench", 4000, 64 << 10  # 250 MiB


def fill_postgresql(access: Access) -> Endpoint:
    """Two GiB of rows, on a standby that has them."""
    nodes = access.endpoints(STATEFULSET, 3, PORT)
    primary = next(n for n in nodes if not node_status(access, n).standby)
    standby = next(n for n in nodes if node_status(access, n).standby)
    with connect_long(access, primary, "isa", "search_path=public") as connection:
        connection.execute("DROP TABLE IF EXISTS bench")
        connection.execute(
            "CREATE TABLE bench AS SELECT n, n * 7919 % 1000003 AS amount, 'customer ' || n % 50021 AS name, "
            f"md5(n::text) AS token, now() + n * interval '1 s' AS at, "
            f"repeat(chr((97 + n % 26)::int), 60) AS note FROM generate_series(1::bigint, {ROWS}) AS n"
        )
        connection.execute("CREATE INDEX ON bench (n)")
        row = connection.execute("SELECT pg_current_wal_lsn()::text").fetchone()
        assert row is not None
    with connect_long(access, standby, "isa", "search_path=public") as connection:
        deadline = time.monotonic() + 300
        query = f"SELECT pg_last_wal_replay_lsn() >= '{row[0]}'"
        while connection.execute(query.encode()).fetchone() != (True,):
            assert time.monotonic() < deadline
            time.sleep(0.5)
    return standby


def fill_redis(access: Access) -> Endpoint:
    """One shard of what Redis and NATS cannot compress themselves, else nothing is left to measure; its master."""
    members = access.endpoints(redis_client.STATEFULSET, 6, redis_client.PORT)
    slot = key_slot(b"bench")
    owner = redis_client.read_view(access, members[0]).slots()[slot].partition(":")[0]
    master = next(member for member in members if member.pod_ip == owner)
    values = random.Random(1)
    with redis_client.connect(access, master) as client:
        for start in range(0, SHARD_KEYS, 500):
            batch = client.pipeline(transaction=False)
            for n in range(start, start + 500):
                batch.set(f"{{bench}}{n}", values.randbytes(KEY_BYTES // 2).hex())
            batch.execute()
    return master


async def fill_stream(client: Any) -> None:
    """A stream of one replica, that nobody compresses."""
    context = client.jetstream()
    await context.add_stream(name=STREAM, subjects=["bench.>"], num_replicas=1)
    values = random.Random(1)
    for start in range(0, MESSAGES, 50):
        await asyncio.gather(
            *(
                context.publish(f"bench.{n}", values.randbytes(MESSAGE_BYTES // 2).hex().encode())
                for n in range(start, start + 50)
            )
        )
