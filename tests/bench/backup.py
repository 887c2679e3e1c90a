"""Measures backups against what the machine can do, and beside other tools; part of `make bench`.

T_limit in bytes of the source a second is the least of: the source's own drain, zstd, encryption and hashing,
compression ratio × parallel PUT, and the cores divided by the CPU seconds a byte of all of these together (two cores
do not do all at once). Each is measured alone, in the same run, on the same bytes.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import repeat
from pathlib import Path
from typing import Any

import pyrage
import zstandard
from redis.crc import key_slot

from archive.pieces import BUFFER_BYTES
from archive.seal import LEVEL, seal, unseal
from archive.spool import Spool
from archive.store import Store
from archive.upload import PARALLEL_PARTS, part_size
from components.access import Access, Endpoint
from components.nats import client as nats_client
from components.nats.snapshot import Snapshot
from components.postgresql.client import (
    PORT,
    SECRET,
    STATEFULSET,
    connect_long,
    program,
    standing,
    where,
)
from components.redis import client as redis_client
from components.redis.replication import Replica
from config.loading import ROOT
from deployments.sandbox.cluster import Sandbox
from operations.backup import Vault
from tests.bench import peers
from tests.bench.deploy import ISA, Figure, table
from tests.filled import Filled, filled

MIB = 1 << 20
ROWS = 9_000_000  # 2 GiB with their index
ROUNDS = 3
SHARD_KEYS, KEY_BYTES = 40_000, 2048  # 80 MiB, of the 128 that a sandbox's member may hold
STREAM, MESSAGES, MESSAGE_BYTES = "bench", 4000, 64 << 10  # 250 MiB
CORES = len(os.sched_getaffinity(0))
SYNTHETIC = """
import random, resource, sys
sys.path.insert(0, {root!r})
from config.loading import load
from operations.backup import Vault
from archive.seal import seal
from archive.upload import part_size
vault = Vault.open(load("sandbox"))
block = random.Random(1).randbytes(1 << 20)
size = int(sys.argv[1]) << 20
source = (block for _ in range(size >> 20))
seal(source, vault.store, "sandbox/bench/memory", vault.settings.backup.age_recipients, part_size(8 << 30))
vault.store.purge("sandbox/bench/memory")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)
"""


@dataclass(frozen=True)
class Stage:
    """A stage alone.

    Attributes:
        name: of it.
        rate: bytes of the source a second.
        cpu: CPU seconds of the whole machine for a byte of the source.
    """

    name: str
    rate: float
    cpu: float


class Nowhere:
    """A file that forgets."""

    def write(self, data: bytes) -> int:
        """Forget it."""
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """Wall and CPU seconds, of all processes of the machine: server and client share it."""
    before, started = _busy(), time.monotonic()
    work()
    return time.monotonic() - started, _busy() - before


def _busy() -> float:
    fields = [int(x) for x in Path("/proc/stat").read_text().split("\n")[0].split()[1:]]
    return (sum(fields[:3]) + sum(fields[5:8])) / os.sysconf("SC_CLK_TCK")


# ---------------------------------------------------------------------- stages alone
def stages(source: Callable[[], Iterator[bytes]], vault: Vault) -> tuple[list[Stage], int, float]:
    """Each stage alone; also the source's size and its compression ratio."""
    size = sum(len(piece) for piece in source())
    found = [_stage("source drain", lambda: sum(map(len, source())), size)]
    sample = _sample(source)
    length = sum(map(len, sample))
    packed: list[bytes] = []

    def compress() -> None:
        packer = zstandard.ZstdCompressor(level=LEVEL, threads=CORES).compressobj()
        packed.extend(packer.compress(piece) for piece in sample)
        packed.append(packer.flush())

    found.append(_stage("zstd", compress, length))
    body = b"".join(packed)
    ratio = length / len(body)

    def protect() -> None:
        digest = hashlib.sha256()
        for piece in sample:
            digest.update(piece)
        recipients = [
            pyrage.x25519.Recipient.from_str(r) for r in vault.settings.backup.age_recipients
        ]
        pyrage.encrypt_io(io.BytesIO(body), Nowhere(), recipients)
        hashlib.sha256(body).hexdigest()

    found.append(_stage("encrypt and hash", protect, length))
    part = part_size(size)
    count = max(PARALLEL_PARTS, len(body) // part)
    parts = [os.urandom(part) for _ in range(PARALLEL_PARTS)]
    found.append(
        _stage(
            "parallel PUT × ratio",
            lambda: _put(vault.store, parts, count),
            int(count * part * ratio),
        )
    )
    total = sum(stage.cpu for stage in found)
    found.append(Stage("cores ÷ CPU of all", CORES / total, total))
    return found, size, ratio


def _stage(name: str, work: Callable[[], Any], size: int) -> Stage:
    wall, cpu = timed(work)
    return Stage(name, size / wall, cpu / size)


def _sample(source: Callable[[], Iterator[bytes]], size: int = 512 * MIB) -> list[bytes]:
    """The first part of the source, in memory: it would else be drained in every stage."""
    found, left = [], size
    for piece in source():
        found.append(piece)
        left -= len(piece)
        if left <= 0:
            break
    return found


def _put(store: Store, parts: list[bytes], count: int) -> None:
    key = "sandbox/bench/raw"
    upload = store.begin(key)
    with ThreadPoolExecutor(PARALLEL_PARTS) as pool:
        list(
            pool.map(
                lambda n: store.put_part(key, upload, n + 1, parts[n % len(parts)]), range(count)
            )
        )
    store.abort(key, upload)


# ---------------------------------------------------------------------- the figures
def pipeline(
    name: str, source: Callable[[], Iterator[bytes]], vault: Vault, identity: str, goal: float
) -> list[Figure]:
    """The whole way against its limit, and the way back against its own."""
    found, size, ratio = stages(source, vault)
    limit = min(stage.rate for stage in found)
    narrow = min(found, key=lambda stage: stage.rate).name
    key, part = "sandbox/bench/pipeline", part_size(size)
    recipients = vault.settings.backup.age_recipients
    walls = [
        timed(lambda: seal(source(), vault.store, key, recipients, part))[0] for _ in range(ROUNDS)
    ]
    rate = size / statistics.median(walls)
    terms = ", ".join(f"{stage.name} {stage.rate / MIB:.0f}" for stage in found)
    share = rate / limit
    figures = [
        Figure(name, f"MiB/s: {terms}; ratio {ratio:.2f}", f"{rate / MIB:.0f} MiB/s = {share:.2f} T_limit ({narrow})",
               f"≥ {goal:.2f}", share >= goal)
    ]  # fmt: skip
    figures.append(_read_back(name, vault, key, identity, size))
    vault.store.purge(key)
    return figures


def _read_back(name: str, vault: Vault, key: str, identity: str, size: int) -> Figure:
    """The way back against the slower of its halves, and against the CPU of both."""
    body = vault.store.get(key)
    works: dict[str, Callable[[], Any]] = {
        "get": lambda: sum(map(len, vault.store.read(key))),
        "open": lambda: _open(body, identity),
        "both": lambda: unseal(vault.store, key, identity, Nowhere()),
    }
    took: dict[str, list[tuple[float, float]]] = {part: [] for part in works}
    for _ in range(ROUNDS):  # interleaved: what disturbs one disturbs all
        for part, work in works.items():
            took[part].append(timed(work))
    wall = {part: statistics.median(wall for wall, _ in took[part]) for part in works}
    cpu = {part: statistics.median(cpu for _, cpu in took[part]) for part in works}
    limit = max(wall["get"], wall["open"], (cpu["get"] + cpu["open"]) / CORES)
    share = limit / wall["both"]
    cores = size * CORES / (cpu["get"] + cpu["open"])
    return Figure(
        f"{name}, read back",
        f"MiB/s: get {len(body) / wall['get'] / MIB:.0f} × ratio {size / len(body):.2f}, "
        f"open {size / wall['open'] / MIB:.0f}, cores ÷ CPU of both {cores / MIB:.0f}",
        f"{size / wall['both'] / MIB:.0f} MiB/s = {share:.2f} of its limit",
        "≥ 0.85",
        share >= 0.85,
    )


def _open(body: bytes, identity: str) -> None:
    """Decrypt, decompress and hash alone: what is in memory, to nowhere."""
    hashlib.sha256(body).hexdigest()
    unpacked, plain = zstandard.ZstdDecompressor().decompressobj(), hashlib.sha256()

    class Opened(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            plain.update(unpacked.decompress(data))
            return len(data)

    keys = [pyrage.x25519.Identity.from_str(identity)]
    with io.BufferedWriter(Opened(), BUFFER_BYTES) as opened:
        pyrage.decrypt_io(io.BytesIO(body), opened, keys)


def postgresql(sandbox: Sandbox, vault: Vault, identity: str) -> list[Figure]:
    """The base backup of 2 GiB, and peers on the same."""
    with Access(vault.settings, vault.kube, 30) as access:
        node = fill_postgresql(access)
        command = program(access, "pg_basebackup", access.secret(SECRET, "postgres-password"))

        def source() -> Iterator[bytes]:
            return command.stream(
                f"--dbname={where(node)}", "--pgdata=-", "--format=tar", "--wal-method=fetch",
                "--checkpoint=fast", "--no-password", stall=60,
            )  # fmt: skip

        figures = pipeline("PostgreSQL base backup, zstd", source, vault, identity, 0.85)
        figures += _peers(access, node, vault, sandbox, source)
    return figures


def incompressible(vault: Vault, identity: str) -> list[Figure]:
    """A source that costs nothing and does not get smaller: what is left is encryption, hashes and the store."""
    block = random.Random(1).randbytes(MIB)
    return pipeline(
        "1 GiB that does not compress", lambda: repeat(block, 1024), vault, identity, 0.90
    )


def redis_shard(vault: Vault, identity: str) -> list[Figure]:
    """One shard of Redis as its replication gives it."""
    with Access(vault.settings, vault.kube, 30) as access:
        members = access.endpoints(redis_client.STATEFULSET, 6, redis_client.PORT)
        slot = key_slot(b"bench")
        views = [redis_client.read_view(access, member) for member in members]
        owner = views[0].slots()[slot].partition(":")[0]
        master = next(member for member in members if member.pod_ip == owner)
        values = random.Random(
            1
        )  # what Redis and NATS cannot compress themselves: else nothing is left to measure
        with redis_client.connect(access, master) as client:
            for start in range(0, SHARD_KEYS, 500):
                batch = client.pipeline(transaction=False)
                for n in range(start, start + 500):
                    batch.set(f"{{bench}}{n}", values.randbytes(KEY_BYTES // 2).hex())
                batch.execute()
        spool = vault.settings.backup.spool

        def source() -> Iterator[bytes]:
            with Spool(Replica(access, master, 60), spool) as drained:
                yield from drained

        return pipeline("Redis, one shard, by a spool", source, vault, identity, 0.85)


def nats_stream(vault: Vault, identity: str) -> list[Figure]:
    """One stream of NATS as its snapshot gives it."""
    with Access(vault.settings, vault.kube, 30) as access:
        servers = access.endpoints(nats_client.STATEFULSET, 3, nats_client.CLIENT_PORT)
        loop = asyncio.new_event_loop()
        client = loop.run_until_complete(nats_client.connect(access, servers))
        try:
            loop.run_until_complete(_fill_stream(client))
            spool = vault.settings.backup.spool

            def source() -> Iterator[bytes]:
                snapshot = Snapshot(loop, client, STREAM, 60)
                snapshot.begin()
                with Spool(snapshot, spool) as drained:
                    yield from drained

            return pipeline("NATS, one stream, by a spool", source, vault, identity, 0.85)
        finally:
            loop.run_until_complete(client.close())
            loop.close()


async def _fill_stream(client: Any) -> None:
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


def _peers(
    access: Access,
    node: Endpoint,
    vault: Vault,
    sandbox: Sandbox,
    source: Callable[[], Iterator[bytes]],
) -> list[Figure]:
    store = sandbox.status()["object_store"]
    path = os.pathsep.join([*(str(p) for p in vault.settings.backup.programs), os.environ["PATH"]])
    password = access.secret(SECRET, "postgres-password")
    environ = {**peers.keys(store), "PGPASSWORD": password, "PATH": path}
    recipients, key = vault.settings.backup.age_recipients, "sandbox/bench/ours"
    runs: dict[str, Callable[[], Any]] = {
        "ours": lambda: seal(source(), vault.store, key, recipients, part_size(2 << 30)),
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
        "ours": vault.store.describe(key)[0],
        "pipe": vault.store.describe("peers/base.tar.zst")[0],
    }
    for entry in list(vault.store.list("peers/")):
        vault.store.purge(entry.key)
    vault.store.purge(key)
    wall = {name: statistics.median(wall for wall, _ in took[name]) for name in runs}
    cpu = {name: statistics.median(cpu for _, cpu in took[name]) for name in runs}
    told = ", ".join(f"{name} {wall[name]:.1f} s ({cpu[name]:.1f} of CPU)" for name in runs)
    ours, fastest = wall["ours"], wall["pipe"]
    stored = f"stored {sizes['ours'] / MIB:.0f} and {sizes['pipe'] / MIB:.0f} MiB"
    return [
        Figure("beside the plain pipe of about equal stored size", f"{told}; {stored}",
               f"{fastest / ours:.2f} × faster", "≥ 1.20", fastest / ours >= 1.2)
    ]  # fmt: skip


def fill_postgresql(access: Access) -> Endpoint:
    """Two GiB of rows, on a standby that has them."""
    nodes = access.endpoints(STATEFULSET, 3, PORT)
    primary = next(n for n in nodes if not standing(access, n).standby)
    standby = next(n for n in nodes if standing(access, n).standby)
    with connect_long(access, primary, "isa") as connection:
        connection.execute("DROP TABLE IF EXISTS bench")
        connection.execute(
            "CREATE TABLE bench AS SELECT n, n * 7919 % 1000003 AS amount, 'customer ' || n % 50021 AS name, "
            f"md5(n::text) AS token, now() + n * interval '1 s' AS at, "
            f"repeat(chr((97 + n % 26)::int), 60) AS note FROM generate_series(1::bigint, {ROWS}) AS n"
        )
        connection.execute("CREATE INDEX ON bench (n)")
        row = connection.execute("SELECT pg_current_wal_lsn()::text").fetchone()
        assert row is not None
    with connect_long(access, standby, "isa") as connection:
        deadline = time.monotonic() + 300
        query = f"SELECT pg_last_wal_replay_lsn() >= '{row[0]}'"
        while connection.execute(query.encode()).fetchone() != (True,):
            assert time.monotonic() < deadline
            time.sleep(0.5)
    return standby


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
    "incompressible": lambda on: incompressible(on.vault, on.identity),
    "redis": lambda on: redis_shard(on.vault, on.identity),
    "nats": lambda on: nats_stream(on.vault, on.identity),
    "postgresql": lambda on: postgresql(on.sandbox, on.vault, on.identity),
}


def main() -> None:
    """Measure, and write docs/bench-backup.md; or show only what is named."""
    chosen = sys.argv[1:] or list(MEASURES)
    with filled("bench") as platform:
        figures = [figure for name in chosen for figure in MEASURES[name](platform)]
    head = f"# Backups, measured\n\n`make bench`, {CORES} cores, {datetime.now(UTC):%Y-%m-%d}.\n\n"
    text = head + table(figures)
    if not sys.argv[1:]:
        (ROOT / "docs/bench-backup.md").write_text(text)
    print(text)
    if not all(figure.met for figure in figures):
        sys.exit(1)


if __name__ == "__main__":
    main()
