"""Sends the project's own log lines to Prefect, whose run logs have them beside the run's own.

Prefect attaches its handler to loggers of its own, and finds the run by context variables, which threads of ours do
not have (`prefect.logging.handlers.APILogHandler.prepare`). A process has one flow run: so the run is named here.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from prefect import runtime
from prefect.logging.handlers import APILogHandler

from calls import CALLS, LOGGERS


@contextmanager
def logged() -> Iterator[None]:
    """Wrap the body of a flow: what our modules log from level INFO on goes to the flow run's log too."""
    run = runtime.flow_run.id

    def name_the_run(record: logging.LogRecord) -> bool:
        record.flow_run_id = run
        return True

    handler = APILogHandler(level=logging.INFO)
    handler.addFilter(name_the_run)
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(min(logging.INFO, logger.level or logging.INFO))
    CALLS.watch()
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
