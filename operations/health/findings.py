"""Findings of the doctor: runs its checks beside each other, and fixes what is safe to fix."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from components.base import Check
from errors import IsaError
from operations.documents import environment as documents

THREADS = 6


@dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
        check: the result.
        fix: fixes it, if that is safe, and returns what it did; None if a person must act.
    """

    check: Check
    fix: Callable[[], str] | None = None

    def document(self) -> documents.Finding:
        """As `isa doctor --json` prints it."""
        check = documents.Check.of(self.check)
        return documents.Finding(**vars(check), fixable=self.fix is not None)


Question = tuple[str, Callable[[], Iterable[Finding]]]


def examine(questions: Iterable[Question]) -> list[Finding]:
    """Run all checks, several at a time.

    Args:
        questions: name and function of each.
    """

    def ask(question: Question) -> list[Finding]:
        name, call = question
        began = time.monotonic()
        try:
            findings = list(call())
        except (IsaError, OSError, ValueError) as exc:
            findings = [Finding(Check(name, False, str(exc)))]
        seconds = round(time.monotonic() - began, 3)
        return [
            replace(finding, check=replace(finding.check, seconds=seconds)) for finding in findings
        ]

    with ThreadPoolExecutor(THREADS) as pool:
        return [finding for results in pool.map(ask, questions) for finding in results]


def fix(findings: Iterable[Finding]) -> list[Finding]:
    """Fix what can be fixed; what was done becomes the hint."""
    results = []
    for finding in findings:
        if finding.check.ok or finding.fix is None:
            results.append(finding)
            continue
        try:
            hint, ok = f"fixed: {finding.fix()}", True
        except IsaError as exc:
            hint, ok = f"{finding.check.hint}; could not be fixed: {exc}", False
        results.append(Finding(replace(finding.check, ok=ok, hint=hint)))
    return results


def document(findings: Iterable[Finding]) -> documents.Doctor:
    """Findings as `isa doctor --json` prints them, and as a run keeps them."""
    return documents.Doctor(checks=tuple(finding.document() for finding in findings))
