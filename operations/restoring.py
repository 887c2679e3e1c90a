"""Restores a set into the live platform: what is replaced is shown first, and backed up before it goes.

plan → Lease → fence → safety backup, read back → replace → compare → fence down. Credentials stay the live ones, but
for what the plan says. A failure names the safety set, which brings back what was there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from archive.catalogue import find_set
from archive.check import look
from archive.evidence import Difference
from archive.manifest import IDENTITY, Manifest
from archive.reader import SetReader
from cluster.command import CANCELLATION, Cancelled
from cluster.credentials import password
from cluster.dag import Dag
from cluster.lease import Lease
from components import COMPONENTS, RESTORES
from components.access import Access
from components.base import Live, Served
from config.models import Settings
from errors import ConfigurationError, Fault, IsaError, PermanentError
from operations.backup import ENGINE_SECONDS, Vault, back_up
from operations.progress import DONE, NodeProgress, Progress
from operations.proof import compare, read_identity
from operations.schedule import NodeResult, Start, Work, walk
from operations.scratch import Request, engines, store_credentials, sweep
from operations.transfer import Transfer

TITLES = {
    "fence": "keep writers away",
    "safety": "back up what will be replaced",
    "scratch": "serve the set for copying",
    "replace": "replace",
    "compare": "compare with the set",
}


RUNNING, FAILED, RESTORED, DIFFERENT = "restoring", "failed", "restored", "different"


@dataclass(frozen=True)
class RestoreLine(NodeProgress):
    """One line of the table.

    Attributes:
        backup: id of the set.
        safety: id of the set with what was there before.
    """

    backup: str = ""
    safety: str = ""


@dataclass(frozen=True)
class Replacement:
    """One unit.

    Attributes:
        unit: database, stream, bucket, collection.
        size: bytes in the set.
    """

    unit: str
    size: int


@dataclass(frozen=True)
class RestorePlan:
    """What a restore would do.

    Attributes:
        manifest: of the set.
        earlier: of those that it needs.
        units: what is replaced.
        left: units of the set that stay as they are.
        writers: what happens to writers meanwhile.
        proven: whether the set's last verdict is a pass.
        warnings: what whoever approves it should know.
    """

    manifest: Manifest
    earlier: tuple[Manifest, ...]
    units: tuple[Replacement, ...]
    left: tuple[str, ...]
    writers: str
    proven: bool
    warnings: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """As `isa restore --json` prints it."""
        return {
            "backup": self.manifest.id,
            "component": self.manifest.component,
            "recovery_point": self.manifest.begun,
            "replaced": [{"unit": one.unit, "bytes": one.size} for one in self.units],
            "left_alone": list(self.left),
            "writers": self.writers,
            "proven": self.proven,
            "warnings": list(self.warnings),
        }


@dataclass
class RestoreReport:
    """How a restore ended.

    Attributes:
        backup: id of the set.
        component: of it.
        outcome: restored, different or failed.
        safety: id of the set with what was there before; "" if nothing was.
        kept: what is kept of the old data, for people.
        differences: between the set and what is there now.
        stages: seconds of each part.
        reason: why it is not plainly restored.
    """

    backup: str
    component: str
    outcome: str = FAILED
    safety: str = ""
    kept: list[str] = field(default_factory=list)
    differences: tuple[Difference, ...] = ()
    stages: dict[str, float] = field(default_factory=dict)
    reason: str = ""

    @property
    def seconds(self) -> float:
        """Wall time."""
        return round(sum(self.stages.values()), 2)

    def as_json(self) -> dict[str, Any]:
        """As `isa restore --json` prints it."""
        return {
            "backup": self.backup,
            "component": self.component,
            "outcome": self.outcome,
            "safety": self.safety,
            "kept": self.kept,
            "differences": [one.model_dump() for one in self.differences],
            "stages": self.stages,
            "seconds": self.seconds,
            "reason": self.reason,
        }


def plan_restore(
    vault: Vault, backup: str, only: Iterable[str] = (), *, other_cluster: bool = False
) -> RestorePlan:
    """Look at a set, and say what restoring it would do. Nothing is changed.

    Args:
        vault: the environment.
        backup: id of the set.
        only: units; those that are restored by default if empty.
        other_cluster: whether a set of another cluster of this environment may be taken: after a disaster.

    Raises:
        ConfigurationError: the id or a unit is unknown.
        PermanentError: the set is not this platform's, or not whole.
    """
    match = IDENTITY.fullmatch(backup)
    if match is None or match["component"] not in COMPONENTS:
        hint = "`isa backups` lists them"
        raise ConfigurationError([Fault("backup", f"{backup!r} is no set of an engine", hint)])
    manifest = find_set(vault.store, vault.settings.environment, backup)
    earlier = tuple(
        find_set(vault.store, vault.settings.environment, one) for one in manifest.needs
    )
    _check_identity(vault, manifest, match["component"], other_cluster)
    faults = [fault for one in (*earlier, manifest) for fault in look(vault.store, one)]
    if faults:
        words = "; ".join(f"{fault.artefact} {fault.what}" for fault in faults)
        raise PermanentError(f"{backup} is not whole: {words}")
    live = COMPONENTS[manifest.component].live
    there = live.units(SetReader(vault.store, manifest, ""))
    chosen = _chosen(there, live, tuple(only))
    catalogue = vault.catalogue([manifest.component])
    verdicts = [proof.verdict for proof in catalogue.proofs.get(backup, ())]
    warnings = [f"the set is partial: {why}" for why in manifest.missing]
    if "fail" in verdicts[-1:]:
        raise PermanentError(f"the last proof of {backup} failed: take another set (`isa proofs`)")
    if backup not in catalogue.proven:
        warnings.append("no restore of this set was ever proven: `isa verify` would, without risk")
    newest = catalogue.latest(manifest.component)
    if newest is not None and newest.id != backup:
        warnings.append(f"there is a newer set, of {newest.begun:%Y-%m-%d %H:%M} UTC: {newest.id}")
    return RestorePlan(
        manifest,
        earlier,
        tuple(Replacement(unit, there[unit]) for unit in chosen),
        tuple(unit for unit in there if unit not in chosen),
        live.writers,
        backup in catalogue.proven,
        tuple(warnings),
    )


def plans_of(
    vault: Vault, backup: str, units: Iterable[str], *, other_cluster: bool
) -> list[RestorePlan]:
    """The plan of one set, or where none is named those of every engine."""
    if backup:
        return [plan_restore(vault, backup, units, other_cluster=other_cluster)]
    return plan_all(vault, other_cluster=other_cluster)


def plan_all(vault: Vault, *, other_cluster: bool = False) -> list[RestorePlan]:
    """What bringing every engine back to its newest whole set would do; for each the last one that was proven, if any.

    Raises:
        PermanentError: an engine has no whole set.
    """
    catalogue = vault.catalogue(COMPONENTS)
    plans = []
    for component in COMPONENTS:
        whole = [one for one in catalogue.of(component) if one.outcome == "complete"]
        proven = [one for one in whole if one.id in catalogue.proven]
        if not whole:
            raise PermanentError(f"there is no whole set of {component}")
        chosen = (proven or whole)[-1]
        plans.append(plan_restore(vault, chosen.id, other_cluster=other_cluster))
    return plans


def run_restore(
    vault: Vault,
    identity: str,
    plan: RestorePlan,
    *,
    run: str,
    tell: Callable[[str], None],
    safety: bool = True,
    clock: Callable[[], float] = time.monotonic,
) -> RestoreReport:
    """Do what a plan says.

    Args:
        vault: the environment.
        identity: age private key that opens the set.
        plan: what was approved.
        run: who does it, for the Leases.
        tell: gets notes for people.
        safety: whether what is there is backed up first; not where there is nothing.

    Raises:
        LeaseHeld: a deploy or another restore of the component is under way.
        IsaError: nothing was replaced.
    """
    manifest = plan.manifest
    component = COMPONENTS[manifest.component]
    report = RestoreReport(manifest.id, manifest.component)
    transfer = Transfer(tell)
    reader = SetReader(vault.store, manifest, identity, plan.earlier, _watched(transfer))
    chosen = tuple(one.unit for one in plan.units)
    live = component.live

    def stage(name: str, began: float) -> float:
        now = clock()
        report.stages[name] = round(now - began, 2)
        return now

    with _lease(vault, component.name, run), ExitStack() as stack:
        began = clock()
        served: Served | None = None
        if live.scratch:
            tell(TITLES["scratch"])
            request = Request(
                vault.settings,
                vault.kube,
                manifest,
                store_credentials(vault.kube, vault.settings),
                identity,
            )
            restore = RESTORES[manifest.component]
            sweep(request)
            wanted = restore.scratch(vault.settings, manifest, password())
            made = stack.enter_context(engines(request, wanted, restore.ask, tell))
            restore.load(made.access, made.at, reader)
            served = Served(made.access, made.at)
            began = stage("scratch", began)
        access = stack.enter_context(Access(vault.settings, vault.kube, ENGINE_SECONDS))
        tell(TITLES["fence"])
        told = stack.enter_context(live.fence(access, chosen))
        tell(f"fence: {told}")
        began = stage("fence", began)
        if safety:
            tell(TITLES["safety"])
            report.safety = _safety(vault, identity, component.name, run, transfer)
            began = stage("safety", began)
        tell(TITLES["replace"])
        try:
            report.kept = live.replace(access, served, reader, chosen)
            began = stage("replace", began)
            tell(TITLES["compare"])
            found = live.measure(access, reader, chosen)
        except IsaError as exc:
            report.reason = f"{exc}. {_way_back(report)}"
            stage("replace", began)
            return report
        stage("compare", began)
        report.differences = compare(live.wanted(reader, chosen), {"": found})
        report.outcome = DIFFERENT if report.differences else RESTORED
        if report.differences:
            first = report.differences[0]
            report.reason = f"{first.unit}, {first.item}: {first.what}. {_way_back(report)}"
    return report


def run_restores(
    vault: Vault,
    plans: Iterable[RestorePlan],
    *,
    run: str,
    start: Callable[[Dag, Work], Start],
    publish: Callable[[list[NodeProgress]], None] = lambda lines: None,
    safety: bool = True,
    clock: Callable[[], float] = time.monotonic,
) -> list[RestoreReport]:
    """Do several plans, of different components, a few at the same time.

    Args:
        vault: the environment.
        plans: what was approved.
        run: who does it, for the Leases.
        start: how one is begun (a thread, a Prefect task).
        publish: gets the progress.
        safety: whether what is there is backed up first.

    Raises:
        PermanentError: the private key is not there; nothing was replaced.
    """
    identity = read_identity(vault)
    by_component = {plan.manifest.component: plan for plan in plans}
    progress = Progress(
        by_component,
        publish,
        clock,
        lambda name: RestoreLine(name, backup=by_component[name].manifest.id),
    )
    progress.show()
    reports: dict[str, RestoreReport] = {}
    graph = Dag()
    for name in by_component:
        graph.add(name)

    def work(name: str) -> NodeResult:
        def tell(note: str) -> None:
            progress.update(name, RUNNING, note)

        tell("")
        plan = by_component[name]
        reports[name] = run_restore(
            vault, identity, plan, run=run, tell=tell, safety=safety, clock=clock
        )
        report = reports[name]
        return NodeResult(name, report.outcome, progress.seconds(name), report.reason)

    def settle(ended: NodeResult) -> None:
        report = reports.setdefault(
            ended.name,
            RestoreReport(by_component[ended.name].manifest.id, ended.name, reason=ended.reason),
        )
        progress.update(
            ended.name,
            DONE,
            report.reason or "; ".join(report.kept),
            outcome=report.outcome,
            seconds=ended.seconds,
            safety=report.safety,
        )

    try:
        walk(
            graph,
            set(by_component),
            start(graph, work),
            max_parallel=vault.settings.verify.max_parallel,
            report=settle,
            clock=clock,
        )
    except BaseException:
        CANCELLATION.cancel()
        raise
    return [reports[name] for name in by_component]


def as_json(reports: Iterable[RestoreReport], seconds: float) -> dict[str, Any]:
    """Reports as `isa restore --json` prints them."""
    found = list(reports)
    return {
        "state": "completed" if all(r.outcome == RESTORED for r in found) else "failed",
        "seconds": round(seconds, 2),
        "restores": [report.as_json() for report in found],
    }


# ---------------------------------------------------------------------- inside
def _check_identity(vault: Vault, manifest: Manifest, component: str, other_cluster: bool) -> None:
    """Refuse what was not taken of this very platform."""
    environment = vault.settings.environment
    if manifest.environment != environment or manifest.component != component:
        raise PermanentError(
            f"{manifest.id} is of {manifest.component} in {manifest.environment}, not of {component} in {environment}"
        )
    if manifest.cluster != vault.cluster and not other_cluster:
        raise PermanentError(
            f"{manifest.id} was taken of another cluster ({manifest.cluster[:8]}…, this is {vault.cluster[:8]}…): "
            "if that one is gone and this one shall take its place, say --other-cluster"
        )


def _chosen(there: dict[str, int], live: Live, only: tuple[str, ...]) -> tuple[str, ...]:
    """Units by their names, or by the last word of these."""
    if not only:
        return tuple(unit for unit in there if unit not in live.unless_named)
    by_name = {**{unit.partition(" ")[2]: unit for unit in there}, **{unit: unit for unit in there}}
    unknown = [name for name in only if name not in by_name]
    if unknown:
        hint = f"the set has {', '.join(there)}"
        raise ConfigurationError([Fault("--unit", f"unknown: {name!r}", hint) for name in unknown])
    return tuple(dict.fromkeys(by_name[name] for name in only))


def _safety(vault: Vault, identity: str, component: str, run: str, transfer: Transfer) -> str:
    """Back up what will be replaced, and read it back; returns the set's id."""
    able = vault.check()
    taken = back_up(vault, component, able, slot="", run=run, transfer=transfer)
    manifest = find_set(vault.store, vault.settings.environment, taken.id)
    SetReader(vault.store, manifest, identity).read_rest()
    return taken.id


def _way_back(report: RestoreReport) -> str:
    if not report.safety:
        return "Nothing was there before: the same command again starts anew"
    return f"What was there before is in {report.safety}: `isa restore {report.safety} --into live`"


def _watched(transfer: Transfer) -> Callable[[str, int], None]:
    def watch(artefact: str, size: int) -> None:
        if CANCELLATION.is_set():
            raise Cancelled(f"cancelled in {artefact}")
        transfer.add(artefact, size)

    return watch


def _lease(vault: Vault, component: str, run: str) -> Lease:
    settings: Settings = vault.settings
    return Lease(
        vault.kube,
        settings.kubernetes.control_namespace,
        f"isa-{component}",  # the deploy's own: both change the component
        purpose=run,
        duration=settings.deploy.lease_seconds,
    )
