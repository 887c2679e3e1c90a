"""The only module that starts processes: helm, kubectl and the engines' own tools all use `Command`.

A cancelled deploy must not leave helm half-done (a release in `pending-upgrade` blocks every later deploy,
https://github.com/helm/helm/issues/8987), nor may helm live on without the process that holds its Lease. So each child
runs in a session of its own, where only we decide when it is told to stop; it is asked by SIGTERM first, which helm
answers by marking the release failed; and on Linux the kernel asks it the same should we be killed.
"""

from __future__ import annotations

import fcntl
import logging
import os
import select
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from calls import call
from config.process_environment import child_environ
from errors import PermanentError, TemporaryError

# A cancelled run has 30 s in all, and Prefect takes 3-12 s of them itself; helm needs about 2 s.
STOP_GRACE_SECONDS = 15.0
PIPE_BYTES = (
    1 << 20
)  # what a user may make a pipe; the usual 64 KiB cost a switch of processes each
ERROR_TAIL_CHARACTERS = 2000  # helm repeats itself; the cause stands at the end


log = logging.getLogger(__name__)


class Cancelled(PermanentError):
    """The run was cancelled while, or before, the command ran."""


@dataclass(frozen=True)
class Completed:
    """The result of a finished process.

    Attributes:
        argv: program and arguments, without the wrapper.
        returncode: exit status; negative is the signal that ended it.
        stdout: whole standard output.
        stderr: whole standard error.
        seconds: wall time.
    """

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def error(self) -> str:
        """The end of the process's error output."""
        return (self.stderr.strip() or self.stdout.strip())[-ERROR_TAIL_CHARACTERS:]


