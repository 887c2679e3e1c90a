from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from cluster.command import Cancellation, Cancelled, Command
from errors import PermanentError, TemporaryError


def python(cancellation: Cancellation | None = None) -> Command:
    return Command(sys.executable, cancellation=cancellation or Cancellation())


def wait_for(file: Path) -> int:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if file.exists() and file.read_text():
            return int(file.read_text())
        time.sleep(0.01)
    raise AssertionError(f"{file} was never written")


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_output_and_exit_status_come_back_whatever_they_are() -> None:
    done = python().run(
        "-c", "import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)", timeout=30
    )
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")


def test_a_missing_program_is_told_with_what_installs_it() -> None:
    with pytest.raises(PermanentError, match=r"no-such-program is not on the PATH. Install it."):
        Command("no-such-program", install_hint="Install it.")


def test_a_command_over_its_time_is_stopped(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    code = f"import os,time; open({str(file)!r},'w').write(str(os.getpid())); time.sleep(60)"
    with pytest.raises(TemporaryError, match="did not end within"):
        python().run("-c", code, timeout=1.5)
    assert not alive(wait_for(file))


def test_cancel_asks_the_child_to_end_and_lets_it_clean_up(tmp_path: Path) -> None:
    file, cleaned = tmp_path / "pid", tmp_path / "cleaned"
    code = (
        "import os,signal,sys,time\n"
        f"def end(*_): open({str(cleaned)!r},'w').write('1'); sys.exit(1)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        f"open({str(file)!r},'w').write(str(os.getpid()))\n"
        "time.sleep(60)"
    )
    cancellation = Cancellation()
    caught: list[BaseException] = []

    def run() -> None:
        try:
            python(cancellation).run("-c", code, timeout=60)
        except Cancelled as exc:
            caught.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    pid = wait_for(file)
    cancellation.cancel(grace=10)
    thread.join(10)
    assert caught and cleaned.exists() and not alive(pid)


def test_nothing_is_started_after_a_cancel() -> None:
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(Cancelled):
        python(cancellation).run("-c", "pass", timeout=5)
    with pytest.raises(Cancelled):
        cancellation.sleep(60)


def test_a_cancel_ends_what_waits_for_an_engine() -> None:
    cancellation, engine = Cancellation(), threading.Event()
    waits = threading.Event()
    answered: list[bool] = []

    def ask() -> None:
        with cancellation.ending(engine.set):
            waits.set()
            answered.append(engine.wait(20))

    thread = threading.Thread(target=ask)
    thread.start()
    waits.wait(20)
    with cancellation.ending(engine.clear):
        pass  # this one has ended before: it is left alone
    cancellation.cancel()
    thread.join(20)
    assert answered == [True]
    with pytest.raises(Cancelled), cancellation.ending(engine.clear):
        raise AssertionError("nothing is waited for after a cancel")


def test_a_child_does_not_outlive_its_killed_parent(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    child = f"import os,time; open({str(file)!r},'w').write(str(os.getpid())); time.sleep(60)"
    parent = os.fork()
    if parent == 0:
        try:
            python().run("-c", child, timeout=60)
        finally:
            os._exit(0)
    pid = wait_for(file)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    deadline = time.monotonic() + 10
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(pid)
