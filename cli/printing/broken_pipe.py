"""Lets a command finish with its own exit code although its output is no longer read: `isa plan | head`.

Exit codes carry the result (1 of `isa plan` is "blocked"), and a deploy must not stop between two releases because the
reader of its log has gone. Output that cannot be written is dropped, and the command continues to its end.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Any, TextIO


class ClosedPipeTolerant(io.FileIO):
    """A file descriptor that is redirected to /dev/null once its pipe is closed.

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
    """Return the stream with a writer that drops what cannot be written; unchanged if it has no descriptor."""
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
    """Make standard output and standard error of this process ignore a closed pipe."""
    sys.stdout, sys.stderr = tolerant(sys.stdout), tolerant(sys.stderr)


def abandoned(stream: TextIO) -> bool:
    """Whether a stream has no reader any more, so that an endless command may stop."""
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return isinstance(raw, ClosedPipeTolerant) and raw.abandoned
