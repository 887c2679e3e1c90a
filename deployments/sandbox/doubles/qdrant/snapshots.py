"""The routes of snapshots: of a shard, of the shards of a collection that are here, of everything that is here."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deployments.sandbox.doubles.qdrant.errors import Refused
from deployments.sandbox.doubles.qdrant.wire import Raw, Wire


class Snapshots(Wire):
    """Those routes."""

    def make_shard_snapshot(self, name: str, shard: str) -> Any:
        found = self.peer.collection(name)
        replica = self.peer.local(found["name"], int(shard))
        directory = self._snapshots(found["name"], shard)
        file = directory / f"{found['name']}-shard-{shard}-{_now('%Y-%m-%d-%H-%M-%S')}.snapshot"
        replica.snapshot(file)
        file.with_suffix(".checksum").write_text(_sha256(file))
        return _described(file)

    def shard_snapshots(self, name: str, shard: str) -> Any:
        self.peer.local(self.peer.collection(name)["name"], int(shard))
        return [
            _described(file) for file in sorted(self._snapshots(name, shard).glob("*.snapshot"))
        ]

    def shard_snapshot(self, name: str, shard: str, snapshot: str) -> Any:
        raise Raw(self._snapshot(name, shard, snapshot))

    def drop_shard_snapshot(self, name: str, shard: str, snapshot: str) -> Any:
        file = self._snapshot(name, shard, snapshot)
        file.unlink()
        file.with_suffix(".checksum").unlink(missing_ok=True)
        return True

    def stream_shard_snapshot(self, name: str, shard: str) -> Any:
        found = self.peer.collection(name)
        with tempfile.TemporaryDirectory(dir=self.peer.data) as scratch:
            file = (
                Path(scratch)
                / f"{found['name']}-shard-{shard}-{_now('%Y-%m-%d-%H-%M-%S')}.snapshot"
            )
            self.peer.local(found["name"], int(shard)).snapshot(file)
            self.send_file(file)
        raise Raw("")

    def upload(self, name: str, shard: str) -> Any:
        found = self.peer.collection(name)
        replica = self.peer.local(found["name"], int(shard))
        with tempfile.TemporaryDirectory(dir=self.peer.data) as scratch:
            file = Path(scratch) / "archive"
            self.receive(file)
            wanted = self.query.get("checksum")
            if wanted and wanted != (actual := _sha256(file)):
                # the real server has the two the wrong way round
                raise Refused(400, f"Checksum mismatch: expected {actual}, actual {wanted}")
            replica.restore(file)
        self.peer.restored(found["name"], int(shard))
        return None

    def collection_snapshots(self, name: str) -> Any:
        found = self.peer.collection(name)["name"]
        return [_described(f) for f in sorted(self._snapshots(found, "all").glob("*.snapshot"))]

    def make_collection_snapshot(self, name: str) -> Any:
        """Of the shards that are here: what a snapshot of a collection is in a cluster."""
        found = self.peer.collection(name)["name"]
        directory = self._snapshots(found, "all")
        stem = f"{found}-{self.peer.me.identity}-{_now('%Y-%m-%d-%H-%M-%S')}"
        return self._bundle(directory / f"{stem}.snapshot", [found])

    def make_full_snapshot(self) -> Any:
        directory = self._snapshots("", "")
        file = directory / f"full-snapshot-{_now('%Y-%m-%d-%H-%M-%S')}.snapshot"
        return self._bundle(file, sorted(self.peer.meta["collections"]))

    def recover(self, name: str) -> Any:
        location = str(self.json_body()["location"])
        self.peer.collection(name)
        path = location.removeprefix("file://")
        if not Path(path).exists():
            raise Refused(400, f'Bad request: Snapshot file "{path}" does not exist')
        raise Refused(400, "Bad request: this double restores shards, not collections")

    def _bundle(self, target: Path, names: list[str]) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(dir=self.peer.data) as scratch:
            root = Path(scratch) / "bundle"
            for name in names:
                for shard, replicas in self.peer.collection(name)["shards"].items():
                    if self.peer.me.name in replicas:
                        part = root / name / shard
                        part.parent.mkdir(parents=True, exist_ok=True)
                        self.peer.local(name, int(shard)).snapshot(part)
            root.mkdir(exist_ok=True)
            archive = shutil.make_archive(str(Path(scratch) / "archive"), "tar", root)
            shutil.move(archive, target)
        target.with_suffix(".checksum").write_text(_sha256(target))
        return _described(target)

    def _snapshots(self, name: str, shard: str) -> Path:
        directory = self.peer.data / "snapshots" / name / shard
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    def _snapshot(self, name: str, shard: str, snapshot: str) -> Path:
        file = self._snapshots(self.peer.collection(name)["name"], shard) / snapshot
        if not file.is_file():
            raise Refused(404, f'Not found: Snapshot "{file}" not found')
        return file


def _described(file: Path) -> dict[str, Any]:
    made = datetime.fromtimestamp(file.stat().st_mtime, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    checksum = file.with_suffix(".checksum").read_text()
    return {
        "name": file.name,
        "creation_time": made,
        "size": file.stat().st_size,
        "checksum": checksum,
    }


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _now(form: str) -> str:
    return datetime.now(UTC).strftime(form)
