"""`make soak`: the tests that are marked so, each one more case of what a test of `make test` shows.

The result is kept in docs/results/soak-cases.md.
"""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime

import pytest

from config.loading import ROOT


class HashingCounter:
    """A pytest plugin that keeps how each test ended.

    Attributes:
        rows: name of a test, verdict, seconds with its fixtures.
    """

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._failed: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Called for setup, call and teardown of each test."""
        self._seconds[report.nodeid] = self._seconds.get(report.nodeid, 0.0) + report.duration
        if report.failed:
            self._failed.add(report.nodeid)

    @property
    def rows(self) -> list[tuple[str, str, float]]:
        return [
            (test, "**failed**" if test in self._failed else "passed", seconds)
            for test, seconds in self._seconds.items()
        ]


def main() -> None:
    """Run them, and write docs/results/soak-cases.md."""
    tally, began = HashingCounter(), time.monotonic()
    code = pytest.main(["-q", "-m", "soak", "tests/integration"], [tally])
    minutes = (time.monotonic() - began) / 60
    lines = [
        "# One more case of what the tests show",
        "",
        f"`make soak`, {datetime.now(UTC):%Y-%m-%d}, {minutes:.0f} min. The first one brings the platform up.",
        "",
        "| test | verdict | s |",
        "|---|---|---|",
        *(
            f"| {_words(test)} | {verdict} | {seconds:.0f} |"
            for test, verdict, seconds in tally.rows
        ),
    ]
    (ROOT / "docs/results/soak-cases.md").write_text("\n".join(lines) + "\n")
    sys.exit(code)


def _words(test: str) -> str:
    """`…::test_a_component_comes_back[minio]` as a sentence."""
    name, _, case = test.rpartition("::")[2].removeprefix("test_").partition("[")
    return name.replace("_", " ") + (f": {case.rstrip(']')}" if case else "")


if __name__ == "__main__":
    main()
