"""Rebuilds a component from scratch, without losing data if it is interrupted.

fence → last backup → its verification → uninstall → retain volumes → install, with the gate → restore and compare →
dependants' gates. Until the uninstall nothing is changed, and any failure removes the fence again. From then on the
backup is verified, the old volumes are retained, and completed steps are recorded on the Lease of the rebuild: the same
command continues after the last completed step. If the uninstall had not ended, it starts at the fence: the engine may
have been in use since. Old volumes are purged only after the comparison, and when their time is over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from cluster.dag import Dag
from cluster.lease import Lease
from cluster.pods import volumes
from config.models import Settings
from errors import PermanentError
from operations.environment import leases
from operations.environment.environment import Environment
from operations.environment.leases import rebuild_lease
from operations.rebuild.actions import ComponentActions
from operations.rebuild.plan import RebuildPlan
from operations.rebuild.report import RebuildReport
from operations.rebuild.resumption import refuse_unfounded
from operations.rebuild.steps import RebuildSteps, step_names
from operations.runner.context import RunContext
from operations.runner.progress import Progress
from operations.runner.walk import NodeResult, Start, Work, walk
from operations.state.rebuild_state import NEW, Policy, RebuildState
from operations.state.restore_journal import InterruptedRestore, interrupted_restore


def run_rebuild(
    environment: Environment,
    context: RunContext,
    plan: RebuildPlan,
    *,
    start: Callable[[Dag, Work], Start],
    actions: ComponentActions | None = None,
) -> RebuildReport:
    """Do what was approved, or continue an earlier run of the same policy.

    Args:
        environment: opened.
        context: of the run.
        plan: what was approved.
        start: how a step is begun (a thread, a Prefect task).
        actions: on the component; those on the environment's own by default.

    Raises:
        LeaseHeld: a deploy or another rebuild is running.
        PermanentError: the plan is blocked, a rebuild with another policy is unfinished, or the Lease's state of this
            one is not true.
    """
    if plan.blocked:
        raise PermanentError(f"nothing was changed: {'; '.join(plan.blocked)}")
    began, name, policy = context.clock(), plan.policy.component, plan.policy
    with (
        environment.lease(leases.DEPLOY, context.who),
        environment.lease(rebuild_lease(name), context.who) as lease,
    ):
        restore = interrupted_restore(environment.kube, environment.settings, name)
        state = resumed_state(lease, environment.settings, policy, restore)
        if state.uninstalled:
            refuse_unfounded(environment, environment.catalogue([name]), state)
        progress = Progress(step_names(plan), context.publish, context.clock)
        steps = RebuildSteps(
            context,
            plan,
            actions=actions
            or ComponentActions(environment, name, new_engine=policy.volumes == NEW),
            state=state,
            lease=lease,
            progress=progress,
        )
        results, shut = _walk(context, step_names(plan), steps, progress, start)
        if all(result.good for result in results) or not (state.changed or shut):
            lease.note("")
        return RebuildReport(
            component=name,
            id=state.id,
            seconds=context.clock() - began,
            steps=tuple(results),
            set=state.set,
            aside=_retained(environment, policy, state.id),
            changed=state.changed,
            shut=shut,
        )


def resumed_state(
    lease: Lease, settings: Settings, policy: Policy, restore: InterruptedRestore | None = None
) -> RebuildState:
    """Return the state of the unfinished rebuild, or of a new one.

    Args:
        lease: of the rebuild.
        settings: of the environment.
        policy: what was approved.
        restore: the component's interrupted restore.

    Raises:
        PermanentError: a rebuild with another policy is unfinished.
    """
    state = RebuildState.read(lease.previous_operation, settings, policy.component)
    if state is None:
        return RebuildState.new(policy)
    if state.policy != policy:
        raise PermanentError(state.conflict(policy))
    state.resume(loading=restore is not None and restore.backup == state.set)
    return state


# ---------------------------------------------------------------------- inside
def _walk(
    context: RunContext,
    names: Sequence[str],
    steps: RebuildSteps,
    progress: Progress,
    start: Callable[[Dag, Work], Start],
) -> tuple[list[NodeResult], str]:
    """Do the steps one after the other; returns their results, and why the fence could not be removed."""
    graph = _chain(names)
    progress.show()
    try:
        results = walk(
            context,
            graph,
            set(names),
            start(graph, steps.do),
            max_parallel=1,
            report=lambda r: progress.ended(r.name, r.outcome, r.seconds, r.reason),
        )
    finally:
        shut = steps.close()
    return results, shut


def _chain(names: Iterable[str]) -> Dag:
    graph, before = Dag(), ""
    for name in names:
        graph.add(name, [before] if before else [])
        before = name
    return graph


def _retained(environment: Environment, policy: Policy, rebuild: str) -> tuple[str, ...]:
    """Return the names of the old volumes that a rebuild retains."""
    if policy.volumes != NEW:
        return ()
    retained = volumes.aside(environment.kube, policy.component)
    return tuple(volume.name for volume in retained if volume.rebuild == rebuild)
