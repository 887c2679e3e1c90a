"""Sends the project's own log lines to Prefect, which shows them in the log of the run.

Prefect attaches its handler to loggers of its own, and finds the run by context variables, which the project's threads
do not have (`prefect.logging.handlers.APILogHandler.prepare`). A process has one flow run: so the run is set here.
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
    """Wrap the body of a flow: log lines of the project's modules, from INFO up, also go to the flow run's log."""
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
