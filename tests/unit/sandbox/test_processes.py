from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandbox.machine.processes import (
    MARK,
    Daemon,
    end_leftovers,
    running_below,
    start_time,
)

SLEEP = [sys.executable, "-c", "import time; print('started', flush=True); time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "print('started', flush=True); time.sleep(600)",
]


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """Where daemons run; none of them outlives the test."""
    run = tmp_path / "run"
    yield run
    end_leftovers(run, grace=0)


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.01)


def started(daemon: Daemon, argv: list[str]) -> int:
    """Start it and wait until the program itself runs (its signal handlers are set then)."""
    pid = daemon.start(argv)
    until(lambda: "started" in daemon.tail())
    return pid


def test_a_daemon_is_found_again_by_its_name_alone(directory: Path) -> None:
    pid = started(Daemon("d", directory), SLEEP)
    assert Daemon("d", directory).pid == pid


def test_starting_what_runs_starts_no_second_one(directory: Path) -> None:
    daemon = Daemon("d", directory)
    assert daemon.start(SLEEP) == daemon.start(SLEEP)
    assert len(running_below(directory)) == 1


def test_a_daemon_lives_in_a_session_of_its_own(directory: Path) -> None:
    pid = started(Daemon("d", directory), SLEEP)
    assert os.getsid(pid) == pid


def test_a_killed_daemon_does_not_run_and_can_be_started_again(directory: Path) -> None:
    daemon = Daemon("d", directory)
    pid = started(daemon, SLEEP)
    os.kill(pid, signal.SIGKILL)
    until(lambda: daemon.pid is None)
    assert daemon.start(SLEEP) != pid


def test_another_process_with_the_recorded_pid_is_not_taken_for_the_daemon(directory: Path) -> None:
    daemon = Daemon("d", directory)
    pid = started(daemon, SLEEP)
    file = directory / "d.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "started": "1"}))
    assert daemon.pid is None
    daemon.stop()
    assert start_time(pid), "a process that is not ours was stopped"


def test_a_daemon_that_ended_before_it_was_recorded_does_not_run(directory: Path) -> None:
    directory.mkdir()
    (directory / "d.json").write_text(json.dumps({"pid": 2**22 + 1, "started": ""}))
    assert Daemon("d", directory).pid is None


def test_a_torn_record_counts_as_not_running(directory: Path) -> None:
    directory.mkdir()
    (directory / "d.json").write_text('{"pid": 1')
    assert Daemon("d", directory).pid is None


def test_stop_waits_until_it_is_gone_and_forgets_it(directory: Path) -> None:
    daemon = Daemon("d", directory)
    pid = started(daemon, SLEEP)
    daemon.stop()
    assert not start_time(pid)
    assert not (directory / "d.json").exists()
    daemon.stop()  # again: nothing to do, no error


def test_stop_kills_what_does_not_listen_after_the_grace(directory: Path) -> None:
    daemon = Daemon("d", directory)
    pid = started(daemon, STUBBORN)
    begun = time.monotonic()
    daemon.stop(grace=0.5)
    assert not start_time(pid)
    assert 0.4 < time.monotonic() - begun < 10


def test_its_children_end_with_it(directory: Path) -> None:
    child = f"{shlex.join(SLEEP)} & wait"
    started(Daemon("d", directory), ["sh", "-c", child])
    assert len(running_below(directory)) == 2
    Daemon("d", directory).stop(grace=5)
    until(lambda: not running_below(directory))


def test_a_daemon_whose_record_was_lost_is_found_and_ended(directory: Path) -> None:
    daemon = Daemon("d", directory)
    pid = started(daemon, SLEEP)
    (directory / "d.json").unlink()
    assert daemon.pid is None
    assert running_below(directory) == [pid]
    end_leftovers(directory)
    assert not start_time(pid)


def test_leftovers_that_do_not_listen_are_killed(directory: Path) -> None:
    pid = started(Daemon("d", directory), STUBBORN)
    end_leftovers(directory, grace=0.3)
    assert not start_time(pid)


def test_daemons_of_another_directory_are_nobodys_leftovers(
    directory: Path, tmp_path: Path
) -> None:
    other = tmp_path / "run-2"  # its name begins with that of the first
    pid = started(Daemon("d", other), SLEEP)
    end_leftovers(directory)
    assert start_time(pid)
    end_leftovers(other)


def test_a_daemon_gets_the_environment_that_was_given_and_the_mark(directory: Path) -> None:
    daemon = Daemon("d", directory)
    daemon.start(["/usr/bin/env"], {"ONLY": "this"})
    until(lambda: "ONLY" in daemon.tail())
    assert set(daemon.tail().splitlines()) == {"ONLY=this", f"{MARK}={directory}"}


def test_the_end_of_the_log_is_at_hand_for_messages(directory: Path) -> None:
    daemon = Daemon("d", directory)
    daemon.start(["sh", "-c", "for i in 1 2 3; do echo line $i; done; echo oh >&2"])
    until(lambda: "oh" in daemon.tail())
    assert daemon.tail(2) == "line 3\noh"
    assert Daemon("never", directory).tail() == "(no log)"
