"""The engines that the sandbox runs behind pods, one file each; found by the name of the pod's container."""

from __future__ import annotations

from sandbox.engines import (
    commands,
    emqx,
    minio,
    nats,
    neo4j,
    postgresql,
    qdrant,
    redis,
)
from sandbox.engines.base import Engine

ENGINES: dict[str, Engine] = {
    module.ENGINE.container: module.ENGINE
    for module in (postgresql, redis, nats, minio, qdrant, neo4j, emqx, commands)
} | {neo4j.ADMIN.container: neo4j.ADMIN}
