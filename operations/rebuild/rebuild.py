"""Rebuilds a component from scratch, without losing data if it is interrupted.

fence → last backup → its verification → uninstall → retain volumes → install, with the gate → restore and compare →
dependants' gates. Until the uninstall nothing is changed, and any failure removes the fence again. From then on the
backup is verified, the old volumes are retained, and completed steps are recorded on the Lease of the rebuild: the same
command continues after the last completed step. If the uninstall had not ended, it starts at the fence: the engine may
have been in use since. Old volumes are purged only after the comparison, and when their time is over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from archive.manifest import begun_of
from archive.reader import SetReader
from cluster import volumes
from cluster.dag import Dag
from cluster.lease import Lease
from components.questions import explain
from config.models import Settings
from errors import PermanentError
from operations.backup.component import PARTIAL, back_up
from operations.backup.prerequisites import check_store
from operations.documents import runs as documents
from operations.environment import leases
from operations.environment.environment import Environment
from operations.environment.leases import rebuild_lease
from operations.health import gate
from operations.rebuild.plan import RebuildPlan
from operations.rebuild.reinstall import claims, install, put_aside, uninstall
from operations.rebuild.resumption import refuse_unfounded
from operations.restore.plan import RestorePlan, plan_restore
from operations.restore.restore import DIFFERENT, RESTORED, refuse_untakeable, run_restore
from operations.runner.context import RunContext
from operations.runner.progress import Progress
from operations.runner.walk import INSTALLED, NodeResult, Start, Work, walk
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
    Policy,
    RebuildState,
)
from operations.state.restore_journal import InterruptedRestore, broken_off, forget
from operations.verify.proof import prove

RUNNING, ENDED, EARLIER = "running", "done", "done-earlier"


@dataclass(frozen=True)
class RebuildReport:
    """How a rebuild ended.

    Attributes:
        component: name.
        id: of the rebuild.
        seconds: wall time.
        steps: one result each.
        set: backup that was restored, or taken; "" if none.
        aside: retained old volumes.
        changed: whether anything has changed.
        shut: why the fence could not be removed; "" if it was, or if there is nothing to write to.
    """

    component: str
    id: str
    seconds: float
    steps: tuple[NodeResult, ...]
    set: str
    aside: tuple[str, ...]
    changed: bool
    shut: str = ""

    @property
    def state(self) -> str:
        """`completed`, or `failed`."""
        return "completed" if all(step.good for step in self.steps) else "failed"

    @property
    def summary(self) -> str:
        """The resulting state, in a few sentences."""
        failed = next((step for step in self.steps if not step.good), None)
        if failed is None:
            kept = f"; {len(self.aside)} old volumes are retained" if self.aside else ""
            return f"{self.component} rebuilt in {self.seconds:.1f} s{kept}"
        words = f"{failed.name}: {failed.reason}. "
        if self.shut:
            words += f"WRITES ARE STILL BLOCKED ({self.shut}): run the same command again to allow them. "
        if not self.changed:
            rest = (
                "Nothing else was changed"
                if self.shut
                else "Nothing was changed; writers have access"
            )
            return words + rest
        held = [f"the backup {self.set}"] if self.set else []
        held += [f"the old volumes {', '.join(self.aside)}"] if self.aside else []
        where = f"; nothing is lost: {' and '.join(held)} are retained" if held else ""
        return (
            f"{words}The same command continues here{where}; "
            f"`isa rebuild undo {self.component}` puts its old volumes back"
        )

    def document(self) -> documents.Rebuild:
        """As `isa rebuild --json` prints it."""
        return documents.Rebuild(
            state=self.state,
            seconds=round(self.seconds, 2),
            message=self.summary,
            component=self.component,
            rebuild=self.id,
            steps=tuple(documents.RebuildStep(**vars(step)) for step in self.steps),
            backup=self.set,
            retained_volumes=self.aside,
        )


def run_rebuild(
    environment: Environment,
    context: RunContext,
    plan: RebuildPlan,
    *,
    start: Callable[[Dag, Work], Start],
) -> RebuildReport:
    """Do what was approved, or continue an earlier run of the same policy.

    Args:
        environment: opened.
        context: of the run.
        plan: what was approved.
        start: how a step is begun (a thread, a Prefect task).

    Raises:
        LeaseHeld: a deploy or another rebuild is running.
        PermanentError: the plan is blocked, a rebuild with another policy is unfinished, or the Lease's state of this
            one is not true.
    """
    if plan.blocked:
        raise PermanentError(f"nothing was changed: {'; '.join(plan.blocked)}")
    began, name = context.clock(), plan.policy.component
    with (
        environment.lease(leases.DEPLOY, context.who),
        environment.lease(rebuild_lease(name), context.who) as lease,
    ):
        left = broken_off(environment.kube, environment.settings, name)
        standing = _standing(lease, environment.settings, plan.policy, left)
        if standing.gone:
            refuse_unfounded(environment, environment.catalogue([name]), standing)
        steps = _steps(plan)
        graph = _chain(steps)
        progress = Progress(steps, context.publish, context.clock)
        progress.show()
        rebuild = Rebuild(environment, context, plan, standing, lease, progress)
        try:
            results = walk(
                context,
                graph,
                set(steps),
                start(graph, rebuild.do),
                max_parallel=1,
                report=lambda r: progress.ended(r.name, r.outcome, r.seconds, r.reason),
            )
        finally:
            shut = rebuild.close()
        if all(one.good for one in results) or not (standing.changed or shut):
            lease.note("")
        kept = volumes.aside(environment.kube, name) if plan.policy.volumes == NEW else []
        return RebuildReport(
            name,
            standing.id,
            context.clock() - began,
            tuple(results),
            standing.set,
            tuple(one.name for one in kept if one.rebuild == standing.id),
            standing.changed,
            shut,
        )


class Rebuild:
    """The steps of one rebuild.

    Args:
        environment: opened.
        context: of the run.
        plan: what was approved.
        standing: its recorded state.
        lease: of the rebuild.
        progress: where the steps stand.
    """

    def __init__(
        self,
        environment: Environment,
        context: RunContext,
        plan: RebuildPlan,
        standing: RebuildState,
        lease: Lease,
        progress: Progress,
    ) -> None:
        self._environment, self._context, self._plan = environment, context, plan
        self._standing, self._lease = standing, lease
        self._progress = progress
        self._component = environment.components[plan.policy.component]
        self._fenced = ExitStack()
        self._empty = False  # what this very run has installed upon new volumes holds nothing
        self._steps: dict[str, Callable[[], str]] = {
            FENCE: self._fence,
            BACKUP: self._backup,
            PROOF: self._proof,
            UNINSTALL: self._uninstall,
            VOLUMES: self._put_aside,
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
        if step in self._standing.done:
            return NodeResult(step, EARLIER)
        self._lease.ensure()
        self._at(step).tell("")
        words = self._steps[step]()
        self._standing.done.append(step)
        if self._standing.changed:
            self._lease.note(self._standing.text())
        return NodeResult(step, ENDED, round(self._progress.seconds(step), 2), words)

    def close(self) -> str:
        """Remove the fence; returns why that failed. After an uninstall there is no fence any more."""
        try:
            self._fenced.close()
        except (
            Exception
        ) as exc:  # a client library's own errors too: how the steps ended must still be told
            return "" if self._standing.gone else explain(exc)
        return ""

    # ------------------------------------------------------------------ while nothing has changed
    def _fence(self) -> str:
        # whoever finds writers kept away learns of whom
        self._lease.note(self._standing.text())
        access = self._fenced.enter_context(self._environment.access())
        return self._fenced.enter_context(self._component.live.fence(access, self._plan.units))

    def _backup(self) -> str:
        able = check_store(self._environment)
        found = back_up(
            self._environment,
            self._at(BACKUP),
            self._component.name,
            able,
            slot=self._standing.slot,
        )
        if found.outcome == PARTIAL:
            raise PermanentError(f"the backup {found.id} is partial: {found.reason}")
        if self._plan.policy.fenced and self._component.live.fences:
            self._check_fenced(found.id)
        self._standing.set = found.id
        return found.id

    def _check_fenced(self, backup: str) -> None:
        """Refuse a backup of units that were not fenced: they were created after the fence was planned."""
        held = self._plan_of(backup)
        open_ones = [one.unit for one in held.units if one.unit not in self._plan.units]
        if open_ones:
            raise PermanentError(
                f"{', '.join(open_ones)}: created after the last backup, so not fenced and still written to: run the "
                "command again, which fences everything that this backup holds"
            )

    def _proof(self) -> str:
        found = prove(
            self._environment,
            self._at(PROOF),
            self._environment.verify_identity(),
            self._standing.set,
        )
        if found.verdict != "pass":
            raise PermanentError(
                f"the verification of {self._standing.set} is {found.verdict}: {found.reason}"
            )
        return found.sentence

    def _check_takeable(self) -> None:
        """Refuse to uninstall an engine whose settings would prevent the restore of its data."""
        environment, environment, live = self._environment, self._environment, self._component.live
        plan = self._plan_of(self._standing.set)
        reader = SetReader(
            environment.store, plan.manifest, environment.verify_identity(), plan.earlier
        )
        with environment.access() as access:
            refuse_untakeable(live, access, reader, [one.unit for one in plan.units])

    # ------------------------------------------------------------------ from here on something has
    def _uninstall(self) -> str:
        environment, name, policy = self._environment, self._component.name, self._plan.policy
        if policy.restore not in (FRESH, NONE):
            self._standing.set = policy.restore
        # one that is dead cannot be asked
        if policy.final_backup and policy.restore != NONE:
            self._check_takeable()
        if policy.volumes == NEW:  # a chart may let claims go with their StatefulSet
            volumes.keep(environment.kube, claims(environment, name), name, self._standing.id)
        # before the change: whoever finds it half done goes on
        self._standing.changed = True
        self._lease.note(self._standing.text())
        uninstall(environment, self._at(UNINSTALL), name)
        words = ", ".join(self._plan.releases)
        begun = begun_of(self._standing.set)
        if policy.fenced and not self._component.live.fences and begun is not None:
            words += f"; what was written since {begun:%H:%M:%S} UTC is only on the old volumes"
        return words

    def _put_aside(self) -> str:
        environment, name = self._environment, self._component.name
        kept = put_aside(environment, self._context, name, self._standing.id)
        forget(environment.kube, environment.settings, name, self._context.who)
        return f"{len(kept)} volumes are retained: {', '.join(one.name for one in kept)}"

    def _install(self) -> str:
        name = self._component.name
        old = claims(self._environment, name)  # what stands on old volumes is not empty
        outcome = install(self._environment, self._at(INSTALL), name)
        self._empty = outcome == INSTALLED and self._plan.policy.volumes == NEW and not old
        return outcome

    def _restore(self) -> str:
        name, environment = self._component.name, self._environment
        plan = self._plan_of(self._standing.set)
        report = run_restore(
            environment,
            self._at(RESTORE),
            environment.verify_identity(),
            plan,
            safety=not self._empty,  # clients may have written since
            keep_contained=False,  # an empty set would be the newest one
        )
        self._standing.replaced = report.outcome in (RESTORED, DIFFERENT)
        if report.outcome != RESTORED:
            self._lease.note(self._standing.text())
            raise PermanentError(report.reason)
        kube = self._environment.kube
        mine = [one for one in volumes.aside(kube, name) if one.rebuild == self._standing.id]
        volumes.mark_compared(kube, mine, datetime.now(UTC).isoformat(timespec="seconds"))
        return f"{self._standing.set} is restored, compared and equal"

    def _dependants(self) -> str:
        for name in self._plan.dependants:
            self._at(DEPENDANTS).tell(name)
            gate.wait(self._environment, self._context, name)
        return ", ".join(self._plan.dependants)

    def _plan_of(self, backup: str) -> RestorePlan:
        """Plan the restore; on new volumes it includes what belongs to the engine as a whole."""
        catalogue = self._environment.catalogue([self._component.name])
        new = self._plan.policy.volumes == NEW
        return plan_restore(self._environment, catalogue, backup, new_engine=new)

    def _at(self, step: str) -> RunContext:
        """The run, whose notes go to the line of a step."""
        return self._context.telling(partial(self._progress.update, step, RUNNING))


# ---------------------------------------------------------------------- inside
def _standing(
    lease: Lease, settings: Settings, policy: Policy, restore: InterruptedRestore | None = None
) -> RebuildState:
    """That of the unfinished rebuild, or of a new one."""
    found = RebuildState.read(lease.previous_operation, settings, policy.component)
    if found is None:
        return RebuildState.new(policy)
    if found.policy != policy:
        raise PermanentError(found.other(policy))
    found.resume(loading=restore is not None and restore.backup == found.set)
    return found


def _steps(plan: RebuildPlan) -> list[str]:
    """The steps of a policy, in order."""
    policy, steps = plan.policy, []
    if policy.final_backup:
        steps += [FENCE] if policy.fenced and plan.units else []
        steps += [BACKUP, PROOF]
    steps += [UNINSTALL]
    steps += [VOLUMES] if policy.volumes == NEW else []
    steps += [INSTALL]
    steps += [RESTORE] if policy.restore != NONE else []
    steps += [DEPENDANTS] if plan.dependants else []
    return steps


def _chain(steps: Iterable[str]) -> Dag:
    graph, before = Dag(), ""
    for step in steps:
        graph.add(step, [before] if before else [])
        before = step
    return graph
