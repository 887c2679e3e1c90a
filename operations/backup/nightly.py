"""Backs up all components: a few at the same time; a failed one does not stop the others; the report lists each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from archive.backup.manifest import is_interval
from cluster.dag import Dag
from cluster.lease import LeaseHeld, UnreadableNote
from errors import PermanentError
from operations.backup.component import FAILED, SKIPPED, BackupResult, back_up, selected
from operations.backup.prerequisites import check_store
from operations.backup.slot import check_slot
from operations.documents.runs import Backup
from operations.environment.environment import Environment
from operations.runner.context import RunContext
from operations.runner.lines import run_lines
from operations.runner.progress import NodeProgress, Progress
from operations.runner.transfer import human
from operations.runner.walk import Start, Work
from operations.state.rebuild_state import unfinished_rebuild

RUNNING = "backing up"


@dataclass(frozen=True)
class BackupLine(NodeProgress):
    """One line of the table; with the figures of the backup when there is one.

    Attributes:
        id: of the set.
        bytes_read: plain bytes.
        bytes_stored: bytes in the bucket.
        manifest: its key.
    """

    id: str = ""
    bytes_read: int = 0
    bytes_stored: int = 0
    manifest: str = ""


@dataclass(frozen=True)
class BackupReport:
    """How a run of backups ended.

    Attributes:
        seconds: wall time.
        backups: one result per component.
    """

    seconds: float
    backups: tuple[BackupResult, ...]

    @property
    def state(self) -> str:
        """`completed`, or `failed` if any component has no complete backup."""
        return "completed" if all(result.good for result in self.backups) else "failed"

    @property
    def summary(self) -> str:
        """One line: the number of each outcome, and every cause."""
        counts: dict[str, int] = {}
        for result in self.backups:
            counts[result.outcome] = counts.get(result.outcome, 0) + 1
        words = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
        read, stored = (
            sum(getattr(r, name) for r in self.backups) for name in ("bytes_read", "bytes_stored")
        )
        causes = "; ".join(f"{r.component}: {r.reason}" for r in self.backups if not r.good)
        told = f"{words} in {self.seconds:.1f} s, {human(read)} read, {human(stored)} stored"
        return f"{told}. {causes}" if causes else told

    def document(self) -> Backup:
        """The report as `isa backup --json` prints it."""
        return Backup(
            state=self.state,
            seconds=round(self.seconds, 2),
            message=self.summary,
            backups=tuple(result.document() for result in self.backups),
        )


def run_backups(
    environment: Environment,
    context: RunContext,
    *,
    only: Iterable[str] = (),
    slot: str,
    start: Callable[[Dag, Work], Start],
) -> BackupReport:
    """Back components up.

    Args:
        environment: opened.
        context: of the run.
        only: names; all if empty.
        slot: idempotency key; a component that has a backup for it is skipped. "" always takes backups.
        start: how one is begun (a thread, a Prefect task).

    Raises:
        ArgumentError: a name is unknown, or the slot is a date in the future.
        ConfigurationError: a recipient is invalid.
        PermanentError, TemporaryError: the store or the spool cannot be used; no engine was touched.
    """
    began = context.clock()
    components = selected(only)
    check_slot(slot, environment.settings.schedules.timezone)
    able = check_store(environment)
    progress = Progress(components, context.publish, context.clock, BackupLine)

    def work(context: RunContext, component: str) -> BackupResult:
        doubts = _doubts(environment, component)
        try:
            return back_up(environment, context, component, able, slot=slot, doubts=doubts)
        except LeaseHeld as exc:
            if not is_interval(slot):
                raise
            return BackupResult(
                component, SKIPPED, reason=str(exc)
            )  # the next interval has its own

    def settle(component: str, result: BackupResult, seconds: float) -> None:
        sizes = f"{human(result.bytes_read)} read, {human(result.bytes_stored)} stored"
        progress.ended(
            component,
            result.outcome,
            seconds,
            result.reason or sizes,
            id=result.id,
            bytes_read=result.bytes_read,
            bytes_stored=result.bytes_stored,
            manifest=result.manifest,
        )

    results = run_lines(
        context,
        {component: (component,) for component in components},
        work,
        phase=RUNNING,
        progress=progress,
        start=start,
        max_parallel=environment.settings.backup.max_parallel,
        lost=lambda component, end: BackupResult(
            component, FAILED, seconds=end.seconds, reason=end.reason
        ),
        settle=settle,
    )
    return BackupReport(context.clock() - began, tuple(results[name] for name in components))


def _doubts(environment: Environment, component: str) -> tuple[str, ...]:
    """Why an engine may not hold all of its data now.

    Raises:
        PermanentError: it surely does not: a rebuild has not restored it yet.
    """
    try:
        rebuild = unfinished_rebuild(environment.kube, environment.settings, component)
    except UnreadableNote as exc:  # what there is may be all there is: it is taken, as partial
        return (str(exc),)
    if rebuild is not None and rebuild.without_data:
        raise PermanentError(
            f"{rebuild.id} has not restored the data yet; a backup now would be almost empty. "
            f"Run the rebuild again, or `isa rebuild undo {component}`"
        )
    return ()
