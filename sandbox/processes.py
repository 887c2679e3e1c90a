"""Daemons of the sandbox: started in sessions of their own, remembered in files, found again by the next command."""

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

from sandbox.paths import write_atomic

STOP_GRACE_SECONDS = 10.0
# Every daemon and its children carry it, so that they are found even if their record is lost.
MARK = "ISACLOUD_SANDBOX_RUN"
# Children of this process by pid. One that nobody holds is waited for by `subprocess` itself, and its exit code is
# lost.
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
        """Where its output goes."""
        return self.directory / f"{self.name}.log"

    @property
    def record(self) -> Path:
        """Its pid and start time, written when it starts."""
        return self.directory / f"{self.name}.json"

    @property
    def pid(self) -> int | None:
        """Its process id, None if it does not run (or the id belongs to another process by now)."""
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
        """Start it unless it runs; return its pid.

        Own session, so that it outlives the command that started it; SIGINT back to its default, which a shell's
        background job has switched off (a Prefect worker then never ends).
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
        """Ask its whole session to end, wait, then kill what is left."""
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
            _reap(pid)  # ours to bury, if this very process started it
        self.record.unlink(missing_ok=True)

    def forget(self) -> int:
        """Forget a process that has ended by itself; returns its exit code as a shell would, 137 if it is unknown."""
        pid = int(json.loads(self.record.read_text(encoding="utf-8"))["pid"])
        self.record.unlink()
        process = _STARTED.pop(pid, None)
        if process is None:  # somebody else's child: killed together with it, for all we know
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
    """Processes that run and were started, directly or not, by the daemons of a directory or of one below it."""
    mark = f"{MARK}={directory}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                environ = (entry / "environ").read_bytes()
            except OSError:  # ended meanwhile, or somebody else's
                continue
            variables = environ.split(b"\0")
            if any(v == mark or v.startswith(mark + b"/") for v in variables):
                found.append(int(entry.name))
    return found


def end_leftovers(directory: Path, grace: float = STOP_GRACE_SECONDS) -> None:
    """Ask what `running_below` finds to end, wait, then kill what is left."""
    deadline = time.monotonic() + grace
    asked: dict[int, str] = {}
    while True:
        found = {pid: start_time(pid) for pid in running_below(directory)}
        # one that is ending has no environment any more: it is waited for by its id and start time
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
    """Bury a child of ours that has ended; others' children are theirs to bury."""
    process = _STARTED.get(pid)
    if process is not None and process.poll() is not None:
        _STARTED.pop(pid, None)
