"""Each line of the table ends with a result, and a line that fails stops no other."""

from __future__ import annotations

from collections import Counter

import pytest

from errors import IsaError, PermanentError, TemporaryError
from operations.runner.context import RunContext
from operations.runner.lines import run_lines
from operations.runner.progress import NodeProgress, Progress
from operations.runner.threads import threads
from operations.runner.walk import NodeResult

NODES = {"nats": ("old", "new"), "redis": ("set",)}


class Work:
    """What is done for each line.

    Args:
        failing: line → what it raises, each time once.
    """

    def __init__(self, **failing: list[BaseException]) -> None:
        self.failing = failing
        self.begun: Counter[str] = Counter()
        self.shown: dict[str, NodeProgress] = {}
        self.settled: dict[str, float] = {}

    def line(self, context: RunContext, line: str) -> str:
        self.begun[line] += 1
        context.tell(f"note of {line}")
        if self.failing.get(line):
            raise self.failing[line].pop()
        return f"{line} is done"

    def settle(self, line: str, result: str, seconds: float) -> None:
        self.settled[line] = seconds

    def lost(self, line: str, end: NodeResult) -> str:
        return f"{line} is lost: {end.reason}"

    def run(self, attempts: int = 1) -> dict[str, str]:
        context = RunContext("test", publish=self.publish)
        lines = [line for node in NODES.values() for line in node]
        with threads(2, attempts) as start:
            return run_lines(
                context,
                NODES,
                self.line,
                phase="working",
                progress=Progress(lines, context.publish),
                start=start,
                max_parallel=2,
                lost=self.lost,
                settle=self.settle,
            )

    def publish(self, lines: list[NodeProgress]) -> None:
        self.shown = {line.name: line for line in lines}


def test_every_line_has_its_result_and_its_notes() -> None:
    work = Work()
    assert work.run() == {line: f"{line} is done" for line in ("old", "new", "set")}
    assert work.settled.keys() == work.shown.keys()
    assert work.shown["new"].note == "note of new"
    assert work.shown["new"].phase == "working"


@pytest.mark.parametrize("error", [PermanentError("it broke"), TemporaryError("it broke", delay=0)])
def test_a_line_that_fails_stops_no_other_of_its_node(error: IsaError) -> None:
    results = Work(old=[error]).run()
    assert results["old"] == "old is lost: it broke"
    assert results["new"] == "new is done"


def test_only_what_has_no_result_is_begun_again() -> None:
    work = Work(old=[TemporaryError("away", delay=0)])
    assert work.run(attempts=2)["old"] == "old is done"
    assert work.begun == {"old": 2, "new": 1, "set": 1}


def test_a_defect_of_ours_is_a_result_too() -> None:
    assert Work(set=[ValueError("a defect")]).run()["set"] == "set is lost: a defect"
