"""Redis: strings, hashes, lists, sets, sorted sets, streams with groups, keys that expire, a function."""

from __future__ import annotations

from random import Random

from redis.cluster import ClusterNode, RedisCluster

from components.access import Access
from components.redis.client import PORT, STATEFULSET
from sandbox.seed import words

KEYS = 400
# Late enough to exist when a restore is compared, and the same in every run.
EXPIRES_AT = 4_000_000_000
FUNCTION = "#!lua name=shop\nredis.register_function{function_name='total', callback=function(keys, args)\n" \
           "  return redis.call('HGET', keys[1], 'total')\nend, flags={'no-writes'}}\n"  # fmt: skip


def seed(access: Access, size: int, random: Random) -> dict[str, int]:
    """Fill the cluster."""
    members = access.endpoints(STATEFULSET, access.settings.components.redis.members, PORT)
    nodes = [
        ClusterNode(member.host, member.port)  # type: ignore[no-untyped-call]
        for member in members
    ]
    password = access.secret("redis-auth", "redis-password")
    count = KEYS * size
    with RedisCluster(startup_nodes=nodes, password=password, decode_responses=True) as client:
        for number in range(count):
            client.set(f"session:{number}", words.person(random), exat=EXPIRES_AT + number)
            client.set(f"config:{number}", random.randbytes(random.randint(8, 256)).hex())
            client.hset(
                f"cart:{number}",
                mapping={"owner": words.person(random), "total": random.randint(1, 999)},
            )
            if number % 4 == 0:
                client.delete(f"queue:{number}", f"seen:{number}", f"rank:{number}")
                client.rpush(f"queue:{number}", *(words.text(random, 3) for _ in range(8)))
                client.sadd(f"seen:{number}", *(random.randint(0, 10_000) for _ in range(16)))
                client.zadd(
                    f"rank:{number}", {words.person(random): random.random() for _ in range(10)}
                )
        streams = max(1, count // 100)
        for number in range(streams):
            name = f"events:{number}"
            client.delete(name)
            for event in range(50):
                client.xadd(
                    name,
                    {"kind": random.choice(words.GOODS), "n": event},
                    id=f"{1_700_000_000_000 + event}-0",
                )
            client.xgroup_create(name, "billing", id="0")
            client.xreadgroup("billing", "worker-1", {name: ">"}, count=20)
            client.xack(name, "billing", f"{1_700_000_000_000}-0")
        for node in client.get_primaries():
            client.execute_command("FUNCTION LOAD", "REPLACE", FUNCTION, target_nodes=node)
    return {
        "strings": count * 2,
        "hashes": count,
        "lists, sets, rankings": count // 4 * 3,
        "streams": streams,
        "functions": 1,
    }
