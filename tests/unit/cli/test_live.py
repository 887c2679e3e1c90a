"""The progress of a run, for whoever watches it: one line for each change, and none where nobody asked for words."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from cli.printing.live import LiveNodes
from operations.runner.progress import NodeProgress, as_rows
from tasks.server.runs import Ended, Run

RUN = Run(UUID("9d0f0c3e-0000-4000-8000-000000000001"), "calm-otter", "https://ui/runs/1")
ENDED = Ended("completed", 1.0, [], "", str(RUN.id))
Captured = pytest.CaptureFixture[str]


def line(phase: str, outcome: str = "", note: str = "") -> NodeProgress:
    return NodeProgress("redis", phase, outcome, 1.5, note)


def test_a_node_has_a_line_for_each_change_and_none_while_it_waits(capsys: Captured) -> None:
    with LiveNodes(quiet=False) as nodes:
        for one in (
            line("waiting"),
            line("installing", note="helm"),
            line("installing", note="still helm"),
            line("gate"),
            line("done", "upgraded"),
        ):
            nodes.publish([one])
    printed = [" ".join(one.split()) for one in capsys.readouterr().err.splitlines()]
    assert printed == ["redis installing 1.5 s helm", "redis gate 1.5 s", "redis upgraded 1.5 s"]


def test_with_json_nobody_reads_progress(capsys: Captured) -> None:
    with LiveNodes(quiet=True) as nodes:
        nodes.publish([line("gate")])
        nodes.announce("it waits")
    assert capsys.readouterr() == ("", "")


def test_a_run_that_is_no_longer_followed_goes_on_and_says_where(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> Ended:
        raise KeyboardInterrupt

    monkeypatch.setattr("tasks.server.runs.start_run", lambda *_, **__: RUN)
    monkeypatch.setattr("tasks.server.runs.follow", interrupted)
    with LiveNodes(quiet=False) as nodes, pytest.raises(KeyboardInterrupt):
        nodes.follow("flow/deployment", {}, "key", None)
    assert capsys.readouterr().err.splitlines() == [
        "flow run calm-otter: https://ui/runs/1",
        "stopped following the run; it continues, cancel it at https://ui/runs/1",
    ]


def test_a_run_is_followed_by_its_own_table(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    asked: list[Any] = []

    def follow(run: Run, key: str, show: Any, warn: Any, paused: Any) -> Ended:
        show(as_rows([line("gate")]))
        warn("no worker takes it")
        paused(run)
        asked.append((run, key))
        return ENDED

    def start(*given: Any, **more: Any) -> Run:
        asked.append((given, more))
        return RUN

    monkeypatch.setattr("tasks.server.runs.start_run", start)
    monkeypatch.setattr("tasks.server.runs.follow", follow)
    with LiveNodes(quiet=False) as nodes:
        assert nodes.follow("flow/deployment", {"a": 1}, "key", "once", asked.append) == ENDED
    assert asked == [
        (("flow/deployment", {"a": 1}), {"idempotency_key": "once"}), RUN, (RUN, "key"),
    ]  # fmt: skip
    assert "no worker takes it" in capsys.readouterr().err
