"""Restores a backup of one component into the live platform.

Lease → read the backup → fence → safety backup, read back → replace → compare → remove the fence → gate. No data
is deleted before every byte of the backup and of the safety backup was read. Existing accounts keep their credentials,
except as the plan lists. A failure names the safety backup, from which the previous data can be restored.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from archive.backup.manifest import Manifest
from archive.backup.reader import SetReader
from cluster.credentials import password
from cluster.lease import UnreadableNote
from components.access import Access
from components.base import Live, RunningScratch
from components.questions import explain
from errors import PermanentError
from operations.environment.environment import Environment
from operations.environment.leases import component_lease, verify_lease
from operations.health import gate
from operations.restore.plan import RestorePlan
from operations.restore.report import DIFFERENT, FAILED, RESTORED, RestoreReport, way_back
from operations.restore.safety_backup import read_through, take_safety
from operations.runner.context import RunContext
from operations.runner.stages import Stages
from operations.runner.transfer import Transfer, watched
from operations.state.restore_journal import InterruptedRestore, interrupted_restore, replacing
from operations.verify.comparison import compare
from operations.verify.scratch import engines
from operations.verify.scratch_pod import Request

log = logging.getLogger(__name__)


def run_restore(
    environment: Environment,
    context: RunContext,
    identity: str,
    plan: RestorePlan,
    *,
    safety: bool = True,
    keep_contained: bool = True,
) -> RestoreReport:
    """Do what a plan says.

    Args:
        environment: opened.
        context: of the run.
        identity: age private key that opens the set.
        plan: what was approved.
        safety: whether to back up the current data first; not if there is none.
        keep_contained: whether the safety backup is kept though it holds nothing beyond the set that comes back.

    Raises:
        LeaseHeld: a deploy or another restore of the component is running, or a verification with its scratch engines.
        Damaged: the set is not what was stored; nothing was replaced.
        IsaError: nothing was replaced.
    """
    restore = _Restore(environment, context, identity, plan)
    return restore.run(safety=safety, keep_contained=keep_contained)


class _Restore:
    """The stages of one restore. What each of them finds goes into the report."""

    def __init__(
        self, environment: Environment, context: RunContext, identity: str, plan: RestorePlan
    ) -> None:
        self._environment, self._context, self._identity = environment, context, identity
        self._name = plan.manifest.component
        self._live = environment.components[self._name].live
        self._units = tuple(replacement.unit for replacement in plan.units)
        self._report = RestoreReport(plan.manifest.id, self._name)
        self._stages = Stages(context, self._report.stages)
        watch = watched(Transfer(context.tell), self._name)
        self._reader = SetReader(environment.store, plan.manifest, identity, plan.earlier, watch)
        self._replacing = False  # whether data may have been deleted

    def run(self, *, safety: bool, keep_contained: bool) -> RestoreReport:
        """Do all stages, under the component's deploy Lease: both change the component."""
        environment, context, report = self._environment, self._context, self._report
        try:
            with environment.lease(component_lease(self._name), context.who) as lease:
                interrupted = self._interrupted()
                with ExitStack() as stack:
                    if safety:
                        self._read_backup()
                    scratch = self._start_scratch(stack)
                    access = self._fence(stack)
                    safety_backups = self._safety_backups(interrupted)
                    if safety:
                        beyond = None if keep_contained else self._reader.manifest
                        self._back_up(access, interrupted, beyond)
                        if report.safety and report.safety not in safety_backups:
                            safety_backups = (*safety_backups, report.safety)
                    lease.ensure()  # the safety backup may have taken hours
                    self._replace(access, scratch, safety_backups)
                    self._compare(access)
                with self._stages.stage("gate"):  # it writes too: the fence had to go first
                    gate.wait(environment, context, self._name)
        except Exception as exc:  # a client library's own errors too: the way back must be reported
            if not self._replacing:
                raise
            self._fail(exc)
        return report

    def _interrupted(self) -> InterruptedRestore | None:
        """Return the interrupted restore. If that is unknown, the current data is backed up as usual."""
        environment = self._environment
        try:
            return interrupted_restore(environment.kube, environment.settings, self._name)
        except UnreadableNote as exc:
            self._context.tell(str(exc))
            log.warning("%s", exc)
            return None

    # ------------------------------------------------------------------ before anything is replaced
    def _read_backup(self) -> None:
        if self._live.beside or self._live.scratch:  # these find damage before they delete anything
            return
        with self._stages.stage("read", "read the backup to its last byte"):
            read_through(self._reader, self._live, self._units)

    def _start_scratch(self, stack: ExitStack) -> RunningScratch | None:
        if not self._live.scratch:
            return None
        with self._stages.stage("scratch", "start scratch engines with the backup for copying"):
            scratch = _scratch(self._environment, self._context, self._identity, self._reader)
            return stack.enter_context(scratch)

    def _fence(self, stack: ExitStack) -> Access:
        access = stack.enter_context(self._environment.access())
        with self._stages.stage("ask", "check that the engine can take the backup"):
            refuse_untakeable(self._live, access, self._reader, self._units)
        with self._stages.stage("fence", "block writers"):
            effect = stack.enter_context(self._live.fence(access, self._units))
        self._context.tell(f"fence: {effect}")
        return access

    def _safety_backups(self, interrupted: InterruptedRestore | None) -> tuple[str, ...]:
        """Return the safety backups of the interrupted restore; the first one has the original data."""
        if interrupted is None:
            return ()
        if set(self._units) & set(interrupted.units):
            self._report.first = next(iter(interrupted.safety), "")
        return tuple(dict.fromkeys(interrupted.safety))

    def _back_up(
        self, access: Access, interrupted: InterruptedRestore | None, beyond: Manifest | None
    ) -> None:
        """Back up the current data; a unit that this backup could not restore is not replaced."""
        report = self._report
        with self._stages.stage("safety", "back up the current data"):
            backup = take_safety(
                self._environment,
                self._context,
                self._identity,
                self._name,
                self._units,
                access=access,
                earlier=interrupted,
                beyond=beyond,
            )
            report.safety, report.not_replaced = backup.id, backup.lost
            self._units = tuple(unit for unit in self._units if unit not in backup.lost)
        if interrupted and report.safety in interrupted.safety:
            self._context.tell(
                "the data left by the previous run cannot be backed up: its safety backup is used"
            )

    # ------------------------------------------------------------------ from here on data is deleted
    def _replace(
        self, access: Access, scratch: RunningScratch | None, safety_backups: tuple[str, ...]
    ) -> None:
        environment, report = self._environment, self._report
        note = InterruptedRestore(report.backup, safety_backups, self._units)
        with (
            self._stages.stage("replace"),
            replacing(
                environment.kube, environment.settings, self._name, self._context.who, note
            ) as cleanup,
        ):
            self._replacing = True
            report.kept = self._live.replace(access, scratch, self._reader, self._units, cleanup)
        if safety_backups and safety_backups[0] != report.safety:
            report.kept.append(
                f"the data from before the interrupted run is in {safety_backups[0]}"
            )

    def _compare(self, access: Access) -> None:
        """Compare the live data with the backup; sets the outcome."""
        live, report = self._live, self._report
        with self._stages.stage("compare", "compare with the backup"):
            measures = live.measure(access, self._reader, self._units)
        report.differences = compare(live.wanted(self._reader, self._units), {"": measures})
        report.outcome = DIFFERENT if report.differences or report.not_replaced else RESTORED
        if report.differences:
            first = report.differences[0]
            report.reason = f"{first.unit}, {first.item}: {first.what}. {way_back(report)}"
        elif report.not_replaced:
            report.reason = (
                f"not replaced, because the safety backup {report.safety} would not restore them: "
                f"{'; '.join(report.not_replaced.values())}"
            )

    def _fail(self, exc: Exception) -> None:
        report = self._report
        done = "the data was replaced, and " if report.outcome != FAILED else ""
        earlier_reason = f" ({report.reason})" if report.reason else ""
        report.outcome = FAILED
        report.reason = f"{done}{explain(exc)}{earlier_reason}. {way_back(report)}"


def refuse_untakeable(live: Live, access: Access, reader: SetReader, chosen: Iterable[str]) -> None:
    """Ask the live engine whether it would accept units of a backup, before its data is deleted.

    Raises:
        PermanentError: it would refuse; with every reason.
        TemporaryError: it does not answer.
    """
    refusals = live.can_take(access, reader, tuple(chosen))
    if refusals:
        raise PermanentError(
            f"nothing was replaced: the engine would refuse data of {reader.manifest.id}: {'; '.join(refusals)}"
        )


@contextmanager
def _scratch(
    environment: Environment, context: RunContext, identity: str, reader: SetReader
) -> Iterator[RunningScratch]:
    """A backup in scratch engines, to be copied from."""
    settings, component = environment.settings, reader.manifest.component
    restore = environment.backup_targets[component].restore
    request = Request.of(environment, reader.chain, identity)
    pods = restore.scratch(settings, reader.manifest, password())
    with (
        # otherwise a verification would remove them
        environment.lease(verify_lease(component), context.who),
        engines(request, pods, restore.ask, context) as scratch,
    ):
        restore.load(scratch.access, scratch.at, reader)
        yield scratch
