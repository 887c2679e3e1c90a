"""What a run prints when nobody reads it any more."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import suppress

import pytest
from prefect.logging.handlers import PrefectConsoleHandler

from tasks.broken_pipe import ignore_closed_stdout


@pytest.fixture
def unread() -> Iterator[logging.Logger]:
    """Prefect's logger, whose handler writes into a pipe that nobody reads."""
    reads, writes = os.pipe()
    os.close(reads)
    logger = logging.getLogger("prefect")
    before = logger.handlers
    with suppress(BrokenPipeError), open(writes, "w") as pipe:
        logger.handlers = [PrefectConsoleHandler(pipe)]
        yield logger
        logger.handlers = before


def test_a_run_that_nobody_reads_goes_on(unread: logging.Logger) -> None:
    ignore_closed_stdout()
    for _ in range(2):
        unread.error("said to nobody")


def test_without_it_prefect_ends_what_logs(
    unread: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "dup2", lambda *_: None)  # rich would take away our own standard output
    with pytest.raises(SystemExit):
        unread.error("said to nobody")
