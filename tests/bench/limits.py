"""What the machine can do with a source: every stage of a backup alone, then the whole way against their least.

T_limit in bytes of the source a second is the least of: the source's own drain, zstd, encryption and hashing,
compression ratio × parallel PUT, and the cores divided by the CPU seconds a byte of all of these together (two cores
do not do all at once). Each is measured alone, in the same run, on the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import os
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyrage
import zstandard

from archive.backup.encryption import LEVEL, decrypt, encrypt
from archive.object_store.store import Store
from archive.object_store.upload import PARALLEL_PARTS, part_size
from archive.streams.chunks import BUFFER_BYTES
from operations.environment.environment import Environment
from tests.bench.deploy import Figure

MIB = 1 << 20
ROUNDS = 3
CORES = len(os.sched_getaffinity(0))


def pipeline(
    name: str,
    source: Callable[[], Iterator[bytes]],
    environment: Environment,
    identity: str,
    goal: float,
    limits: Limits,
) -> list[Figure]:
    """The whole way against the source's limits, and the way back against its own."""
    size, narrow = limits.size, limits.narrow
    key, part = "sandbox/bench/pipeline", part_size(size)
    recipients = environment.settings.backup.age_recipients
    walls = [
        timed(lambda: encrypt(source(), environment.store, key, recipients, part))[0]
        for _ in range(ROUNDS)
    ]
    rate = size / statistics.median(walls)
    terms = ", ".join(f"{stage.name} {stage.rate / MIB:.0f}" for stage in limits.stages)
    share = rate / narrow.rate
    figures = [
        Figure(name, f"MiB/s: {terms}; ratio {limits.ratio:.2f}",
               f"{rate / MIB:.0f} MiB/s = {share:.2f} T_limit ({narrow.name})",
               f"≥ {goal:.2f}", share >= goal)
    ]  # fmt: skip
    figures.append(_read_back(name, environment, key, identity, size))
    environment.store.purge(key)
    return figures


def _read_back(name: str, environment: Environment, key: str, identity: str, size: int) -> Figure:
    """The way back against the slower of its halves, and against the CPU of both."""
    body = environment.store.get(key)
    works: dict[str, Callable[[], Any]] = {
        "get": lambda: sum(map(len, environment.store.read(key))),
        "open": lambda: _open(body, identity),
        "both": lambda: decrypt(environment.store, key, identity, Nowhere()),
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


# ---------------------------------------------------------------------- stages alone
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


@dataclass(frozen=True)
class Limits:
    """What the machine can do with a source.

    Attributes:
        stages: each alone, and the CPU of all.
        size: of the source, bytes.
        ratio: of its compression.
    """

    stages: tuple[Stage, ...]
    size: int
    ratio: float

    @property
    def narrow(self) -> Stage:
        """The slowest stage."""
        return min(self.stages, key=lambda stage: stage.rate)

    @property
    def seconds(self) -> float:
        """What the whole source takes at T_limit; nothing that does these stages here is done sooner."""
        return self.size / self.narrow.rate


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


def measure(source: Callable[[], Iterator[bytes]], environment: Environment) -> Limits:
    """Each stage of a source's backup alone."""
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
            pyrage.x25519.Recipient.from_str(r) for r in environment.settings.backup.age_recipients
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
            lambda: _put(environment.store, parts, count),
            int(count * part * ratio),
        )
    )
    total = sum(stage.cpu for stage in found)
    found.append(Stage("cores ÷ CPU of all", CORES / total, total))
    return Limits(tuple(found), size, ratio)


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
