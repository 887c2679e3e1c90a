"""Lets a command end as it would have though nobody reads its output any more: `isa plan | head`.

Exit codes say what was found (1 of `isa plan` is "blocked"), and a deploy must not stop between two releases because
its log's reader has gone. So output that cannot be written is dropped, and the command goes on to its own end.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Any, TextIO


class ClosedPipeTolerant(io.FileIO):
    """A file descriptor that goes to /dev/null once its pipe is closed.

    Attributes:
        abandoned: whether the reader has gone.
    """

    abandoned = False

    def write(self, data: Any, /) -> int:
        """As `FileIO.write`, but never a BrokenPipeError."""
        try:
            return super().write(data)
        except BrokenPipeError:
            self.abandoned = True
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return len(data)


def tolerant(stream: TextIO) -> TextIO:
    """The same stream, which drops what cannot be written; streams without a descriptor stay as they are."""
    try:
        number = stream.fileno()
    except (AttributeError, OSError):  # None, or one that a caller put in its place
        return stream
    stream.flush()
    raw = ClosedPipeTolerant(number, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors="backslashreplace",  # a name in letters that the terminal has not is no reason to fail
        line_buffering=stream.isatty() or number == 2,
    )


def tolerate_closed_pipes() -> None:
    """Make standard output and standard error of this process tolerant."""
    sys.stdout, sys.stderr = tolerant(sys.stdout), tolerant(sys.stderr)


def abandoned(stream: TextIO) -> bool:
    """Whether nobody reads a stream any more: what would go on for ever may end then."""
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return isinstance(raw, ClosedPipeTolerant) and raw.abandoned
