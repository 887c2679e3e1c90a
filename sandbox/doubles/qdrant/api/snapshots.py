"""The routes of snapshots: of a shard, of a collection's shards on this peer, and of all shards on this peer."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sandbox.doubles.qdrant.api.wire import Raw, Wire
from sandbox.doubles.qdrant.errors import Refused, understanding

PRIORITIES = ("no_sync", "snapshot", "replica")


class Snapshots(Wire):
    """The routes of snapshots."""

    # ------------------------------------------------------------------ of a shard
    def make_shard_snapshot(self, name: str, shard: str) -> Any:
        found, directory = self._shard(name, shard)
        replica = self.peer.local(found["uid"], int(shard))
        return _made(directory, f"{found['name']}-shard-{shard}", replica.snapshot)

    def shard_snapshots(self, name: str, shard: str) -> Any:
        return _listed(self._shard(name, shard)[1])

    def shard_snapshot(self, name: str, shard: str, snapshot: str) -> Any:
        raise Raw(_one(self._shard(name, shard)[1], snapshot))

    def drop_shard_snapshot(self, name: str, shard: str, snapshot: str) -> Any:
        return _drop(self._shard(name, shard)[1], snapshot)

    def stream_shard_snapshot(self, name: str, shard: str) -> Any:
        found, _ = self._shard(name, shard)
        with self._scratch() as scratch:
            file = scratch / f"{found['name']}-shard-{shard}-{_now()}.snapshot"
            self.peer.local(found["uid"], int(shard)).snapshot(file)
            self.send_file(file)

    def upload_shard(self, name: str, shard: str) -> Any:
        """Upload a snapshot. Like the real server it checks the form and the checksum before the shard."""
        priority = self.query.get("priority", "snapshot")
        if priority not in PRIORITIES:
            raise Refused(400, f"Query deserialize error: unknown variant `{priority}`", plain=True)
        with self._scratch() as scratch:
            file = scratch / "archive"
            self.body.save_file("snapshot", file)
            wanted = self.query.get("checksum", "").lower()
            if wanted and wanted != (actual := _sha256(file)):
                # the real server swaps the two
                raise Refused(400, f"Checksum mismatch: expected {actual}, actual {wanted}")
            found, _ = self._shard(name, shard)
            self.replication.replace(found["uid"], int(shard), file, priority)

    # ------------------------------------------------------------------ of a collection
    def collection_snapshots(self, name: str) -> Any:
        return _listed(self._all(name))

    def make_collection_snapshot(self, name: str) -> Any:
        """A collection's snapshot; in a cluster it has only the shards on this peer."""
        found = self.peer.collection(name)["name"]
        stem = f"{found}-{self.peer.me.identity}"
        return _made(self._all(name), stem, lambda target: self._bundle(target, [found]))

    def recover_collection(self, name: str) -> Any:
        self.peer.collection(name)
        with understanding():
            path = str(self.json_body()["location"]).removeprefix("file://")
        if not Path(path).is_file():
            raise Refused(400, f'Bad request: Snapshot file "{path}" does not exist')
        raise Refused(400, "Bad request: this double restores shards, not collections")

    # ------------------------------------------------------------------ of everything
    def make_full_snapshot(self) -> Any:
        names = sorted(self.peer.meta["collections"])
        return _made(
            self._directory("full"), "full-snapshot", lambda target: self._bundle(target, names)
        )

    # ------------------------------------------------------------------ inside
    def _shard(self, name: str, shard: str) -> tuple[dict[str, Any], Path]:
        found = self.peer.collection(name)
        if self.peer.me.name not in found["shards"].get(shard, (self.peer.me.name,)):
            raise Refused(400, f"Wrong input: Shard {shard} is not a local shard")
        self.peer.local(found["uid"], int(shard))
        return found, self._directory(found["uid"], shard)

    def _all(self, name: str) -> Path:
        return self._directory(self.peer.collection(name)["uid"], "all")

    def _directory(self, *parts: str) -> Path:
        directory = self.peer.data.joinpath("snapshots", *parts)
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(dir=self.peer.data) as scratch:
            yield Path(scratch)

    def _bundle(self, target: Path, names: list[str]) -> None:
        with self._scratch() as scratch:
            root = scratch / "bundle"
            for name in names:
                found = self.peer.collection(name)
                parent = root / name
                parent.mkdir(parents=True)
                for shard, replicas in found["shards"].items():
                    if self.peer.me.name in replicas:
                        self.peer.local(found["uid"], int(shard)).snapshot(parent / shard)
            root.mkdir(exist_ok=True)
            archive = shutil.make_archive(str(scratch / "archive"), "tar", root)
            shutil.move(archive, target)


def _made(directory: Path, stem: str, make: Any) -> dict[str, Any]:
    """Create a snapshot with a unique name: names have seconds, and two snapshots may be made in one."""
    file = directory / f"{stem}-{_now()}.snapshot"
    while file.exists():
        time.sleep(0.1)
        file = directory / f"{stem}-{_now()}.snapshot"
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        fresh = Path(scratch) / file.name
        make(fresh)
        # it becomes visible when it is complete, with its checksum
        file.with_suffix(".checksum").write_text(_sha256(fresh), encoding="utf-8")
        fresh.rename(file)
    return _described(file)


def _listed(directory: Path) -> list[dict[str, Any]]:
    return [_described(file) for file in sorted(directory.glob("*.snapshot"))]


def _one(directory: Path, snapshot: str) -> Path:
    file = directory / snapshot
    if file.parent != directory or not file.is_file():
        raise Refused(404, f'Not found: Snapshot "{file}" not found')
    return file


def _drop(directory: Path, snapshot: str) -> bool:
    file = _one(directory, snapshot)
    file.unlink()
    file.with_suffix(".checksum").unlink(missing_ok=True)
    return True


def _described(file: Path) -> dict[str, Any]:
    made = datetime.fromtimestamp(file.stat().st_mtime, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    checksum = file.with_suffix(".checksum").read_text(encoding="utf-8")
    return {
        "name": file.name,
        "creation_time": made,
        "size": file.stat().st_size,
        "checksum": checksum,
    }


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d-%H-%M-%S")
