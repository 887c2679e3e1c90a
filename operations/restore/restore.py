"""Restores backups of several components into the live platform, a few at the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cluster.dag import Dag
from cluster.lease import inquire
from errors import PermanentError
from operations.environment.environment import Environment
from operations.environment.leases import rebuild_lease
from operations.restore.component import run_restore
from operations.restore.plan import RestorePlan
from operations.restore.point import recover
from operations.restore.report import BY_HAND, FAILED, RUNNING, RestoreLine, RestoreReport
from operations.runner.context import RunContext
from operations.runner.lines import run_lines
from operations.runner.progress import DONE, Progress
from operations.runner.walk import Start, Work


def run_restores(
    environment: Environment,
    context: RunContext,
    plans: Iterable[RestorePlan],
    *,
    start: Callable[[Dag, Work], Start],
    safety: bool = True,
) -> list[RestoreReport]:
    """Carry out several plans, of different components, a few at the same time; those restored by hand are skipped.

    Args:
        environment: opened.
        context: of the run.
        plans: what was approved.
        start: how one is begun (a thread, a Prefect task).
        safety: whether to back up the current data first.

    Raises:
        PermanentError: the private key does not exist; nothing was replaced.
    """
    identity = environment.verify_identity()
    by_component = {plan.manifest.component: plan for plan in plans}
    progress = Progress(
        by_component,
        context.publish,
        context.clock,
        lambda name: RestoreLine(name, backup=by_component[name].manifest.id),
    )
    by_hand = {name: _by_hand(plan) for name, plan in by_component.items() if plan.by_hand}
    for name, report in by_hand.items():
        progress.update(name, DONE, report.reason, outcome=BY_HAND, seconds=0.0)

    def work(context: RunContext, name: str) -> RestoreReport:
        if inquire(environment.kube, environment.settings, rebuild_lease(name))[1]:
            raise PermanentError(f"a rebuild of {name} is running: nothing was replaced")
        plan = by_component[name]
        if plan.to_point is not None:
            plan = recover(environment, context, identity, plan, plan.to_point)
        return run_restore(environment, context, identity, plan, safety=safety)

    def settle(name: str, report: RestoreReport, seconds: float) -> None:
        progress.update(
            name,
            DONE,
            report.reason or "; ".join(report.kept),
            outcome=report.outcome,
            seconds=seconds,
            safety=report.safety,
        )

    done = run_lines(
        context,
        {name: (name,) for name in by_component if name not in by_hand},
        work,
        phase=RUNNING,
        progress=progress,
        start=start,
        max_parallel=environment.settings.verify.max_parallel,
        lost=lambda name, end: _report(by_component[name], reason=end.reason),
        settle=settle,
    )
    reports = {**by_hand, **done}
    return [reports[name] for name in by_component]


def _by_hand(plan: RestorePlan) -> RestoreReport:
    return _report(plan, outcome=BY_HAND, reason=plan.by_hand)


def _report(plan: RestorePlan, *, outcome: str = FAILED, reason: str) -> RestoreReport:
    """The report of a restore that was not begun, or ended without one."""
    return RestoreReport(plan.manifest.id, plan.manifest.component, outcome, reason=reason)
