"""Measures the control room: 25 runs at once, cancel, approval, a server that is restarted; part of `make bench`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from config.loading import ROOT
from sandbox.cluster import Sandbox
from sandbox.control_room import POOL, ControlRoom
from sandbox.machine import processes
from tests.bench.control_room_flows import TASKS
from tests.bench.deploy import Figure, table

RUNS = 25
FLOWS = "tests/bench/control_room_flows.py"
FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
LIMIT_SECONDS = 900.0
AWAY_SECONDS = 30.0
SLOW_PODS = 120.0  # a deploy that is certainly under way when it is cancelled


class Bench:
    """A control room, and what is asked of it.

    Args:
        room: a running one.
    """

    def __init__(self, room: ControlRoom) -> None:
        self.room = room

    def start(self, name: str, **parameters: Any) -> str:
        """Create a run of a deployment as docs/operations/api.md does; gives its id."""
        deployment = self._ask("GET", f"/deployments/name/{name}")["id"]
        body = {"parameters": parameters}
        return str(self._ask("POST", f"/deployments/{deployment}/create_flow_run", json=body)["id"])

    def state(self, run: str) -> str:
        """The type of a run's state."""
        return str(self._ask("GET", f"/flow_runs/{run}")["state_type"])

    def reaches(self, run: str, *kinds: str) -> float:
        """Wait until a run is in a state of these types; gives the moment."""
        return until(lambda: self.state(run) in kinds)

    def runs(self, ids: list[str]) -> list[dict[str, Any]]:
        """The runs as the server has them."""
        found = self._ask("POST", "/flow_runs/filter", json={"flow_runs": {"id": {"any_": ids}}})
        return list(found)

    def tasks(self, ids: list[str]) -> list[str]:
        """Types of the states of all their tasks."""
        body = {"flow_runs": {"id": {"any_": ids}}, "limit": 200}
        return [one["state_type"] for one in self._ask("POST", "/task_runs/filter", json=body)]

    def move(self, run: str, kind: str) -> float:
        """Ask for a state; gives the moment."""
        self._ask("POST", f"/flow_runs/{run}/set_state", json={"state": {"type": kind}})
        return time.monotonic()

    def answer(self, run: str) -> float:
        """Approve; gives the moment."""
        words = {"decision": "approve", "name": "Bench", "ticket": "B-1"}
        self._ask("POST", f"/flow_runs/{run}/resume", json={"run_input": words})
        return time.monotonic()

    def _ask(self, method: str, path: str, **body: Any) -> Any:
        answer = self.room.http.request(method, path, timeout=120, **body).raise_for_status()
        return answer.json() if answer.content else None


def until(so: Callable[[], bool], seconds: float = LIMIT_SECONDS) -> float:
    """Wait for something; gives the moment at which it was so."""
    deadline = time.monotonic() + seconds
    while not so():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:.0f} s")
        time.sleep(0.1)
    return time.monotonic()


# ---------------------------------------------------------------------- what is measured
def at_once(bench: Bench) -> list[Figure]:
    """Begin 25 runs that wait for one another; every third one is told to fail."""
    with tempfile.TemporaryDirectory() as meeting:
        began = time.monotonic()
        failing = {number for number in range(RUNS) if number % 3 == 0}
        ids = [
            bench.start(
                "bench-meeting/bench-meeting",
                number=number,
                fails=number in failing,
                of=RUNS,
                directory=meeting,
            )
            for number in range(RUNS)
        ]
        together = until(lambda: len(os.listdir(meeting)) == RUNS) - began
        slowest = 0.0
        while True:
            asked = time.monotonic()
            runs = bench.runs(ids)
            slowest = max(slowest, time.monotonic() - asked)
            if all(run["state_type"] in FINAL for run in runs):
                break
            time.sleep(0.1)
        took = time.monotonic() - began
    true = {
        f"meeting-{number}": "FAILED" if number in failing else "COMPLETED"
        for number in range(RUNS)
    }
    lost = [run["name"] for run in runs if run["state_type"] != true[run["name"]]]
    twice = [run["name"] for run in runs if run["run_count"] != 1]
    wanted = Counter(COMPLETED=RUNS * TASKS)
    try:  # states of tasks come as events, a little later
        until(lambda: Counter(bench.tasks(ids)) == wanted, 60)
    except TimeoutError:
        lost += [f"tasks: {dict(Counter(bench.tasks(ids)))}"]
    terms = f"{RUNS - len(failing)} completed, {len(failing)} failed, {RUNS * TASKS} tasks"
    return [
        Figure(
            f"{RUNS} runs: all under way at once", "first call to last start", f"{together:.0f} s",
            "≤ 300 s", together <= 300,
        ),
        Figure(f"{RUNS} runs: the last one has ended", terms, f"{took:.0f} s", "≤ 420 s", took <= 420),
        Figure(
            f"{RUNS} runs: states lost, or run twice", terms,
            ", ".join([*lost, *twice]) or "0", "0", not lost and not twice,
        ),
        Figure(
            f"{RUNS} runs: slowest answer meanwhile", "all runs asked for", f"{slowest:.1f} s",
            "≤ 5 s", slowest <= 5,
        ),
    ]  # fmt: skip


