"""The sandbox's directories: built programs in the user's cache, each sandbox in the user's state directory."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_dir() -> Path:
    """Built programs, which can be built again: $XDG_CACHE_HOME/isa-cloud."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "isa-cloud"


def state_dir() -> Path:
    """Sandboxes by name: $XDG_STATE_HOME/isa-cloud/sandboxes."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "isa-cloud" / "sandboxes"


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file. Waits for another holder."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def write_atomic(file: Path, text: str, mode: int = 0o600) -> None:
    """Write a file atomically: a reader sees the old text or the new one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    fresh.touch(mode=mode)
    fresh.write_text(text, encoding="utf-8")
    os.replace(fresh, file)
