"""Runs checks against an engine's members: in parallel, each with a time limit; an exception becomes a result.

Seven client libraries describe the same problem in seven ways; `explain` names the problem and what to do about it.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

from components.access import Endpoint
from components.base import Check
from errors import IsaError

log = logging.getLogger(__name__)

PROBE = (
    "isa-cloud-probe"  # name of everything that synthetic transactions write; backups leave it out
)

T = TypeVar("T")

# What the clients say → what it means. The first match counts.
TROUBLES: tuple[tuple[str, str], ...] = (
    (
        r"certificate has expired|certificate_expired|certificate is not yet valid",
        "its TLS certificate has expired: renew it and restart the member (or check the clocks)",
    ),
    (
        r"certificate verify failed|self.signed|unknown ca|hostname mismatch|bad certificate",
        "its TLS certificate is not trusted: check the CA and the names in the certificate",
    ),
    (
        r"password authentication failed|WRONGPASS|NOAUTH|invalid username-password|authori[sz]ation violation"
        r"|InvalidAccessKeyId|SignatureDoesNotMatch|unauthori[sz]ed|\b401\b|bad_username_or_pwd|not authori[sz]ed"
        r"|Invalid API key|Must provide an API key|AuthenticationRateLimit",
        "it refused the credentials: the Secret was changed by hand, or the data was initialised with other "
        "credentials",
    ),
    (
        r"connection refused|Errno 111|connect call failed|WinError 10061",
        "nothing listens there: the process is down or still starting (see kubectl logs)",
    ),
    (
        r"timed? ?out|timeout|deadline exceeded|not answer",
        "it accepts connections but does not answer, or the network drops them",
    ),
    (
        r"connection reset|closed by (?:the )?(?:remote|server|peer)|server closed|EOF|broken pipe|disconnected"
        r"|incomplete read",
        "it closed the connection: it is restarting, or another program listens there",
    ),
    (
        r"no route to host|network is unreachable|Errno 113",
        "its network is not reachable from here: set kubernetes.engine_access to port-forward",
    ),
)


@dataclass
class Answer:
    """The result of a check; not ok until it is settled."""

    ok: bool = False
    hint: str = ""
    refused: bool = False

    def settle(self, ok: bool, hint: str = "") -> None:
        """Set the result."""
        self.ok, self.hint = ok, hint

    def unknown(self, hint: str) -> None:
        """Mark the check as unknown: the engine's own rules prevent it, and `hint` names them."""
        self.ok, self.hint, self.refused = True, hint, True


@dataclass
class Round:
    """Collects the checks of one round.

    Attributes:
        checks: so far.
    """

    checks: list[Check] = field(default_factory=list)

    @contextmanager
    def check(self, name: str, *, critical: bool = True) -> Iterator[Answer]:
        """Run one check; an exception settles it as not ok, with an explanation."""
        answer, started = Answer(), time.monotonic()
        try:
            yield answer
        except Exception as exc:  # whatever a client library raises
            answer.settle(False, explain(exc))
        seconds = time.monotonic() - started
        self.checks.append(Check(name, answer.ok, answer.hint, seconds, critical, answer.refused))

    def note(self, name: str, ok: bool, hint: str = "", *, critical: bool = True) -> None:
        """Add a check whose result is known already."""
        self.checks.append(Check(name, ok, hint, 0.0, critical))


@dataclass(frozen=True)
class Answers(Generic[T]):
    """The answers of the members.

    Attributes:
        good: member → its answer.
        bad: member → why there is none.
        seconds: time that the slowest took.
    """

    good: dict[str, T]
    bad: dict[str, str]
    seconds: float

    def check(self, name: str, *, critical: bool = False) -> Check:
        """Whether all answered."""
        total = len(self.good) + len(self.bad)
        hint = f"{len(self.good)} of {total}" if not self.bad else words(self.bad)
        return Check(name, not self.bad, hint, self.seconds, critical)


def ask_members(endpoints: Iterable[Endpoint], question: Callable[[Endpoint], T]) -> Answers[T]:
    """Send one request to all members at the same time.

    Args:
        endpoints: the members.
        question: asks one of them; it must have a time limit of its own.
    """
    started = time.monotonic()
    good: dict[str, T] = {}
    bad: dict[str, str] = {}
    members = list(endpoints)
    asked = {m.member: begin(partial(question, m)) for m in members if m.host}
    bad |= {m.member: "its pod has no address: it has not started" for m in members if not m.host}
    for name, future in asked.items():
        try:
            good[name] = future.result()
        except Exception as exc:
            bad[name] = explain(exc)
            log.debug("%s: %s", name, bad[name])
    return Answers(good, dict(sorted(bad.items())), time.monotonic() - started)


def begin(question: Callable[[], T]) -> Future[T]:
    """Run in a thread that does not block the end of the process: a hanging engine must not keep a command alive.

    `ThreadPoolExecutor` cannot be used: Python joins its threads at exit (concurrent/futures/thread.py).
    """
    future: Future[T] = Future()

    def ask() -> None:
        try:
            future.set_result(question())
        except BaseException as exc:
            future.set_exception(exc)

    threading.Thread(target=ask, name="question", daemon=True).start()
    return future


def explain(exc: BaseException) -> str:
    """Explain an exception of a client library and what to do, followed by the library's own message."""
    chain = list(_causes(exc))
    message = next((str(e).strip() for e in chain if str(e).strip()), type(exc).__name__)
    message = re.sub(r"\s+", " ", message)
    if len(message) > 200:
        message = message[:197] + "…"
    if isinstance(exc, IsaError):
        return message
    text = " ".join(f"{type(e).__name__} {e}" for e in chain)
    for pattern, meaning in TROUBLES:
        if re.search(pattern, text, re.IGNORECASE):
            return f"{meaning} ({message})"
    return message


def words(troubles: dict[str, str]) -> str:
    """`member: trouble; …`, members with the same trouble together."""
    by_trouble: dict[str, list[str]] = {}
    for member, trouble in troubles.items():
        by_trouble.setdefault(trouble, []).append(member)
    return "; ".join(f"{', '.join(members)}: {trouble}" for trouble, members in by_trouble.items())


def _causes(exc: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while exc is not None and id(exc) not in seen:
        seen.add(id(exc))
        yield exc
        exc = exc.__cause__ or exc.__context__
