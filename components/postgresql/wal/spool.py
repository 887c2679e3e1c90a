"""The directory that pg_receivewal writes into: segment files, the growing one, timeline history files.

pg_receivewal begins behind the newest complete segment of its directory, or at the start of a `.partial` one
(`FindStreamingStart` in src/bin/pg_basebackup/pg_receivewal.c). So an empty `.partial` file chooses where it begins.
It fills a new file with zeros, and confirms what it wrote only every few seconds. How far a growing file is written is
therefore read from the kernel: the position of pg_receivewal's own file descriptor (proc(5), fdinfo).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from archive.wal.bucket import segment_name

PARTIAL = ".partial"
_FILE = re.compile(r"([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})(\.partial)?")
_HISTORY = re.compile(r"([0-9A-F]{8})\.history")


@dataclass(frozen=True, order=True)
class SegmentFile:
    """A segment file of the spool.

    Attributes:
        start: LSN of its first byte.
        timeline: of its WAL.
        complete: whether pg_receivewal has closed it.
        path: of the file.
    """

    start: int
    timeline: int
    complete: bool
    path: Path


class WalSpool:
    """The directory of one pg_receivewal.

    Args:
        directory: that only this process and its pg_receivewal write.
        segment: size of a segment, bytes.
    """

    def __init__(self, directory: Path, segment: int) -> None:
        self.directory = directory
        self.segment = segment

    def files(self) -> list[SegmentFile]:
        """Segment files by start and timeline."""
        found = []
        for path in self.directory.iterdir():
            match = _FILE.fullmatch(path.name)
            if match:
                found.append(SegmentFile(self._start(match), int(match[1], 16), not match[4], path))
        return sorted(found)

    def histories(self) -> dict[int, bytes]:
        """Timeline history files that are complete: timeline → content."""
        found = {}
        for path in self.directory.iterdir():
            if match := _HISTORY.fullmatch(path.name):
                found[int(match[1], 16)] = path.read_bytes()
        return found

    def size(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for path in self._paths())

    def begin_at(self, timeline: int, start: int) -> None:
        """Let the next pg_receivewal begin with a segment, unless the spool has it; files before it are deleted.

        Args:
            timeline: of the segment.
            start: LSN of its first byte.
        """
        files = self.files()
        wanted = [one for one in files if one.start == start]
        for one in files:
            if one.start < start or not wanted:  # a later segment without this one leaves a gap
                one.path.unlink()
        if not wanted:
            (self.directory / (segment_name(timeline, start, self.segment) + PARTIAL)).touch()

    def clear(self) -> None:
        """Delete everything."""
        for path in self._paths():
            path.unlink()

    def written(self, pid: int) -> tuple[int, int] | None:
        """Return how far a pg_receivewal has written its growing file: timeline and LSN; None if it has none open.

        Args:
            pid: of pg_receivewal.
        """
        with suppress(OSError):  # it has ended, or closed the file just now
            for name in os.listdir(f"/proc/{pid}/fd"):
                with suppress(OSError):
                    path = Path(os.readlink(f"/proc/{pid}/fd/{name}"))
                    match = _FILE.fullmatch(path.name)
                    if match and match[4] and path.parent == self.directory.resolve():
                        info = Path(f"/proc/{pid}/fdinfo/{name}").read_text(encoding="ascii")
                        offset = int(info.split("pos:")[1].split()[0])
                        return int(match[1], 16), self._start(match) + offset
        return None

    def _start(self, name: re.Match[str]) -> int:
        """LSN of the first byte of a segment file, by its name."""
        per_id = (1 << 32) // self.segment
        return (int(name[2], 16) * per_id + int(name[3], 16)) * self.segment

    def _paths(self) -> Iterator[Path]:
        for path in self.directory.iterdir():
            if _FILE.fullmatch(path.name) or _HISTORY.fullmatch(path.name):
                yield path
