"""Shards on disk: the real engine in this process, and archives in the format of the server's shard snapshots."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import qdrant_edge as edge

from sandbox.doubles.qdrant import points
from sandbox.doubles.qdrant.errors import Refused

BESIDE = ("segment.json", "version.info")  # beside `files/` in a segment's archive


class Shard:
    """One replica of a shard.

    Args:
        directory: its files.
        vectors: of the collection.
    """

    def __init__(self, directory: Path, vectors: dict[str, Any]) -> None:
        self._directory = directory
        self._vectors = vectors
        self._lock = threading.RLock()
        self._restoring = threading.Lock()
        self._closed = self._dirty = False
        self._engine = self._open()

    def update(self, operation: edge.UpdateOperation) -> None:
        """Apply an update.

        It is not flushed: the engine writes each operation to its log first, a mapped file that outlives the process,
        and `load` carries out again what segments lack. Tried with kill -9 and no flush at all: upserts, deletions and
        an index were all there. A flush takes 7 ms, an update 0.01.
        """
        with self._here() as engine:
            self._dirty = True
            try:
                engine.update(operation)
            except Exception as exc:  # the engine has one exception for all
                raise Refused(400, f"Wrong input: {exc}") from exc

    def ask(self, question: Callable[[edge.EdgeShard], Any]) -> Any:
        """Ask the engine."""
        with self._here() as engine:
            try:
                return question(engine)
            except Exception as exc:
                raise Refused(400, f"Wrong input: {exc}") from exc

    def flush(self) -> None:
        """Flush the log, so that it does not grow forever."""
        with self._lock:
            if self._dirty and not self._closed:
                self._engine.flush()
                self._dirty = False

    def count(self) -> int:
        """Points."""
        return int(self.ask(lambda engine: engine.count(edge.CountRequest(exact=True))))

    def close(self) -> None:
        """Close the files."""
        with self._lock:
            self.flush()
            self._engine.close()
            self._closed = True

    def snapshot(self, target: Path) -> None:
        """Write an archive: a tar of `segments/UUID.tar`, as the server's is."""
        with self._here() as engine, tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            engine.flush()
            root = Path(scratch) / "shard"
            (root / "segments").mkdir(parents=True)
            for segment in sorted((self._directory / "segments").iterdir()):
                if segment.is_dir():
                    _archive_segment(segment, root / "segments" / f"{segment.name}.tar")
            described = {"vectors": self._vectors}
            (root / "shard_config.json").write_text(
                json.dumps({"type": "ReplicaSet"}), encoding="utf-8"
            )
            (root / "replica_state.json").write_text(json.dumps(described), encoding="utf-8")
            fresh = Path(scratch) / "archive"
            _tar(fresh, root, "segments", "shard_config.json", "replica_state.json")
            fresh.rename(target)

    def restore(self, archive: Path) -> None:
        """Replace all points by those of an archive; the old ones stay if it cannot be read."""
        with self._restoring:
            self._restore(archive, self._directory.with_name(f"{self._directory.name}.restored"))

    def _restore(self, archive: Path, fresh: Path) -> None:
        shutil.rmtree(fresh, ignore_errors=True)
        try:
            edge.EdgeShard.unpack_snapshot(str(archive), str(fresh))
            edge.EdgeShard.load(str(fresh), points.config(self._vectors)).close()
        except Exception as exc:
            shutil.rmtree(fresh, ignore_errors=True)
            message = f"Service internal error: File IO error: failed to unpack `{archive}`: {exc}"
            raise Refused(500, message) from exc
        with self._here() as engine:
            engine.close()
            # renamed, not removed, until the new one is in place: a kill between the two must not lose both
            self._directory.rename(self._former())
            fresh.rename(self._directory)
            self._engine = self._open()
            self._dirty = False

    @contextmanager
    def _here(self) -> Iterator[edge.EdgeShard]:
        with self._lock:
            if self._closed:
                raise Refused(404, f"Not found: shard {self._directory.name} not found")
            yield self._engine

    def _former(self) -> Path:
        return self._directory.with_name(f"{self._directory.name}.former")

    def _open(self) -> edge.EdgeShard:
        config = points.config(self._vectors)
        if not self._directory.exists() and self._former().exists():
            self._former().rename(self._directory)
        shutil.rmtree(self._former(), ignore_errors=True)
        if (self._directory / "segments").exists():
            return edge.EdgeShard.load(str(self._directory), config)
        shutil.rmtree(self._directory, ignore_errors=True)
        self._directory.parent.mkdir(parents=True, exist_ok=True)
        return edge.EdgeShard.create(str(self._directory), config)


def _archive_segment(segment: Path, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        inner = Path(scratch) / "snapshot"
        files = inner / "files"
        # hard links: only names are copied
        shutil.copytree(segment, files, copy_function=_link)
        for name in BESIDE:
            if (files / name).exists():
                (files / name).rename(inner / name)
        _tar(target, Path(scratch), "snapshot")


def _link(source: str, target: str) -> str:
    Path(target).hardlink_to(source)
    return target


def _tar(target: Path, directory: Path, *names: str) -> None:
    """A sparse archive: the engine's files are mostly holes, 77 MB of which 4.6 are data (measured, 10,000 points)."""
    argv = [
        "tar",
        "--format=gnu",
        "--sparse",
        "--hard-dereference",
        "-cf",
        str(target),
        "-C",
        str(directory),
        *names,
    ]
    subprocess.run(argv, check=True, capture_output=True)
