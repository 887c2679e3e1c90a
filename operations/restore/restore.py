"""Restores a backup into the live platform: the plan is shown first, and the current data is backed up.

plan → Lease → read the backup → fence → safety backup, read back → replace → compare → remove the fence → gate. No data
is deleted before every byte of the backup and of the safety backup was read. Existing accounts keep their credentials,
except as the plan lists. A failure names the safety backup, from which the previous data can be restored.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from archive.evidence import Difference
from archive.reader import SetReader
from cluster.credentials import password
from cluster.dag import Dag
from cluster.lease import UnreadableNote, inquire
from components.access import Access
from components.base import Live, RunningScratch
from components.questions import explain
from errors import PermanentError
from operations.documents import runs as documents
from operations.documents.runs import ComponentRestore, Restore
from operations.environment.environment import Environment
from operations.environment.leases import component_lease, rebuild_lease, verify_lease
from operations.health import gate
from operations.restore.plan import RestorePlan
from operations.restore.safety_backup import read_through, take_safety
from operations.runner.context import RunContext
from operations.runner.lines import run_lines
from operations.runner.progress import DONE, NodeProgress, Progress
from operations.runner.stages import Stages
from operations.runner.transfer import Transfer, watched
from operations.runner.walk import Start, Work
from operations.state.restore_journal import InterruptedRestore, broken_off, replacing
from operations.verify.comparison import compare
from operations.verify.scratch import engines
from operations.verify.scratch_pod import Request

log = logging.getLogger(__name__)

RUNNING, FAILED, RESTORED, DIFFERENT = "restoring", "failed", "restored", "different"
BY_HAND = "by-hand"  # nothing was done, and somebody has to


@dataclass(frozen=True)
class RestoreLine(NodeProgress):
    """One line of the table.

    Attributes:
        backup: id of the set.
        safety: id of the safety backup.
    """

    backup: str = ""
    safety: str = ""


@dataclass
class RestoreReport:
    """How a restore ended.

    Attributes:
        backup: id of the set.
        component: of it.
        outcome: restored, different, failed or by-hand.
        safety: id of the safety backup; "" if there was no data.
        first: id of the safety backup of the first attempt, if this run continues an
            interrupted one; "" if that one took none, None if this is the first.
        kept: what is kept of the old data, for people.
        left: units not replaced, because the safety backup could not restore them → why.
        differences: between the backup and the live data.
        stages: seconds of each part.
        reason: why the outcome is not `restored`.
    """

    backup: str
    component: str
    outcome: str = FAILED
    safety: str = ""
    first: str | None = None
    kept: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    differences: tuple[Difference, ...] = ()
    stages: dict[str, float] = field(default_factory=dict)
    reason: str = ""

    @property
    def seconds(self) -> float:
        """Wall time."""
        return round(sum(self.stages.values()), 2)

    def document(self) -> ComponentRestore:
        """As `isa restore --json` prints it."""
        return ComponentRestore(
            backup=self.backup,
            component=self.component,
            outcome=self.outcome,
            safety_backup=self.safety,
            kept=tuple(self.kept),
            left=self.left,
            differences=tuple(
                documents.Difference(unit=one.unit, item=one.item, what=one.what)
                for one in self.differences
            ),
            stages=self.stages,
            seconds=self.seconds,
            reason=self.reason,
        )


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
    manifest = plan.manifest
    component = environment.components[manifest.component]
    report = RestoreReport(manifest.id, manifest.component)
    tell = context.tell
    transfer = Transfer(tell)
    reader = SetReader(
        environment.store, manifest, identity, plan.earlier, watched(transfer, component.name)
    )
    chosen = tuple(one.unit for one in plan.units)
    live = component.live
    stages = Stages(context, report.stages)
    began = False  # to replace
    try:
        # the deploy's own: both change the component
        with environment.lease(component_lease(component.name), context.who) as lease:
            earlier = _earlier(environment, context, component.name)
            with ExitStack() as stack:
                served: RunningScratch | None = None
                if safety and not (live.beside or live.scratch):  # those see a damage in time
                    with stages.stage("read", "read the backup to its last byte"):
                        read_through(reader, live, chosen)
                if live.scratch:
                    with stages.stage(
                        "scratch", "start scratch engines with the backup for copying"
                    ):
                        served = stack.enter_context(
                            _served(environment, context, identity, reader)
                        )
                access = stack.enter_context(environment.access())
                with stages.stage("ask", "check that the engine can take the backup"):
                    refuse_untakeable(live, access, reader, chosen)
                with stages.stage("fence", "block writers"):
                    told = stack.enter_context(live.fence(access, chosen))
                tell(f"fence: {told}")
                before = earlier.safety if earlier else ()
                if earlier and set(chosen) & set(earlier.units):
                    report.first = next(iter(before), "")
                if safety:
                    with stages.stage("safety", "back up the current data"):
                        taken = take_safety(
                            environment,
                            context,
                            identity,
                            component.name,
                            chosen,
                            access=access,
                            earlier=earlier,
                            beyond=None if keep_contained else reader.manifest,
                        )
                        report.safety, report.left = taken.id, taken.lost
                        chosen = tuple(unit for unit in chosen if unit not in taken.lost)
                    if report.safety in before:
                        tell(
                            "the data left by the previous run cannot be backed up: its safety backup is used"
                        )
                before = tuple(
                    dict.fromkeys([*before, *([report.safety] if report.safety else [])])
                )
                what = InterruptedRestore(manifest.id, before, chosen)
                lease.ensure()  # the safety backup may have taken hours
                with (
                    stages.stage("replace"),
                    replacing(
                        environment.kube, environment.settings, component.name, context.who, what
                    ) as cleanup,
                ):
                    began = True
                    report.kept = live.replace(access, served, reader, chosen, cleanup)
                if before and before[0] != report.safety:
                    report.kept.append(
                        f"the data from before the interrupted run is in {before[0]}"
                    )
                with stages.stage("compare", "compare with the backup"):
                    found = live.measure(access, reader, chosen)
                report.differences = compare(live.wanted(reader, chosen), {"": found})
                whole = not (report.differences or report.left)
                report.outcome = RESTORED if whole else DIFFERENT
                if report.differences:
                    first = report.differences[0]
                    report.reason = f"{first.unit}, {first.item}: {first.what}. {_way_back(report)}"
                elif report.left:
                    report.reason = (
                        f"not replaced, because the safety backup {report.safety} would not restore them: "
                        f"{'; '.join(report.left.values())}"
                    )
            with stages.stage("gate"):  # it writes too: the fence had to go first
                gate.wait(environment, context, component.name)
    except Exception as exc:  # a client library's own errors too: the way back must be told
        if not began:
            raise
        done = "the data was replaced, and " if report.outcome != FAILED else ""
        also = f" ({report.reason})" if report.reason else ""
        report.outcome = FAILED
        report.reason = f"{done}{explain(exc)}{also}. {_way_back(report)}"
    return report


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
    by_hand: dict[str, RestoreReport] = {}
    for name, plan in by_component.items():
        if plan.by_hand:
            by_hand[name] = RestoreReport(plan.manifest.id, name, BY_HAND, reason=plan.by_hand)
            progress.update(name, DONE, plan.by_hand, outcome=BY_HAND, seconds=0.0)

    def work(context: RunContext, name: str) -> RestoreReport:
        if inquire(environment.kube, environment.settings, rebuild_lease(name))[1]:
            raise PermanentError(f"a rebuild of {name} is running: nothing was replaced")
        return run_restore(environment, context, identity, by_component[name], safety=safety)

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
        lost=lambda name, end: RestoreReport(
            by_component[name].manifest.id, name, reason=end.reason
        ),
        settle=settle,
    )
    reports = {**by_hand, **done}
    return [reports[name] for name in by_component]


def document(reports: Iterable[RestoreReport], seconds: float) -> Restore:
    """Reports as `isa restore --json` prints them."""
    found = list(reports)
    return Restore(
        state="completed" if all(r.outcome == RESTORED for r in found) else "failed",
        seconds=round(seconds, 2),
        message=open_ends(found) or f"{len(found)} restored in {seconds:.1f} s",
        restores=tuple(report.document() for report in found),
    )


def open_ends(reports: Iterable[RestoreReport]) -> str:
    """What failed, and what a person still has to do; "" if everything is restored."""
    found = list(reports)
    words = [f"{r.component}: {r.reason}" for r in found if r.reason and r.outcome != BY_HAND]
    words += [
        f"{r.component} still has to be restored, from {r.backup}: {r.reason}"
        for r in found
        if r.outcome == BY_HAND
    ]
    restored = sum(r.outcome == RESTORED for r in found)
    return "; ".join([f"{restored} of {len(found)} restored", *words]) if words else ""


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


# ---------------------------------------------------------------------- inside
def _earlier(
    environment: Environment, context: RunContext, component: str
) -> InterruptedRestore | None:
    """Return the interrupted restore. If that is unknown, the current data is backed up as usual."""
    try:
        return broken_off(environment.kube, environment.settings, component)
    except UnreadableNote as exc:
        context.tell(str(exc))
        log.warning("%s", exc)
        return None


@contextmanager
def _served(
    environment: Environment,
    context: RunContext,
    identity: str,
    reader: SetReader,
) -> Iterator[RunningScratch]:
    """A backup in scratch engines, to be copied from."""
    settings, kube, component = environment.settings, environment.kube, reader.manifest.component
    restore = environment.backup_targets[component].restore
    request = Request(settings, kube, reader.chain, environment.store_credentials(), identity)
    wanted = restore.scratch(settings, reader.manifest, password())
    with (
        # otherwise a verification would remove them
        environment.lease(verify_lease(component), context.who),
        engines(request, wanted, restore.ask, context) as made,
    ):
        restore.load(made.access, made.at, reader)
        yield made


def _way_back(report: RestoreReport) -> str:
    """Return how to restore the previous data; a safety backup of half-replaced data does not count."""
    if report.first == "":
        return "The first attempt took no safety backup: run the same command again to continue"
    way_back = report.first or report.safety
    if not way_back:
        return "There was no data before: run the same command again to start over"
    return f"The previous data is in {way_back}: `isa restore {way_back}`"
