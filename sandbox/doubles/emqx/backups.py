"""The archives of exports. Each is on the node that created or received it; all nodes can read it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sandbox.doubles.emqx.state import State


class Backups:
    """The archives of a node, and access to those of the others.

    Args:
        state: has the other nodes.
        directory: directory of this node's archives.
        host: DNS suffix of node names.
    """

    def __init__(self, state: State, directory: Path, host: str) -> None:
        self._state = state
        self.directory = directory
        self._host = host

    def own(self) -> list[dict[str, Any]]:
        """This node's archives."""
        return [self.described(file) for file in self.directory.glob("*.tar.gz")]

    def everywhere(self) -> list[dict[str, Any]]:
        """All running nodes' archives, the latest first."""
        found = self.own()
        for pod in self._state.others():
            answer = self._state.ask(pod, "GET", "/files")
            found += answer.json() if answer is not None else []
        return sorted(found, key=lambda f: (f["created_at_sec"], f["filename"]), reverse=True)

    def read(self, name: str, pod: str = "") -> bytes:
        """An archive's bytes.

        Raises:
            FileNotFoundError: that node has none of this name.
        """
        if pod in ("", self._state.name):
            return self._path(name).read_bytes()
        return self._asked(pod, "GET", name)

    def delete(self, name: str, pod: str = "") -> None:
        """Delete an archive.

        Raises:
            FileNotFoundError: that node has none of this name.
        """
        if pod in ("", self._state.name):
            self._path(name).unlink()
        else:
            self._asked(pod, "DELETE", name)

    def write(self, name: str, content: bytes) -> None:
        """Keep an archive on this node."""
        self.directory.mkdir(parents=True, exist_ok=True)
        fresh = self._path(name).with_suffix(".part")
        fresh.write_bytes(content)
        fresh.rename(self._path(name))

    def described(self, file: Path) -> dict[str, Any]:
        """The API's description of an archive."""
        status = file.stat()
        made = datetime.fromtimestamp(int(status.st_mtime), UTC)
        return {
            "filename": file.name,
            "node": f"emqx@{self._state.name}.{self._host}",
            "size": status.st_size,
            "created_at": made.isoformat(),
            "created_at_sec": int(status.st_mtime),
        }

    def _path(self, name: str) -> Path:
        return self.directory / Path(name).name

    def _asked(self, pod: str, method: str, name: str) -> bytes:
        answer = self._state.ask(pod, method, f"/files/{quote(name, safe='')}")
        if answer is None or answer.status_code != 200:
            raise FileNotFoundError(name)
        return answer.content