class Cancellation:
    """Stops every running child and every wait for an engine once, and refuses new ones from then on."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[Any]] = set()
        self._waits: list[Callable[[], None]] = []

    def is_set(self) -> bool:
        """Whether the run has been cancelled."""
        return self._event.is_set()

    def clear(self) -> None:
        """Allow commands again: a process that serves several runs calls it at the start of each."""
        self._event.clear()

    def cancel(self, grace: float = STOP_GRACE_SECONDS) -> None:
        """Ask all running children to end, wait for them, then kill what is left.

        Args:
            grace: seconds from the request to the kill.
        """
        self._event.set()
        with self._lock:
            running, waits = list(self._running), list(self._waits)
        for process in running:
            _signal(process, signal.SIGTERM)
        for end in waits:
            with suppress(Exception):  # the wait has ended already
                end()
        deadline = time.monotonic() + grace
        for process in running:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _signal(process, signal.SIGKILL)

    def sleep(self, seconds: float) -> None:
        """Sleep, but end at once, with `Cancelled`, when the run is cancelled."""
        if self._event.wait(seconds):
            raise Cancelled("cancelled while waiting")

    def check(self, where: str) -> None:
        """Raise `Cancelled` if the run is; `where` says where it ended."""
        if self._event.is_set():
            raise Cancelled(f"cancelled {where}")

    @contextmanager
    def ending(self, end: Callable[[], None]) -> Iterator[None]:
        """Let a cancel end the wait in a block that is neither a process nor a sleep.

        Args:
            end: called once, by another thread; it makes the wait raise an exception. Only for waits that may end at
                any point: a cleanup must not be ended by a cancel.
        """
        with self._lock:
            self._waits.append(end)
        try:
            self.check("before it waited for an engine")
            yield
        finally:
            with self._lock:
                self._waits.remove(end)

    def register(self, process: subprocess.Popen[Any]) -> None:
        """Add a child; one that raced with `cancel` is asked to end at once."""
        with self._lock:
            self._running.add(process)
        if self._event.is_set():
            _signal(process, signal.SIGTERM)

    def forget(self, process: subprocess.Popen[Any]) -> None:
        """Drop a child that has ended."""
        with self._lock:
            self._running.discard(process)


CANCELLATION = Cancellation()


class Background:
    """A process that runs beside this one (`Command.background`).

    Args:
        process: of it.
        said: its error output, a file.
        name: for messages.

    Attributes:
        pid: of the process.
    """

    def __init__(self, process: subprocess.Popen[Any], said: IO[bytes], name: str) -> None:
        self._process, self._said, self._name = process, said, name
        self.pid = process.pid

    @property
    def ended(self) -> str | None:
        """Its exit status and the end of its error output; None while it runs."""
        code = self._process.poll()
        if code is None:
            return None
        return f"{self._name} exited with {code}: {_tail(self._said)}"


class Command:
    """A program of the PATH, checked at construction.

    Args:
        program: name or path.
        install_hint: what to do where it is missing.
        environ: the whole environment of its processes; by default ours, without what would lead them elsewhere.
        cancellation: registry that ends its processes on cancel.

    Raises:
        PermanentError: the program does not exist.
    """

    def __init__(
        self,
        program: str,
        *,
        install_hint: str = "",
        environ: Mapping[str, str] | None = None,
        cancellation: Cancellation = CANCELLATION,
    ) -> None:
        self._environ = child_environ() if environ is None else dict(environ)
        found = shutil.which(program, path=self._environ.get("PATH"))
        if found is None:
            raise PermanentError(f"{program} is not on the PATH. {install_hint}".strip())
        self.program = found
        self._cancellation = cancellation
        # The kernel sends the signal when our *thread* ends; the thread waits for the child, so that is right.
        setpriv = shutil.which("setpriv")
        self._wrapper = (setpriv, "--pdeathsig", "SIGTERM", "--") if setpriv else ()

    def run(
        self,
        *args: str,
        timeout: float,
        stdin: str | None = None,
        directory: Path | None = None,
    ) -> Completed:
        """Run to the end and collect the output.

        Args:
            args: arguments; never a secret, since other users can read them.
            timeout: seconds after which the process is stopped.
            stdin: text for its standard input.
            directory: to run in; ours by default.

        Returns:
            Its result, whatever its exit status.

        Raises:
            Cancelled: the run was cancelled.
            TemporaryError: it took longer than `timeout`.
        """
        self._cancellation.check(f"before {_short(self.program, args)}")
        started = time.monotonic()
        process = self._started(
            args,
            stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            cwd=directory,
        )
        name = f"{_short(self.program, args)} (pid {process.pid})"
        try:
            with call(name):
                stdout, stderr = process.communicate(stdin, timeout=timeout)
        except subprocess.TimeoutExpired as exc:
            _stop(process)
            raise TemporaryError(
                f"{_short(self.program, args)} did not end within {timeout:.0f} s and was stopped"
            ) from exc
        except (
            BaseException
        ):  # TerminationSignal and KeyboardInterrupt: never leave the child behind
            _stop(process)
            raise
        finally:
            self._cancellation.forget(process)
        if process.returncode:
            log.debug("%s exited with %d", name, process.returncode)
        if self._cancellation.is_set() and process.returncode != 0:
            raise Cancelled(f"cancelled during {_short(self.program, args)}")
        return Completed(
            (self.program, *args), process.returncode, stdout, stderr, time.monotonic() - started
        )

    def stream(self, *args: str, stall: float) -> Iterator[bytes]:
        """Run, and stream standard output.

        Args:
            args: arguments; never a secret.
            stall: seconds without output after which the process is stopped.

        Raises:
            Cancelled: the run was cancelled.
            TemporaryError: it failed, or fell silent; with the end of what it said. Only when all output was handed
                on is it known whether it was complete.
        """
        name = _short(self.program, args)
        self._cancellation.check(f"before {name}")
        with tempfile.TemporaryFile() as said, call(name):
            process = self._started(
                args, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said
            )
            assert process.stdout is not None
            # taken from it: no other thread may read the rest while it is stopped
            pipe, process.stdout = process.stdout, None
            try:
                output = pipe.fileno()
                fcntl.fcntl(output, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
                while True:
                    if not select.select([output], [], [], stall)[0]:
                        raise TemporaryError(
                            f"{name} sent no output for {stall:.0f} s and was stopped"
                        )
                    piece = os.read(output, PIPE_BYTES)
                    if not piece:
                        break
                    yield piece
                code = process.wait(stall)
            finally:  # also when the consumer stops early
                pipe.close()
                _stop(process)
                self._cancellation.forget(process)
            words = _tail(said)
        self._cancellation.check(f"during {name}")
        if code != 0:
            raise TemporaryError(f"{name} exited with {code}: {words}")

    @contextmanager
    def background(self, *args: str) -> Iterator[Background]:
        """Run while a block runs; asked to end when the block ends, killed if it does not.

        Args:
            args: arguments; never a secret.

        Raises:
            Cancelled: the run was cancelled before.
        """
        name = _short(self.program, args)
        self._cancellation.check(f"before {name}")
        with tempfile.TemporaryFile() as said, call(name):
            process = self._started(
                args, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said
            )
            try:
                yield Background(process, said, name)
            finally:
                _stop(process)
                self._cancellation.forget(process)

    def _started(self, args: Sequence[str], **streams: Any) -> subprocess.Popen[Any]:
        """Start a process that a cancel ends; it leads a group of its own."""
        process = subprocess.Popen(
            [*self._wrapper, self.program, *args],
            env=self._environ,
            start_new_session=True,
            **streams,
        )
        self._cancellation.register(process)
        return process


def _tail(said: IO[bytes]) -> str:
    """The end of what a process wrote into a file."""
    said.seek(0)
    return said.read().decode(errors="replace").strip()[-ERROR_TAIL_CHARACTERS:]


def _short(program: str, args: Sequence[str]) -> str:
    return " ".join([os.path.basename(program), *args[:3]])


def _signal(process: subprocess.Popen[Any], number: signal.Signals) -> None:
    if process.poll() is None:
        try:
            os.killpg(process.pid, number)  # start_new_session made it the leader of its own group
        except ProcessLookupError:
            return


def _stop(process: subprocess.Popen[Any], grace: float = STOP_GRACE_SECONDS) -> None:
    _signal(process, signal.SIGTERM)
    try:
        process.communicate(timeout=grace)
    except subprocess.TimeoutExpired:
        _signal(process, signal.SIGKILL)
        process.communicate()
