"""Restores a backup into scratch engines and measures them, without those that are incompatible with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from archive.backup.manifest import Measure
from archive.backup.reader import Damaged, SetReader
from archive.evidence.verdicts import Level
from archive.object_store.store import Refused
from archive.streams.unpacking import Unreadable
from cluster.command import Cancelled
from components.base import Restore, RunningScratch, Scratch
from errors import PermanentError, TemporaryError
from operations.verify.compatibility import incompatibility
from operations.verify.scratch import Unrestorable, engines, out_of_room
from operations.verify.scratch_pod import Request
from operations.verify.verdict import Course, Outcome


@dataclass(frozen=True)
class Trial:
    """One backup's restore into scratch engines.

    Attributes:
        request: for what.
        reader: of the backup.
        restore: of the component.
        course: of the verification; gets the level.
        outcome: gets the version of the engines, and why the verification is partial.
    """

    request: Request
    reader: SetReader
    restore: Restore
    course: Course
    outcome: Outcome

    def run(self, scratches: tuple[Scratch, ...]) -> Mapping[str, list[Measure]] | None:
        """Restore what the scratch engines are compatible with; None if nothing: then every byte was read.

        Args:
            scratches: the engines that the component's restore needs.

        Returns:
            The measures of each engine, by its name.

        Raises:
            Damaged, Unrestorable: the backup is bad.
        """
        while True:
            try:
                return self._restored(scratches)
            except Unrestorable as exc:
                self._note_incompatibility(scratches, exc)
            # files belong to a version; what is loaded over the network may not depend on it
            loaded = tuple(scratch for scratch in scratches if not scratch.placed)
            if not loaded or loaded == scratches:
                break
            scratches = loaded
        self._read_rest(())
        self.course.level = "L1"
        return None

    def _note_incompatibility(self, scratches: tuple[Scratch, ...], exc: Unrestorable) -> None:
        """Record why the engines, and not the backup, are the cause; any other error is raised again."""
        why = incompatibility(
            self.request, self.restore, scratches, exc, self.outcome.scratch, self.course.context
        )
        if not why:
            raise exc
        self.outcome.partial.append(f"{why} ({exc.plain})")
        self.outcome.messages.append(exc.said)

    def _restored(self, scratches: tuple[Scratch, ...]) -> Mapping[str, list[Measure]]:
        """Restore; returns the measures of the scratch engines."""
        with ExitStack() as stack:
            with self.course.stage("start"):
                running = stack.enter_context(
                    engines(self.request, scratches, self.restore.ask, self.course.context)
                )
            self.outcome.scratch = running.version
            try:
                return self._measured(running, scratches)
            except TemporaryError:
                running.check()  # whether the engine has ended
                raise
            except (Damaged, Refused, Cancelled):
                raise
            except (PermanentError, OSError) as exc:
                raise self._cause(exc, scratches) from exc

    def _measured(
        self, running: RunningScratch, scratches: tuple[Scratch, ...]
    ) -> Mapping[str, list[Measure]]:
        restore, reader, course = self.restore, self.reader, self.course
        with course.stage("load"):
            restore.load(running.access, running.at, reader)
        self._read_rest([name for scratch in scratches for name in scratch.placed])
        course.level = "L3" if scratches else "L1"
        with course.stage("compare"):
            return restore.measure(running.access, running.at, reader)

    def _read_rest(self, placed: Iterable[str]) -> None:
        if self.restore.reads_all:
            with self.course.stage("read the remaining artefacts"):
                self.reader.read_rest(placed)

    def _cause(
        self, exc: PermanentError | OSError, scratches: tuple[Scratch, ...]
    ) -> PermanentError | TemporaryError | Cancelled:
        """Return the error of what failed: a cancel, a full disk, an interruption, or else the backup."""
        if self.course.context.cancellation.is_set():  # what was refused may have been ended for it
            return Cancelled("cancelled before there was a verdict")
        if out_of_room(exc):
            return PermanentError("a disk is full: no verdict", said=str(exc))
        if not isinstance(exc, PermanentError):
            return TemporaryError(f"interrupted: {type(exc).__name__}", said=str(exc))
        level: Level = "L3" if scratches and not isinstance(exc, Unreadable) else "L2"
        return Unrestorable(level, exc.plain, exc.said)
