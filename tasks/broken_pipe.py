"""Lets a run continue although its output is no longer read, because its worker was killed.

A worker reads its runs' output through a pipe. Prefect logs to it with `rich`, which raises SystemExit in code that
logs into a broken pipe: a task crashes, and the flow waits for it forever (measured on 3.8.8 with rich 15). The server
still gets every line.
"""

from __future__ import annotations

import logging
import os

from rich.console import Console


def ignore_closed_stdout() -> None:
    """From now on, drop what Prefect's loggers print if nothing reads it."""
    for name in (None, "prefect"):
        for handler in logging.getLogger(name).handlers:
            console = getattr(handler, "console", None)
            if isinstance(console, Console):
                _forget_its_reader(console)


def _forget_its_reader(console: Console) -> None:
    def nobody_reads() -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, console.file.fileno())
        os.close(nowhere)

    # the hook that rich has for it: https://rich.readthedocs.io/en/stable/reference/console.html
    console.on_broken_pipe = nobody_reads  # type: ignore[method-assign]
