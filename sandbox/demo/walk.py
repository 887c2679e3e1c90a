"""The steps of the demo: deploy, sample data, backups, verifications.

Steps that a slow machine did not finish in time are repeated. At the end all failures are listed, with what to do.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

TRIES = 3
PAUSE_SECONDS = 20.0  # on two busy cores the engines need some time after their start
# Limits of the demo's runs, unless the caller has set them. They are generous, so that slow machines do not fail.
PATIENT = {
    "ISA_DEPLOY__GATE_TIMEOUT_SECONDS": "1800",
    "ISA_DEPLOY__ATTEMPTS": "6",
    "ISA_BACKUP__ATTEMPTS": "5",
    "ISA_VERIFY__ATTEMPTS": "4",
    "ISA_KUBERNETES__REQUEST_TIMEOUT_SECONDS": "60",
}
# Outcomes in a report (docs/reference/json.md) that are not tried again: they are good, or are a verdict.
SETTLED = ("complete", "exists", "pass", "partial", "fail")
GOOD = ("complete", "exists", "pass", "installed", "upgraded", "unchanged", "not-attempted")


@dataclass(frozen=True)
class Failure:
    """One step that failed.

    Attributes:
        step: its title.
        causes: one for each part that failed.
        advice: what to do.
    """

    step: str
    causes: tuple[str, ...]
    advice: str


@dataclass
class Walk:
    """The steps, one after the other.

    Attributes:
        run: runs `isa` with arguments, shows its output, and returns its exit code.
        report: returns the report of the last `deploy`, `backup` or `verify`; {} if there is none.
        pause: waits a number of seconds.
        failures: steps that have failed so far.
    """

    run: Callable[[Sequence[str]], int]
    report: Callable[[str], dict[str, Any]]
    pause: Callable[[float], None] = time.sleep
    failures: list[Failure] = field(default_factory=list)

    def deploy(self) -> bool:
        """Deploy. A second attempt skips releases that are ready."""
        title = "Deploy through the Prefect API"
        with step(title):
            for attempt in range(TRIES):
                if self.run(("deploy",)) == 0:
                    return True
                if attempt < TRIES - 1:
                    self._again("the deploy")
        advice = "isa status shows what is not ready; isa plan shows what blocks a deploy; isa deploy continues"
        self._failed(title, "deploy", "nodes", advice)
        return False

    def seed(self, name: str) -> bool:
        """Fill the engines."""
        title = "Sample data"
        arguments = ("sandbox", "seed", "--name", name)
        with step(title):
            for attempt in range(TRIES):
                if self.run(arguments) == 0:
                    return True
                if attempt < TRIES - 1:
                    self._again("the sample data")
        advice = f"isa status shows which engine is not ready; then run isa {' '.join(arguments)}"
        self.failures.append(Failure(title, ("see the output above",), advice))
        return False

    def backup(self) -> bool:
        """Back up everything. Components without a complete backup are tried again."""
        advice = "isa doctor shows what blocks a backup; then run isa backup with the names above"
        title = "Back up everything through the Prefect API"
        return self._repeated(title, "backup", "backups", "component", advice)

    def verify(self) -> bool:
        """Verify every newest backup. Backups without a verdict are tried again."""
        advice = "isa proofs shows the verdicts; then run isa verify with the ids above; do not rely on a failed backup"
        title = "Verify every backup through the Prefect API"
        return self._repeated(title, "verify", "proofs", "backup", advice)

    def show(self, title: str, *commands: Sequence[str]) -> None:
        """Run commands that only show something. Their exit codes do not count."""
        with step(title):
            for arguments in commands:
                self.run(arguments)

    def summary(self) -> list[str]:
        """Lines for the end: every failure with its causes, and what to do."""
        lines: list[str] = []
        for failure in self.failures:
            lines += [f"FAILED       {failure.step}"]
            lines += [f"             {cause}" for cause in failure.causes]
            lines += [f"  to do      {failure.advice}"]
        return lines

    def _repeated(self, title: str, command: str, parts: str, key: str, advice: str) -> bool:
        names: tuple[str, ...] = ()
        with step(title):
            for attempt in range(TRIES):
                if self.run((command, *names)) == 0:
                    return True
                report = self.report(command)
                unsettled = [
                    part for part in report.get(parts, ()) if _outcome(part) not in SETTLED
                ]
                if not unsettled or attempt == TRIES - 1:
                    break
                names = tuple(str(part[key]) for part in unsettled)
                self._again(", ".join(names))
        self._failed(title, command, parts, advice)
        return False

    def _again(self, subject: str) -> None:
        say(f"this machine may be slow: next attempt of {subject} in {PAUSE_SECONDS:.0f} s")
        self.pause(PAUSE_SECONDS)

    def _failed(self, title: str, command: str, parts: str, advice: str) -> None:
        report = self.report(command)
        bad = [part for part in report.get(parts, ()) if _outcome(part) not in GOOD]
        causes = [f"{_name(part)}: {part['reason'] or _outcome(part)}" for part in bad]
        causes += [f"preflight: {finding}" for finding in report.get("blocked", ())]
        if not causes:
            causes = [str(report.get("message") or "it did not finish: see the output above")]
        self.failures.append(Failure(title, tuple(causes), advice))


@contextmanager
def step(title: str) -> Iterator[None]:
    """Print a step's title, and at its end how long it took."""
    say(f"\n== {title}")
    started = time.monotonic()
    yield
    say(f"== {title}: {time.monotonic() - started:.1f} s")


def say(text: str) -> None:
    """Print a line for the user."""
    print(text, file=sys.stderr, flush=True)


def _outcome(part: dict[str, Any]) -> str:
    return str(part.get("outcome") or part.get("verdict"))


def _name(part: dict[str, Any]) -> str:
    return str(part.get("backup") or part.get("component") or part.get("name"))
