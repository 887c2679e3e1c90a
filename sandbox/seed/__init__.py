"""Sample data for all seven engines: varied and realistic. The same seed gives the same data; a second run adds none.

Size 1 is some thousand records in each engine. A larger size gives more records of the same kinds.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from components.access import Access
from sandbox.seed import emqx, minio, nats, neo4j, postgresql, qdrant, redis

Seeder = Callable[[Access, int, random.Random], dict[str, int]]
SEEDERS: dict[str, Seeder] = {
    "postgresql": postgresql.seed,
    "redis": redis.seed,
    "nats": nats.seed,
    "minio": minio.seed,
    "qdrant": qdrant.seed,
    "neo4j": neo4j.seed,
    "emqx": emqx.seed,
}


@dataclass(frozen=True)
class Seeded:
    """The sample data of one engine.

    Attributes:
        component: engine.
        counts: kind of thing → how many.
        seconds: time that it took.
    """

    component: str
    counts: dict[str, int]
    seconds: float


def seed_all(access: Access, size: int, seed: int) -> list[Seeded]:
    """Fill all engines, at the same time.

    Args:
        access: addresses and credentials.
        size: factor for the amount of data, from 1.
        seed: seed of the random numbers; each engine has its own sequence.
    """

    def fill(component: str) -> Seeded:
        started = time.monotonic()
        counts = SEEDERS[component](access, size, random.Random(f"{seed}/{component}"))
        return Seeded(component, counts, time.monotonic() - started)

    with ThreadPoolExecutor(len(SEEDERS)) as pool:
        return list(pool.map(fill, SEEDERS))
