"""The demo's walk through the platform: deploy, data, backups, proofs.

What a slow machine did not finish in time is tried again. It ends with what failed, and with what to do about it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

TRIES = 3
PAUSE_SECONDS = 20.0  # engines that have just been started on two busy cores come to rest
# Limits of the demo's own runs, where the caller has set none: a machine that is slow is no fault.
PATIENT = {
    "ISA_DEPLOY__GATE_TIMEOUT_SECONDS": "1800",
    "ISA_DEPLOY__ATTEMPTS": "6",
    "ISA_BACKUP__ATTEMPTS": "5",
    "ISA_VERIFY__ATTEMPTS": "4",
    "ISA_KUBERNETES__REQUEST_TIMEOUT_SECONDS": "60",
}
# Of a report's parts (docs/reference/json.md): what is not to be tried again, since it is good or is a verdict.
SETTLED = ("complete", "exists", "pass", "partial", "fail")
GOOD = ("complete", "exists", "pass", "installed", "upgraded", "unchanged", "not-attempted")


@dataclass(frozen=True)
class Failure:
    """One step that failed.

    Attributes:
        step: its title.
        causes: one a part that failed.
        advice: what to do.
    """

    step: str
    causes: tuple[str, ...]
    advice: str


@dataclass
class Walk:
    """The steps, one after the other.

    Attributes:
        run: runs `isa` with arguments, shows what it prints, and gives its exit code.
        report: what the last run of `deploy`, `backup` or `verify` ended with; {} if there is none.
        pause: waits, seconds.
        failures: what has failed so far.
    """

    run: Callable[[Sequence[str]], int]
    report: Callable[[str], dict[str, Any]]
    pause: Callable[[float], None] = time.sleep
    failures: list[Failure] = field(default_factory=list)

    def deploy(self) -> bool:
        """Deploy; what is in order already is left alone by a second try."""
        title = "Deploy through the Prefect API"
        with step(title):
            for more in range(TRIES):
                if self.run(("deploy",)) == 0:
                    return True
                if more < TRIES - 1:
                    self._again("what is not ready")
        advice = "isa status says what is not ready; isa deploy goes on where it can; isa plan says what is in the way"
        self._failed(title, "deploy", "nodes", advice)
        return False

    def seed(self, name: str) -> bool:
        """Fill the engines."""
        title = "Sample data"
        arguments = ("sandbox", "seed", "--name", name)
        with step(title):
            for more in range(TRIES):
                if self.run(arguments) == 0:
                    return True
                if more < TRIES - 1:
                    self._again("the sample data")
        advice = f"isa status says which engine is not ready; then isa {' '.join(arguments)}"
        self.failures.append(Failure(title, ("see above",), advice))
        return False

    def backup(self) -> bool:
        """Back everything up; then again the components that have no whole set."""
        advice = "isa doctor says what is in the way; then isa backup and the names above"
        title = "Backup of everything, through the Prefect API"
        return self._repeated(title, "backup", "backups", "component", advice)

    def verify(self) -> bool:
        """Prove every newest set; then again those without a verdict."""
        advice = "isa proofs says what is known; then isa verify and the ids above; a set that fails is no backup"
        title = "Proof of every set, through the Prefect API"
        return self._repeated(title, "verify", "proofs", "backup", advice)

    def show(self, title: str, *commands: Sequence[str]) -> None:
        """Run what only shows something: whether all is well was said by the steps before."""
        with step(title):
            for arguments in commands:
                self.run(arguments)

    def words(self) -> list[str]:
        """The end: every failure with its causes, and what to do."""
        lines: list[str] = []
        for failure in self.failures:
            lines += [f"FAILED       {failure.step}"]
            lines += [f"             {cause}" for cause in failure.causes]
            lines += [f"  to do      {failure.advice}"]
        return lines

    def _repeated(self, title: str, command: str, parts: str, key: str, advice: str) -> bool:
        left: tuple[str, ...] = ()
        with step(title):
            for more in range(TRIES):
                if self.run((command, *left)) == 0:
                    return True
                report = self.report(command)
                unsettled = [one for one in report.get(parts, ()) if _outcome(one) not in SETTLED]
                if not unsettled or more == TRIES - 1:
                    break
                left = tuple(str(one[key]) for one in unsettled)
                self._again(", ".join(left))
        self._failed(title, command, parts, advice)
        return False

    def _again(self, what: str) -> None:
        say(f"this machine may be slow: {what} once more in {PAUSE_SECONDS:.0f} s")
        self.pause(PAUSE_SECONDS)

    def _failed(self, title: str, command: str, parts: str, advice: str) -> None:
        report = self.report(command)
        bad = [one for one in report.get(parts, ()) if _outcome(one) not in GOOD]
        causes = [f"{_name(one)}: {one['reason'] or _outcome(one)}" for one in bad]
        causes += [f"preflight: {finding}" for finding in report.get("blocked", ())]
        if not causes:
            causes = [str(report.get("message") or "it did not run to its end: see above")]
        self.failures.append(Failure(title, tuple(causes), advice))


@contextmanager
def step(title: str) -> Iterator[None]:
    """Say what begins, and how long it took."""
    say(f"\n== {title}")
    started = time.monotonic()
    yield
    say(f"== {title}: {time.monotonic() - started:.1f} s")


def say(words: str) -> None:
    """A line for whoever watches."""
    print(words, file=sys.stderr, flush=True)


def _outcome(part: dict[str, Any]) -> str:
    return str(part.get("outcome") or part.get("verdict"))


def _name(part: dict[str, Any]) -> str:
    return str(part.get("backup") or part.get("component") or part.get("name"))
