"""The steps of a rebuild. Each is done once, and is recorded before the next one begins."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from archive.backup.manifest import begun_of
from cluster.lease import Lease
from components.questions import explain
from errors import PermanentError
from operations.backup.component import PARTIAL
from operations.rebuild.actions import ComponentActions
from operations.rebuild.plan import RebuildPlan
from operations.restore.report import DIFFERENT, RESTORED
from operations.runner.context import RunContext
from operations.runner.progress import Progress
from operations.runner.walk import INSTALLED, NodeResult
from operations.state.rebuild_state import (
    BACKUP,
    DEPENDANTS,
    FENCE,
    FRESH,
    INSTALL,
    NEW,
    NONE,
    PROOF,
    RESTORE,
    UNINSTALL,
    VOLUMES,
    RebuildState,
)

RUNNING, ENDED, EARLIER = "running", "done", "done-earlier"


def step_names(plan: RebuildPlan) -> list[str]:
    """The steps of a plan, in order."""
    policy, names = plan.policy, []
    if policy.final_backup:
        names += [FENCE] if policy.fenced and plan.units else []
        names += [BACKUP, PROOF]
    names += [UNINSTALL]
    names += [VOLUMES] if policy.volumes == NEW else []
    names += [INSTALL]
    names += [RESTORE] if policy.restore != NONE else []
    names += [DEPENDANTS] if plan.dependants else []
    return names


class RebuildSteps:
    """The steps of one rebuild.

    Args:
        context: of the run.
        plan: what was approved.
        actions: on the component.
        state: how far the rebuild has got.
        lease: of the rebuild, which records the state.
        progress: the table of the run.
    """

    def __init__(
        self,
        context: RunContext,
        plan: RebuildPlan,
        *,
        actions: ComponentActions,
        state: RebuildState,
        lease: Lease,
        progress: Progress,
    ) -> None:
        self._context, self._plan, self._actions = context, plan, actions
        self._state, self._lease, self._progress = state, lease, progress
        self._open_fence = ExitStack()
        self._empty = False  # whether this run has installed the engine on new volumes
        self._steps: dict[str, Callable[[], str]] = {
            FENCE: self._fence,
            BACKUP: self._backup,
            PROOF: self._verify,
            UNINSTALL: self._uninstall,
            VOLUMES: self._put_volumes_aside,
            INSTALL: self._install,
            RESTORE: self._restore,
            DEPENDANTS: self._dependants,
        }

    def do(self, step: str) -> NodeResult:
        """Do one step, unless an earlier run completed it.

        Raises:
            TemporaryError: another attempt may succeed.
            PermanentError: someone has to act.
        """
        if step in self._state.done:
            return NodeResult(step, EARLIER)
        self._lease.ensure()
        self._at(step).tell("")
        result = self._steps[step]()
        self._state.done.append(step)
        if self._state.changed:
            self._record()
        return NodeResult(step, ENDED, round(self._progress.seconds(step), 2), result)

    def close(self) -> str:
        """Remove the fence; returns why that failed. After an uninstall there is no fence any more."""
        try:
            self._open_fence.close()
        except Exception as exc:  # a client library's too: the result of the steps must be reported
            return "" if self._state.uninstalled else explain(exc)
        return ""

    # ------------------------------------------------------------------ before anything has changed
    def _fence(self) -> str:
        self._record()  # so that a run that meets the fence can find out which run set it
        return self._open_fence.enter_context(self._actions.fence(self._plan.units))

    def _backup(self) -> str:
        backup = self._actions.back_up(self._at(BACKUP), self._state.slot)
        if backup.outcome == PARTIAL:
            raise PermanentError(f"the backup {backup.id} is partial: {backup.reason}")
        if self._plan.policy.fenced and self._actions.fences:
            self._refuse_unfenced(backup.id)
        self._state.set = backup.id
        return backup.id

    def _refuse_unfenced(self, backup: str) -> None:
        """Refuse a backup of units that were not fenced: they were created after the fence was planned."""
        units = [replacement.unit for replacement in self._actions.restore_plan(backup).units]
        unfenced = [unit for unit in units if unit not in self._plan.units]
        if unfenced:
            raise PermanentError(
                f"{', '.join(unfenced)}: created after the last backup, so not fenced and still written to: run the "
                "command again, which fences everything that this backup holds"
            )

    def _verify(self) -> str:
        evidence = self._actions.verify(self._at(PROOF), self._state.set)
        if evidence.verdict != "pass":
            raise PermanentError(
                f"the verification of {self._state.set} is {evidence.verdict}: {evidence.reason}"
            )
        return evidence.sentence

    # ------------------------------------------------------------------ the point of no return
    def _uninstall(self) -> str:
        policy = self._plan.policy
        if policy.restore not in (FRESH, NONE):
            self._state.set = policy.restore
        if policy.final_backup and policy.restore != NONE:  # without one the engine does not answer
            self._actions.refuse_untakeable(self._state.set)
        if policy.volumes == NEW:
            self._actions.protect_volumes(self._state.id)
        self._state.changed = True
        self._record()  # before the change, so that the next run continues a half-done one
        self._actions.uninstall(self._at(UNINSTALL))
        return ", ".join(self._plan.releases) + self._unfenced_writes()

    def _unfenced_writes(self) -> str:
        """Return since when writes are lost in an engine without a fence, as text; "" if none are."""
        begun = begun_of(self._state.set)
        if not self._plan.policy.fenced or self._actions.fences or begun is None:
            return ""
        return f"; what was written since {begun:%H:%M:%S} UTC is only on the old volumes"

    def _put_volumes_aside(self) -> str:
        retained = self._actions.put_volumes_aside(self._context, self._state.id)
        return (
            f"{len(retained)} volumes are retained: {', '.join(volume.name for volume in retained)}"
        )

    def _install(self) -> str:
        old_claims = self._actions.claims()  # an engine on old volumes is not empty
        outcome = self._actions.install(self._at(INSTALL))
        new_volumes = self._plan.policy.volumes == NEW and not old_claims
        self._empty = outcome == INSTALLED and new_volumes
        return outcome

    def _restore(self) -> str:
        report = self._actions.restore(
            self._at(RESTORE),
            self._state.set,
            safety=not self._empty,  # clients may have written since an earlier run installed it
        )
        self._state.replaced = report.outcome in (RESTORED, DIFFERENT)
        if report.outcome != RESTORED:
            self._record()
            raise PermanentError(report.reason)
        self._actions.mark_compared(self._state.id)
        return f"{self._state.set} is restored, compared and equal"

    def _dependants(self) -> str:
        for name in self._plan.dependants:
            self._at(DEPENDANTS).tell(name)
            self._actions.wait_ready(self._context, name)
        return ", ".join(self._plan.dependants)

    def _record(self) -> None:
        self._lease.note(self._state.text())

    def _at(self, step: str) -> RunContext:
        """The run, whose notes go to the line of a step."""
        return self._context.telling(partial(self._progress.update, step, RUNNING))
