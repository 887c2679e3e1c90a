"""The plan of a restore: whether the backup belongs here and is complete, what it replaces, and warnings.

Nothing is changed here. A person approves one of these plans.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from archive.backup import digests
from archive.backup.manifest import IDENTITY, Manifest, component_of
from archive.backup.reader import SetReader
from archive.backup.references import fully_needed
from archive.catalogue.check import look
from archive.catalogue.listing import Catalogue
from archive.wal.point import Point
from archive.wal.target import RecoveryTarget
from components import COMPONENTS
from components.base import Live
from components.questions import explain
from errors import ArgumentError, Fault, IsaError, PermanentError
from operations.documents.plans import ComponentRestorePlan, ReplacedUnit
from operations.environment.environment import Environment
from operations.health.freshness import documents
from operations.verify.point import point_of


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
class PointPlan:
    """What a plan says of a point between two backups.

    Attributes:
        point: that is recovered to, from the plan's backup.
        only: units that were named; those that are restored by default if empty.
    """

    point: Point
    only: tuple[str, ...]


@dataclass(frozen=True)
class RestorePlan:
    """The plan of a restore.

    Attributes:
        manifest: of the set.
        earlier: of those that it needs.
        units: what is replaced.
        not_replaced: units of the backup that are not restored.
        writers: effect on writers.
        proven: whether the set's last verdict is a pass.
        warnings: for the person who approves it.
        by_hand: why isa cannot restore it, and the document that describes how; "" if it can.
        took: how long its parts took the last time, as text; "" if unknown.
        to_point: the point behind the set that comes back; None if the set itself does.
    """

    manifest: Manifest
    earlier: tuple[Manifest, ...]
    units: tuple[Replacement, ...]
    not_replaced: tuple[str, ...]
    writers: str
    proven: bool
    warnings: tuple[str, ...]
    by_hand: str = ""
    took: str = ""
    to_point: PointPlan | None = None

    @property
    def target(self) -> str:
        """What comes back, for people."""
        if self.to_point is None:
            return f"{self.manifest.begun:%Y-%m-%d %H:%M} UTC"
        return self.to_point.point.target.words

    @property
    def source(self) -> str:
        """What it comes back from, for people."""
        return self.to_point.point.source if self.to_point else self.manifest.id

    def document(self) -> ComponentRestorePlan:
        """As `isa restore --plan --json` prints it."""
        return ComponentRestorePlan(
            backup=self.manifest.id,
            component=self.manifest.component,
            recovery_point=self.manifest.begun,
            replaced=tuple(
                ReplacedUnit(unit=replacement.unit, bytes=replacement.size)
                for replacement in self.units
            ),
            not_replaced=self.not_replaced,
            writers=self.writers,
            proven=self.proven,
            warnings=self.warnings,
            by_hand=self.by_hand,
            took=self.took,
            point=self.to_point.point.target.text if self.to_point else "",
            wal=self.to_point.point.wal_words if self.to_point else "",
        )


def plan_restore(
    environment: Environment,
    catalogue: Catalogue,
    backup: str,
    only: Iterable[str] = (),
    *,
    other_cluster: bool = False,
    new_engine: bool = False,
    to_point: PointPlan | None = None,
) -> RestorePlan:
    """Make the plan of restoring a backup. Nothing is changed.

    Args:
        environment: opened.
        catalogue: of the component's sets, or of all.
        backup: id of the set.
        only: units; those that are restored by default if empty.
        other_cluster: whether to accept a backup of another cluster of this environment: after a disaster.
        new_engine: whether the engine was installed after the backup, and holds no changes of operators: then what
            belongs to it as a whole is restored too. This is so for a backup of another cluster.
        to_point: the point behind the backup that comes back instead of the backup.

    Raises:
        ArgumentError: a unit is unknown.
        PermanentError: the backup is from another platform, not complete, or its last verification failed or is
            unknown.
    """
    manifest, earlier = _complete_chain(environment, backup, other_cluster)
    live = environment.components[manifest.component].live
    sizes = live.units(SetReader(environment.store, manifest, ""))
    new_engine = new_engine or manifest.cluster != environment.cluster_uid
    chosen = _chosen(sizes, live, tuple(only), new_engine=new_engine)
    if refused := catalogue.refused(backup):
        raise PermanentError(refused)
    not_replaced = tuple(unit for unit in sizes if unit not in chosen)
    of_backup = _base_warnings if to_point else _backup_warnings
    warnings = [
        *of_backup(catalogue, manifest),
        *_unit_warnings(live, not_replaced),
        *_remarks(environment, live, manifest, earlier, chosen),
    ]
    if to_point and not to_point.only:
        warnings.append(
            f"a database that was created after {backup} comes back, too, and one that was dropped before the point "
            "stays as it is: what there was is known when the point is recovered"
        )
    return RestorePlan(
        manifest=manifest,
        earlier=earlier,
        units=tuple(Replacement(unit, sizes[unit]) for unit in chosen),
        not_replaced=not_replaced,
        writers=live.writers,
        proven=catalogue.verdict(backup) == "pass",
        warnings=tuple(warnings),
        by_hand=live.by_hand(environment.settings),
        took="" if to_point else _took(environment, catalogue, backup),
        to_point=to_point,
    )


def plans_of(
    environment: Environment,
    backup: str,
    units: Iterable[str],
    *,
    other_cluster: bool,
    at: str = "",
) -> list[RestorePlan]:
    """Make the plan of one backup, or if none is named, of every engine.

    Args:
        environment: opened.
        backup: id of the set; "" for each engine's newest whole one: the last that was proven if any was, or else the
            last that is not refused.
        units: of the set; those that are restored by default if empty.
        other_cluster: whether to accept backups of another cluster of this environment: after a disaster.
        at: a point between two backups of PostgreSQL, if no backup is named.

    Raises:
        ArgumentError: the id or a unit is unknown, or that engine is restored by hand; `at` is no point.
        NotCovered: the point is not covered; with the ranges that are.
        PermanentError: a backup is from another platform or not complete, or an engine has none.
    """
    if backup:
        component = engine_of(backup)
        refusal = environment.components[component].live.by_hand(environment.settings)
        if refusal:
            raise ArgumentError([Fault("backup", f"{backup!r} cannot be restored by isa", refusal)])
        catalogue = environment.catalogue([component])
        return [plan_restore(environment, catalogue, backup, units, other_cluster=other_cluster)]
    if at:
        return [_plan_point(environment, at, tuple(units), other_cluster=other_cluster)]
    catalogue = environment.catalogue(environment.components)
    proven = catalogue.proven
    plans = []
    for component in environment.components:
        complete = [
            manifest for manifest in catalogue.of(component) if manifest.outcome == "complete"
        ]
        if not complete:
            raise PermanentError(f"there is no complete backup of {component}")
        verified = [manifest for manifest in complete if manifest.id in proven]
        chosen = (
            verified
            or [manifest for manifest in complete if not catalogue.refused(manifest.id)]
            or complete
        )[-1]
        plans.append(plan_restore(environment, catalogue, chosen.id, other_cluster=other_cluster))
    return plans


def engine_of(backup: str) -> str:
    """Return the component of a backup id.

    Raises:
        ArgumentError: it is not a backup id, or not of an engine.
    """
    match = IDENTITY.fullmatch(backup)
    if match is None or match["component"] not in COMPONENTS:
        hint = "`isa backups` lists them"
        raise ArgumentError([Fault("backup", f"{backup!r} is not a backup of an engine", hint)])
    return match["component"]


# ---------------------------------------------------------------------- inside
def _plan_point(
    environment: Environment, at: str, only: tuple[str, ...], *, other_cluster: bool
) -> RestorePlan:
    """Make the plan of restoring a point."""
    point = point_of(environment, RecoveryTarget.parse(at))
    base = point.base.manifest
    return plan_restore(
        environment, environment.catalogue([base.component]), base.id, only,
        other_cluster=other_cluster, to_point=PointPlan(point, only),
    )  # fmt: skip


def _complete_chain(
    environment: Environment, backup: str, other_cluster: bool
) -> tuple[Manifest, tuple[Manifest, ...]]:
    """Return the manifests of a backup of this platform whose objects all exist."""
    manifest, earlier = environment.backup_chain(backup)
    _check_identity(environment, manifest, component_of(backup), other_cluster)
    links = (*fully_needed(manifest, earlier), manifest)
    faults = [fault for link in links for fault in look(environment.store, link)]
    if faults:
        message = "; ".join(f"{fault.artefact} {fault.what}" for fault in faults)
        raise PermanentError(f"{backup} is not complete: {message}")
    return manifest, earlier


def _backup_warnings(catalogue: Catalogue, manifest: Manifest) -> Iterator[str]:
    """What to know about the backup: partial, not verified, not the newest."""
    for reason in manifest.missing:
        yield f"the backup is partial: {reason}"
    if catalogue.verdict(manifest.id) != "pass":
        yield "no restore of this backup was ever verified: `isa verify` does that without risk"
    newest = catalogue.latest(manifest.component)
    if newest is not None and newest.id != manifest.id:
        yield f"there is a newer backup, of {newest.begun:%Y-%m-%d %H:%M} UTC: {newest.id}"


def _base_warnings(catalogue: Catalogue, manifest: Manifest) -> Iterator[str]:
    """What to know about the backup that a recovery to a point begins with."""
    if catalogue.verdict(manifest.id) != "pass":
        yield f"no restore of {manifest.id}, which the recovery begins with, was ever verified"


def _unit_warnings(live: Live, not_replaced: Iterable[str]) -> Iterator[str]:
    """Which accounts get the backup's passwords, and which units are restored by name only."""
    if live.accounts:
        yield live.accounts
    for unit in not_replaced:
        if unit in live.server_wide:
            yield f"{unit} is not changed unless it is restored by name: --unit '{unit}'"