def cancelled(bench: Bench, sandbox: Sandbox) -> Figure:
    """Cancel a deploy whose helm waits for pods, of a release that is not there yet."""
    sandbox.set_ready_delay(SLOW_PODS, SLOW_PODS + 1)
    run = bench.start("deploy-platform/deploy-platform", environment="sandbox", only=["nats"])
    until(lambda: "installing" in _table(bench, run))
    asked = bench.move(run, "CANCELLING")
    took = bench.reaches(run, *FINAL) - asked
    sandbox.set_ready_delay(0.3, 1)
    true = bench.state(run) == "CANCELLED"
    return Figure(
        "a running deploy is cancelled", "CANCELLING to CANCELLED", f"{took:.1f} s",
        "≤ 30 s", true and took <= 30,
    )  # fmt: skip


def approved(bench: Bench, *, restart: bool) -> Figure:
    """Answer a run that waits; with `restart` as soon as the server is back after half a minute."""
    run = bench.start("bench-approval/bench-approval")
    bench.reaches(run, "PAUSED")
    if restart:
        gone = time.monotonic()
        bench.room.daemon("prefect-server").stop(number=signal.SIGINT)
        time.sleep(max(0.0, AWAY_SECONDS - (time.monotonic() - gone)))
        bench.room.serve()
    answered = bench.answer(run)
    took = bench.reaches(run, *FINAL) - answered
    true = bench.state(run) == "COMPLETED"
    what = f"server away for {AWAY_SECONDS:.0f} s before" if restart else "the server was there"
    limit = 90 if restart else 15  # Prefect doubles its pauses while the server is away
    return Figure(
        "an approved run has gone on and ended", what, f"{took:.1f} s",
        f"≤ {limit} s", true and took <= limit,
    )  # fmt: skip


def survived(bench: Bench, sandbox: Sandbox) -> list[Figure]:
    """Take the server away under a deploy, and look how soon its table is right again."""
    sandbox.set_ready_delay(AWAY_SECONDS * 2, AWAY_SECONDS * 2 + 1)
    run = bench.start("deploy-platform/deploy-platform", environment="sandbox", only=["redis"])
    until(lambda: "installing" in _table(bench, run))
    gone = time.monotonic()
    bench.room.daemon("prefect-server").stop(number=signal.SIGINT)
    time.sleep(max(0.0, AWAY_SECONDS - (time.monotonic() - gone)))
    before = time.monotonic()
    bench.room.serve()
    up = time.monotonic() - before
    ended = bench.reaches(run, *FINAL)
    sandbox.set_ready_delay(0.3, 1)
    true = bench.state(run) == "COMPLETED" and '"installed"' in _table(bench, run)
    return [
        Figure(
            "a deploy ends though the server was away", f"{AWAY_SECONDS:.0f} s, up again in {up:.0f} s",
            f"{ended - gone:.0f} s after its loss", "true state and table", true,
        )
    ]  # fmt: skip


def _table(bench: Bench, run: str) -> str:
    body = {"artifacts": {"flow_run_id": {"any_": [run]}, "type": {"any_": ["table"]}}}
    found = bench.room.http.post("/artifacts/filter", json=body).json()
    return str(found[0]["data"]) if found else ""


def measure(sandbox: Sandbox, room: ControlRoom) -> list[Figure]:
    """All figures."""
    for name in ("meeting", "approval"):
        words = ("--no-prompt", "deploy", f"{FLOWS}:{name}", "-n", f"bench-{name}", "-p", POOL)
        subprocess.run(
            [sys.executable, "-m", "prefect", *words],
            cwd=ROOT,
            env=room.environ(),
            check=True,
            capture_output=True,
        )
    bench = Bench(room)
    page = os.sysconf("SC_PAGE_SIZE")
    server = room.daemon("prefect-server").pid
    figures = at_once(bench)
    resident = int(Path(f"/proc/{server}/statm").read_text().split()[1]) * page / (1 << 20)
    figures.append(
        Figure("the server's memory after them", "resident", f"{resident:.0f} MiB", "≤ 1024 MiB", resident <= 1024)
    )  # fmt: skip
    figures.append(approved(bench, restart=False))
    figures.append(approved(bench, restart=True))
    figures += survived(bench, sandbox)
    figures.append(cancelled(bench, sandbox))
    return figures


def main() -> int:
    """Measure on a fresh sandbox, print, write, and fail if a target was missed."""
    load_before = os.getloadavg()[0]
    sandbox = Sandbox(f"bench-{os.getpid()}")
    room = ControlRoom(sandbox)
    try:
        sandbox.up(engines=False)
        room.up()
        figures = measure(sandbox, room)
    finally:
        room.down(purge=True)
        sandbox.down(purge=True)
        processes.end_leftovers(sandbox.directory)
    words = (
        f"`make bench` on {len(os.sched_getaffinity(0))} cores, {datetime.now(UTC):%Y-%m-%d}, load by others "
        f"{load_before:.1f}. One server on PostgreSQL, one worker that starts a process for every run."
    )
    (ROOT / "docs" / "results" / "bench-control-room.md").write_text(
        f"# Figures of the control room\n\n{words}\n\n{table(figures)}\n"
    )
    print(table(figures))
    return 0 if all(figure.met for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
