"""Daemons of the sandbox: each has its own session, and a file with its pid by which later commands find it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sandbox.machine.paths import write_atomic

STOP_GRACE_SECONDS = 10.0
# A variable of every daemon and its children, so that they are found even if their record is lost.
MARK = "ISACLOUD_SANDBOX_RUN"
# Children of this process by pid. Without a reference `subprocess` waits for them itself and loses the exit code.
_STARTED: dict[int, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True)
class Daemon:
    """A long-running process of a sandbox.

    Attributes:
        name: unique in its sandbox.
        directory: holds `NAME.json` (pid and start time) and `NAME.log`.
    """

    name: str
    directory: Path

    @property
    def log(self) -> Path:
        """The file with its output."""
        return self.directory / f"{self.name}.log"

    @property
    def record(self) -> Path:
        """Its pid and start time, written when it starts."""
        return self.directory / f"{self.name}.json"

    @property
    def pid(self) -> int | None:
        """Its process id; None if it does not run (the id may belong to another process now)."""
        try:
            record = json.loads(self.record.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        pid = int(record["pid"])
        started = start_time(pid)
        return pid if started and started == record["started"] else None

    def start(
        self,
        argv: Sequence[str],
        environ: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> int:
        """Start it unless it runs. Returns its pid.

        It gets its own session, so that it outlives this command. SIGINT is set to its default: a shell's background
        jobs ignore it, and a Prefect worker would then never end.
        """
        running = self.pid
        if running is not None:
            return running
        self.directory.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**(os.environ if environ is None else environ), MARK: str(self.directory)},
                cwd=cwd or self.directory,
                start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        _STARTED[process.pid] = process
        record = {"pid": process.pid, "started": start_time(process.pid), "program": argv[0]}
        write_atomic(self.record, json.dumps(record))
        return process.pid

    def stop(
        self, grace: float = STOP_GRACE_SECONDS, number: signal.Signals = signal.SIGTERM
    ) -> None:
        """Send a signal to its whole session, wait, then kill the rest."""
        pid = self.pid
        if pid is not None:
            _signal_group(pid, number)
            deadline = time.monotonic() + grace
            while self.pid is not None and time.monotonic() < deadline:
                _reap(pid)
                time.sleep(0.02)
            _signal_group(pid, signal.SIGKILL)
            while self.pid is not None:
                _reap(pid)
                time.sleep(0.01)
            _reap(pid)
        self.record.unlink(missing_ok=True)

    def forget(self) -> int:
        """Remove the record of a process that has ended. Returns its exit code as in a shell; 137 if it is unknown."""
        pid = int(json.loads(self.record.read_text(encoding="utf-8"))["pid"])
        self.record.unlink()
        process = _STARTED.pop(pid, None)
        if process is None:  # not a child of this process; probably killed
            return 137
        code = process.wait()
        return code if code >= 0 else 128 - code

    def tail(self, lines: int = 12) -> str:
        """The end of its log, for error messages."""
        try:
            text = self.log.read_text(encoding="utf-8", errors="replace")
            return "\n".join(text.splitlines()[-lines:])
        except OSError:
            return "(no log)"


def running_below(directory: Path) -> list[int]:
    """Running processes that were started, directly or indirectly, by daemons of a directory or below it."""
    mark = f"{MARK}={directory}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                environ = (entry / "environ").read_bytes()
            except OSError:  # it has ended, or belongs to another user
                continue
            variables = environ.split(b"\0")
            if any(v == mark or v.startswith(mark + b"/") for v in variables):
                found.append(int(entry.name))
    return found


def end_leftovers(directory: Path, grace: float = STOP_GRACE_SECONDS) -> None:
    """End all processes of `running_below`: send SIGTERM, wait, then kill the rest."""
    deadline = time.monotonic() + grace
    asked: dict[int, str] = {}
    while True:
        found = {pid: start_time(pid) for pid in running_below(directory)}
        # a process that is ending has no environment, so it is recognised by its id and start time
        alive = {p: at for p, at in (asked | found).items() if at and start_time(p) == at}
        if not alive:
            return
        for pid in alive:
            with suppress(ProcessLookupError):
                if time.monotonic() > deadline:
                    os.kill(pid, signal.SIGKILL)
                elif pid not in asked:
                    os.kill(pid, signal.SIGTERM)
            _reap(pid)
        asked = alive
        time.sleep(0.05)


def start_time(pid: int) -> str:
    """Start of a process in clock ticks since boot (proc(5), field 22); "" if it does not run."""
    try:
        fields = (
            Path(f"/proc/{pid}/stat")
            .read_text(encoding="utf-8", errors="replace")
            .rpartition(")")[2]
            .split()
        )
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _signal_group(pid: int, number: signal.Signals) -> None:
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def _reap(pid: int) -> None:
    """Wait for a child of this process that has ended."""
    process = _STARTED.get(pid)
    if process is not None and process.poll() is not None:
        _STARTED.pop(pid, None)