def _check_identity(
    environment: Environment, manifest: Manifest, component: str, other_cluster: bool
) -> None:
    """Refuse a backup of another platform."""
    name = environment.settings.environment
    if manifest.environment != name or manifest.component != component:
        raise PermanentError(
            f"{manifest.id} is from {manifest.component} in {manifest.environment}, not {component} in {name}"
        )
    uid = environment.cluster_uid
    if manifest.cluster != uid and not other_cluster:
        raise PermanentError(
            f"{manifest.id} is from another cluster ({manifest.cluster[:8]}…, this is {uid[:8]}…): if this cluster "
            "replaces that one, use --other-cluster"
        )


def _took(environment: Environment, catalogue: Catalogue, backup: str) -> str:
    """Estimate how long the safety backup and the restore take."""
    parts, newest = [], catalogue.latest(component_of(backup))
    if newest is not None:
        parts.append(f"the last backup took {newest.seconds:.0f} s")
    proof = catalogue.last(backup)
    evidence = documents(environment)(proof) if proof else None
    if evidence is not None:
        parts.append(
            f"the last verification of this backup took {evidence.seconds:.0f} s, restored and compared"
        )
    return "; ".join(parts)


def _remarks(
    environment: Environment,
    live: Live,
    manifest: Manifest,
    earlier: tuple[Manifest, ...],
    chosen: tuple[str, ...],
) -> list[str]:
    """Ask the live engine for remarks; if it does not answer, the plan is still made."""
    if live.remarks is None:
        return []
    try:
        if digests.apart(manifest):
            key = environment.verify_identity()
            manifest = SetReader(environment.store, manifest, key, earlier).manifest
    except IsaError as exc:
        return [f"other changes are unknown, because its digests cannot be read: {exc}"]
    try:
        with environment.access() as access:
            return live.remarks(access, manifest, chosen)
    except Exception as exc:  # whatever a client library raises
        return [f"other changes are unknown, because the engine did not answer: {explain(exc)}"]


def _chosen(
    sizes: dict[str, int], live: Live, only: tuple[str, ...], *, new_engine: bool
) -> tuple[str, ...]:
    """Find units by their names, or by the last word of these."""
    if not only:
        excluded = () if new_engine else live.server_wide
        return tuple(unit for unit in sizes if unit not in excluded)
    by_name = {**{unit.partition(" ")[2]: unit for unit in sizes}, **{unit: unit for unit in sizes}}
    unknown = [name for name in only if name not in by_name]
    if unknown:
        hint = f"the backup has {', '.join(sizes)}"
        raise ArgumentError([Fault("--unit", f"unknown: {name!r}", hint) for name in unknown])
    return tuple(dict.fromkeys(by_name[name] for name in only))
