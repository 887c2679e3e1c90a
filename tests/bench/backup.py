"""Measures backups against what the machine can do, and beside other tools; part of `make bench`."""

from __future__ import annotations

import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import repeat
from typing import Any

from archive.backup.encryption import LEVEL, encrypt
from archive.object_store.upload import PARALLEL_PARTS, part_size
from archive.streams.spool import Spool
from components.access import Access, Endpoint
from components.nats import client as nats_client
from components.nats.streams.snapshot import Snapshot
from components.postgresql.client import SECRET, program, where
from components.redis.keys.replication import Replica
from config.loading import ROOT
from operations.environment.environment import Environment
from sandbox.cluster import Sandbox
from tests.bench import peers
from tests.bench.deploy import ISA, Figure, table
from tests.bench.filling import STREAM, fill_postgresql, fill_redis, fill_stream
from tests.bench.limits import CORES, MIB, ROUNDS, Limits, measure, pipeline, timed
from tests.filled import Filled, filled

SYNTHETIC = """
import random, resource, sys
sys.path.insert(0, {root!r})
from config.loading import load
from operations.environment.environment import Environment
from archive.backup.encryption import seal
from archive.object_store.upload import part_size
environment = Environment(load("sandbox")).open_store()
block = random.Random(1).randbytes(1 << 20)
size = int(sys.argv[1]) << 20
source = (block for _ in range(size >> 20))
seal(source, environment.store, "sandbox/bench/memory", environment.settings.backup.age_recipients, part_size(8 << 30))
environment.store.purge("sandbox/bench/memory")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)
"""


# ---------------------------------------------------------------------- the figures
def postgresql(sandbox: Sandbox, environment: Environment, identity: str) -> list[Figure]:
    """The base backup of 2 GiB, and peers on the same."""
    with Access(environment.settings, environment.kube, 30) as access:
        node = fill_postgresql(access)
        command = program(access, "pg_basebackup", access.secret(SECRET, "postgres-password"))

        def source() -> Iterator[bytes]:
            return command.stream(
                f"--dbname={where(node)}", "--pgdata=-", "--format=tar", "--wal-method=fetch",
                "--checkpoint=fast", "--no-password", stall=60,
            )  # fmt: skip

        limits = measure(source, environment)
        figures = pipeline(
            "PostgreSQL base backup, zstd", source, environment, identity, 0.85, limits
        )
        figures += _peers(access, node, environment, sandbox, source, limits)
    return figures


def incompressible(environment: Environment, identity: str) -> list[Figure]:
    """A source that costs nothing and does not get smaller: what is left is encryption, hashes and the store."""
    block = random.Random(1).randbytes(MIB)

    def source() -> Iterator[bytes]:
        return repeat(block, 1024)

    limits = measure(source, environment)
    return pipeline("1 GiB that does not compress", source, environment, identity, 0.90, limits)


def redis_shard(environment: Environment, identity: str) -> list[Figure]:
    """One shard of Redis as its replication gives it."""
    with Access(environment.settings, environment.kube, 30) as access:
        master = fill_redis(access)
        spool = environment.settings.backup.spool

        def source() -> Iterator[bytes]:
            with Spool(Replica(access, master, 60), spool) as drained:
                yield from drained

        limits = measure(source, environment)
        return pipeline("Redis, one shard, by a spool", source, environment, identity, 0.85, limits)


def nats_stream(environment: Environment, identity: str) -> list[Figure]:
    """One stream of NATS as its snapshot gives it."""
    with Access(environment.settings, environment.kube, 30) as access:
        servers = access.endpoints(nats_client.STATEFULSET, 3, nats_client.CLIENT_PORT)
        loop = asyncio.new_event_loop()
        client = loop.run_until_complete(nats_client.connect(access, servers))
        try:
            loop.run_until_complete(fill_stream(client))
            spool = environment.settings.backup.spool

            def source() -> Iterator[bytes]:
                snapshot = Snapshot(loop, client, STREAM, 60)
                snapshot.begin()
                with Spool(snapshot, spool) as drained:
                    yield from drained

            limits = measure(source, environment)
            return pipeline(
                "NATS, one stream, by a spool", source, environment, identity, 0.85, limits
            )
        finally:
            loop.run_until_complete(client.close())
            loop.close()


