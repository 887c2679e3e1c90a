"""What people do in the control room: start runs by command and by API, answer them, cancel them."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sandbox.control_room import ControlRoom
from tests.contract import checked

from ..conftest import ISA, Backups, until

ANSWER = {"decision": "approve", "name": "Ottilie Engineer", "ticket": "CHG-1815"}
# from the request on; what hangs is ended with its process 18 s after the signal
CANCEL_SECONDS = 30.0
FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def run(room: ControlRoom, *arguments: str, code: int = 0, command: str = "backup") -> Any:
    """A command that starts a run and follows it; what it says with `--json`."""
    try:
        done = subprocess.run(
            [ISA, command, *arguments, "--json"],
            env=room.environ(),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise AssertionError(f"isa {command} has not ended; {known(room)}") from None
    assert done.returncode == code, done.stdout + done.stderr
    return checked([command, *arguments], done.stdout)


def known(room: ControlRoom) -> str:
    """What the server knows of the runs of late, for whoever reads why a test failed."""
    # also one that waits for its place, which is planned for half a minute ahead; not those of coming nights
    soon = (datetime.now(UTC) + timedelta(minutes=1)).isoformat()
    due = {"flow_runs": {"expected_start_time": {"before_": soon}}}
    asked = {**due, "sort": "EXPECTED_START_TIME_DESC", "limit": 3}
    runs = room.http.post("/flow_runs/filter", json=asked).json()
    lines = [f"{one['name']} {one['state']['name']} {one['state']['message']}" for one in runs]
    lines += [f"{name}: {state}" for name, state in Run(room, runs[0]["id"]).tasks.items()]
    logs = room.http.post("/logs/filter", json={"sort": "TIMESTAMP_DESC", "limit": 60}).json()
    lines += [f"{one['timestamp']} {one['message']}" for one in reversed(logs)]
    return "\n".join(lines)


@dataclass(frozen=True)
class Run:
    """A run, answered and cancelled by the API.

    Attributes:
        room: whose server.
        id: its id.
    """

    room: ControlRoom
    id: str

    @property
    def state(self) -> dict[str, Any]:
        answer = self.room.http.get(f"/flow_runs/{self.id}").json()["state"]
        return answer  # type: ignore[no-any-return]

    @property
    def tasks(self) -> dict[str, str]:
        """Name of each task → type of its state."""
        body = {"flow_runs": {"id": {"any_": [self.id]}}}
        found = self.room.http.post("/task_runs/filter", json=body).json()
        return {task["name"]: task["state_type"] for task in found}

    def reaches(self, *kinds: str, seconds: float = 180) -> dict[str, Any]:
        """Wait for a state; one that it cannot come from any more fails at once."""
        ends = {*kinds, *FINAL}
        until(lambda: self.state["type"] in ends, f"the run is {' or '.join(kinds)}", seconds)
        found = self.state
        assert found["type"] in kinds, found["message"]
        return found

    def asks(self) -> None:
        """Wait until it has paused and its form is there."""
        key = self.reaches("PAUSED")["state_details"]["run_input_keyset"]["schema"]
        form = f"/flow_runs/{self.id}/input/{key}"
        until(lambda: self.room.http.get(form).is_success, "there is a form to answer in")

    def begins(self, task: str, seconds: float = 120) -> None:
        until(lambda: self.tasks.get(task) == "RUNNING", f"{task} is under way", seconds)

    def cancel(self, meanwhile: Callable[[], object] = lambda: None) -> float:
        """Cancel it as the UI's button does; gives the seconds until nothing of it ran any more, and waits for Prefect
        to say so: that takes it 3 s more, and on a busy machine twenty.
        """
        asked = time.monotonic()
        body = {"state": {"type": "CANCELLING"}}
        self.room.http.post(f"/flow_runs/{self.id}/set_state", json=body).raise_for_status()
        meanwhile()
        until(lambda: not self.processes(), "its processes have ended", 90)
        took = time.monotonic() - asked
        self.reaches("CANCELLED", seconds=90)
        print(f"cancelled in {took:.1f} s, Cancelled after {time.monotonic() - asked:.1f} s")
        return took

    def processes(self) -> dict[int, str]:
        """Its own process and everything that it started, here or by the way: pid → program."""
        mark = f"PREFECT__FLOW_RUN_ID={self.id}".encode()
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found[int(entry.name)] = (entry / "comm").read_text().strip()
            except OSError:  # ended meanwhile
                continue
        return found

    def stops(self, program: str, word: str = "", seconds: float = 120) -> int:
        """Stop the first process of a program that it starts, so that it stays in the midst of that; gives the pid."""
        found: list[int] = []

        def seen() -> bool:
            with suppress(OSError):  # one has ended meanwhile
                for pid, name in self.processes().items():
                    arguments = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
                    if name == program and (not word or word in arguments):
                        found.append(pid)
            return bool(found)

        until(seen, f"{program} {word} runs", seconds, pause=0.02)  # some run for a moment only
        os.kill(found[0], signal.SIGSTOP)
        return found[0]

    def answer(self, **words: Any) -> str:
        """Say something to it; gives what the server makes of it."""
        return self.say({**ANSWER, **words})

    def say(self, run_input: Any) -> str:
        """Answer with just that, whatever it is."""
        url = f"/flow_runs/{self.id}/resume"
        said = self.room.http.post(url, json={"run_input": run_input}, timeout=60)
        return str(said.json()["status"]) if said.status_code < 300 else str(said.status_code)


def start(room: ControlRoom, deployment: str, key: str | None = None, **parameters: Any) -> Run:
    """Make a run by the API; a second one with the same key is the same."""
    found = find_deployment(room, deployment)
    body = {"idempotency_key": key, "parameters": {"environment": "sandbox", **parameters}}
    made = room.http.post(f"/deployments/{found['id']}/create_flow_run", json=body)
    return Run(room, made.raise_for_status().json()["id"])


def find_deployment(room: ControlRoom, name: str) -> dict[str, Any]:
    """What the server has of that name."""
    body = {"deployments": {"name": {"any_": [name]}}}
    (found,) = room.http.post("/deployments/filter", json=body).raise_for_status().json()
    return found  # type: ignore[no-any-return]


def rebuild(room: ControlRoom, key: str | None = None) -> Run:
    """A run that makes NATS anew, the quickest engine."""
    return start(room, "rebuild-component", key, component="nats")


def proven(room: ControlRoom, backups: Backups, component: str) -> str:
    """A set whose restore was proven; its id."""
    catalogue = backups.environment.catalogue([component])
    found = [one.id for one in catalogue.sets if one.id in catalogue.proven]
    if not found:
        run(room, component)
        assert run(room, component, command="verify")["proofs"][0]["verdict"] == "pass"
        found = [backups.manifest(component).id]
    return found[-1]


def go_on(pid: int) -> None:
    """Let a stopped process go on as soon as it was asked to end."""

    def asked() -> bool:
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except OSError:  # it was killed
            return True
        waiting = next(int(line.split()[1], 16) for line in lines if line.startswith("ShdPnd"))
        return bool(waiting & 1 << (signal.SIGTERM - 1))

    until(asked, f"{pid} is asked to end", 60)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
