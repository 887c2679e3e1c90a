"""The open calls of this process: to an engine, a server or a program, and since when.

A backup that hangs shows where: `isa -v` prints each call that takes longer than ten seconds, `isa -vv` every call.
Flow runs log the same to Prefect.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

FIRST_SECONDS = (
    10.0  # a call that takes longer is logged; then again after twice the time, and so on
)
POLL_SECONDS = 1.0

# Packages whose log lines are shown, by `isa -v` and in the logs of flow runs.
LOGGERS = ("archive", "calls", "cluster", "components", "operations")

log = logging.getLogger(__name__)


@dataclass
class Call:
    """One call.

    Attributes:
        name: what is called, for the log; never a secret.
        begun: start, in seconds of the clock.
        due: seconds from the start to its next log line.
    """

    name: str
    begun: float
    due: float = FIRST_SECONDS


class Calls:
    """The calls of a process. Safe to share between threads.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._open: dict[int, Call] = {}
        self._watched = False

    @contextmanager
    def open(self, name: str) -> Iterator[None]:
        """Count the block as a call.

        Args:
            name: what is called: member or server, and the operation. Never a secret, never a value of a row.
        """
        call = Call(name, self._clock())
        with self._lock:
            self._open[id(call)] = call
        try:
            yield
        except BaseException as exc:
            log.debug("%s: %s after %.2f s", name, type(exc).__name__, self._clock() - call.begun)
            raise
        else:
            log.debug("%s: %.2f s", name, self._clock() - call.begun)
        finally:
            with self._lock:
                del self._open[id(call)]

    def watch(self) -> None:
        """Report every second from now on, for as long as the process lives."""
        with self._lock:
            first, self._watched = not self._watched, True
        if first:
            threading.Thread(target=self._watch, name="calls", daemon=True).start()

    def pending(self) -> list[tuple[str, float]]:
        """Return the name of each call, and the seconds since it started."""
        now = self._clock()
        with self._lock:
            return [(call.name, now - call.begun) for call in self._open.values()]

    def report(self) -> None:
        """Log the calls whose next log line is due."""
        now, due = self._clock(), []
        with self._lock:
            for call in self._open.values():
                if now - call.begun >= call.due:
                    call.due *= 2
                    due.append((call.name, now - call.begun))
        for name, seconds in due:
            log.info("waiting for %s for %.0f s", name, seconds)

    def _watch(self) -> None:
        while True:
            time.sleep(POLL_SECONDS)
            self.report()


def first_words(statement: str | bytes) -> str:
    """Return the loggable part of a statement: two words, because the rest may hold a value or a password."""
    text = statement if isinstance(statement, str) else statement.decode(errors="replace")
    return " ".join(text.split(None, 2)[:2])


CALLS = Calls()
call = CALLS.open
