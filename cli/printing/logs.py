"""What `isa -v` prints on standard error: waits, retries, and calls that hang; with -vv every call.

`ISA_LOG_FORMAT=json` makes each line an object, for programs that collect the logs of a worker.
"""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime

from calls import CALLS, LOGGERS
from config.text.printable import json_text, visible

LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)
FORMAT_VARIABLE = "ISA_LOG_FORMAT"


def log_to_stderr(verbose: int, form: str = "") -> None:
    """Configure the log output: warnings, and with -v more of the project's own modules.

    Args:
        verbose: 1 prints waits and retries too, 2 every call, both with their time; tracebacks from 1 on.
        form: `json`, or "" for lines.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLine() if form == "json" else Line(verbose > 0))
    logging.getLogger().addHandler(handler)
    for name in LOGGERS:
        logging.getLogger(name).setLevel(LEVELS[min(verbose, 2)])
    if verbose:
        CALLS.watch()


class Line(logging.Formatter):
    """One line per record.

    Args:
        detailed: with its time, and with its traceback.
    """

    def __init__(self, detailed: bool) -> None:
        super().__init__("%(asctime)s %(name)s: %(message)s", "%H:%M:%S")
        self.converter = time.gmtime
        self._detailed = detailed

    def format(self, record: logging.LogRecord) -> str:
        """As `Formatter.format`."""
        if self._detailed:
            return visible(super().format(record), lines=True)
        return visible(f"{record.name}: {record.getMessage()}")


class JsonLine(logging.Formatter):
    """One JSON object per record."""

    def format(self, record: logging.LogRecord) -> str:
        """As `Formatter.format`."""
        at = datetime.fromtimestamp(record.created, UTC)
        document = {
            "time": at.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "thread": record.threadName,
            "message": record.getMessage(),
        }
        if record.exc_text:
            document["traceback"] = record.exc_text
        return json_text(document)