def _peers(
    access: Access,
    node: Endpoint,
    environment: Environment,
    sandbox: Sandbox,
    source: Callable[[], Iterator[bytes]],
    limits: Limits,
) -> list[Figure]:
    store = sandbox.status()["object_store"]
    path = os.pathsep.join(
        [*(str(p) for p in environment.settings.backup.programs), os.environ["PATH"]]
    )
    password = access.secret(SECRET, "postgres-password")
    environ = {**peers.keys(store), "PGPASSWORD": password, "PATH": path}
    recipients, key = environment.settings.backup.age_recipients, "sandbox/bench/ours"
    runs: dict[str, Callable[[], Any]] = {
        "ours": lambda: encrypt(source(), environment.store, key, recipients, part_size(2 << 30)),
        "pipe": lambda: peers.pipe(where(node), environ, store["endpoint"], store["bucket"], LEVEL),
        "barman-cloud": lambda: peers.barman(
            where(node, "postgres"),
            environ,
            store["endpoint"],
            store["bucket"],
            f"b{time.time_ns()}",
        ),
    }
    peers.programs()  # installed before anything is timed
    try:
        runs["barman-cloud"]()
    except RuntimeError as exc:  # it stores more and is told of beside; the pipe is what counts
        print(f"barman-cloud does not run here: {exc}", file=sys.stderr)
        del runs["barman-cloud"]
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(ROUNDS):  # interleaved: what disturbs one disturbs all
        for name, run in runs.items():
            took[name].append(timed(run))
    sizes = {
        "ours": environment.store.describe(key)[0],
        "pipe": environment.store.describe("peers/base.tar.zst")[0],
    }
    for entry in list(environment.store.list("peers/")):
        environment.store.purge(entry.key)
    environment.store.purge(key)
    wall = {name: statistics.median(wall for wall, _ in took[name]) for name in runs}
    cpu = {name: statistics.median(cpu for _, cpu in took[name]) for name in runs}
    told = ", ".join(f"{name} {wall[name]:.1f} s ({cpu[name]:.1f} of CPU)" for name in runs)
    ours, fastest = wall["ours"], wall["pipe"]
    stored = f"stored {sizes['ours'] / MIB:.0f} and {sizes['pipe'] / MIB:.0f} MiB"
    told += f"; at T_limit {limits.seconds:.1f} s, {fastest / limits.seconds:.2f} ×"
    return [
        Figure("beside the plain pipe of about equal stored size", f"{told}; {stored}",
               f"{fastest / ours:.2f} × faster", "≥ 1.20", fastest / ours >= 1.2)
    ]  # fmt: skip


def memory(sandbox: Sandbox) -> list[Figure]:
    """Peak memory of one process, from 1 GiB to 8 GiB."""
    peaks = {}
    for size in (1024, 8192):
        done = subprocess.run(
            [sys.executable, "-c", SYNTHETIC.format(root=str(ROOT)), str(size)],
            env=sandbox.environ(),
            capture_output=True,
            text=True,
            check=True,
        )
        peaks[size] = int(done.stdout)
    part, peak = part_size(8 << 30) // MIB, peaks[8192]
    limit = 256 + (PARALLEL_PARTS + 1) * part
    grown = peaks[8192] - peaks[1024]
    return [
        Figure("peak memory", "8 GiB that do not compress", f"{peak} MiB", f"≤ {limit} MiB", peak <= limit),
        Figure("its growth", "from 1 GiB to 8 GiB", f"{grown} MiB", "< 32 MiB", grown < 32),
    ]  # fmt: skip


def everything(sandbox: Sandbox) -> Figure:
    """All sets of the sample data."""
    done = subprocess.run(
        [ISA, "backup", "--local", "--json"],
        env=sandbox.environ(),
        capture_output=True,
        text=True,
        check=False,
    )
    report = json.loads(done.stdout)
    slowest = max(report["backups"], key=lambda b: b["seconds"])
    words = f"the longest: {slowest['component']} {slowest['seconds']:.0f} s"
    return Figure(
        "a set of everything",
        words,
        f"{report['seconds']:.0f} s",
        "≤ 60 s",
        report["seconds"] <= 60,
    )


MEASURES: dict[str, Callable[[Filled], list[Figure]]] = {
    "everything": lambda on: [everything(on.sandbox)],
    "memory": lambda on: memory(on.sandbox),
    "incompressible": lambda on: incompressible(on.environment, on.identity),
    "redis": lambda on: redis_shard(on.environment, on.identity),
    "nats": lambda on: nats_stream(on.environment, on.identity),
    "postgresql": lambda on: postgresql(on.sandbox, on.environment, on.identity),
}


def main() -> None:
    """Measure, and write docs/results/bench-backup.md; or show only what is named."""
    chosen = sys.argv[1:] or list(MEASURES)
    with filled("bench") as platform:
        figures = [figure for name in chosen for figure in MEASURES[name](platform)]
    head = f"# Backups, measured\n\n`make bench`, {CORES} cores, {datetime.now(UTC):%Y-%m-%d}.\n\n"
    text = head + table(figures)
    if not sys.argv[1:]:
        (ROOT / "docs/results/bench-backup.md").write_text(text)
    print(text)
    if not all(figure.met for figure in figures):
        sys.exit(1)


if __name__ == "__main__":
    main()
