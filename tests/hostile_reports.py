"""What commands, flows and pages show, with a hostile name in every text: manifests, plans, reports, histories.

A test compares what is shown of them with what is shown of the same with harmless names (`harmless`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from archive.backup.manifest import Artefact, Engine, Manifest
from archive.catalogue.listing import Catalogue
from archive.evidence.verdicts import Difference, Evidence, Proof
from archive.retention.garbage import Garbage
from archive.retention.locks import Extension
from archive.retention.policy import Verdict
from cluster.dag import Dag
from cluster.pods.volumes import Volume
from components.base import Check, Role
from components.pods import Member
from operations.backup.component import BackupResult
from operations.backup.nightly import BackupReport
from operations.backup.retention import RetentionPlan
from operations.deploy.plan import NodePlan, Plan
from operations.deploy.run import DeployReport
from operations.documents import environment as documents
from operations.documents.wal import WalRange, WalStatus, WalStream, WalSystem
from operations.environment.charts import ChartState
from operations.health.findings import Finding as DoctorFinding
from operations.health.freshness import Freshness
from operations.health.gate import Finding
from operations.health.status import ComponentStatus
from operations.rebuild.plan import RebuildPlan
from operations.rebuild.reinstall import UndoPlan
from operations.rebuild.report import RebuildReport
from operations.report.history import BackupPoint, ComponentHistory, ProofPoint
from operations.report.report import DeployRun, Report
from operations.restore.credentials import Reinstated
from operations.restore.plan import Replacement, RestorePlan
from operations.restore.report import RestoreReport
from operations.runner.progress import NodeProgress
from operations.runner.walk import NodeResult
from operations.state.rebuild_state import Policy
from operations.verify.proofs import ProofReport, ProofResult

NOW = datetime(2026, 11, 24, 6, tzinfo=UTC)
ENDED = NOW + timedelta(seconds=9)


@dataclass(frozen=True)
class Reports:
    """Everything that is shown, with a name in each of its texts.

    Attributes:
        names: one row each, where there are rows.
    """

    names: Sequence[str]

    @property
    def all(self) -> str:
        """All names in one text."""
        return " ".join(self.names)

    def manifest(self, name: str) -> Manifest:
        """Not as it would be read: what is shown does not rely on the patterns of what is read."""
        engine = Engine.model_construct(name=name, version=name, edition=name, identity=name)
        artefact = Artefact.model_construct(name=name, unit=name, plain_size=1, stored_size=1)
        return Manifest.model_construct(
            id=name, component=name, environment=name, cluster=name, slot=f"slot {name}", kind=name,
            begun=NOW, ended=ENDED, outcome=name, missing=(name,), not_covered=(name,), engine=engine,
            artefacts=(artefact,), needs=(),
        )  # fmt: skip

    @property
    def catalogue(self) -> Catalogue:
        return Catalogue(
            sets=tuple(map(self.manifest, self.names)),
            broken={f"{n} {at}": n for at, n in enumerate(self.names)},
            uncommitted=tuple(self.names),
            disbelieved={self.all: self.all},
        )

    @property
    def checks(self) -> list[Check]:
        return [Check(n, at % 3 == 0, n, 0.1, at % 2 == 0) for at, n in enumerate(self.names)]

    @property
    def results(self) -> tuple[NodeResult, ...]:
        return tuple(NodeResult(n, "failed", 1.0, n) for n in self.names)

    @property
    def lines(self) -> list[NodeProgress]:
        return [NodeProgress(n, "done", "failed", 1.0, n, 1.0) for n in self.names]

    @property
    def plan(self) -> Plan:
        nodes = tuple(NodePlan(n, n, (n,) * 9) for n in self.names)
        return Plan(nodes, tuple(self.checks))

    @property
    def graph(self) -> Dag:
        dag = Dag()
        for name in ("namespace", *self.names):
            dag.add(name)
        return dag

    @property
    def wal(self) -> WalStatus:
        checks = tuple(documents.Check.of(check) for check in self.checks)
        kept = WalRange(timelines=(1,), start="0/0", end="0/1", covers=NOW, begun=NOW, objects=1)
        systems = tuple(
            WalSystem(system=n, ranges=(kept,), gaps=(n,), forks=(n,), unknown_timelines=())
            for n in self.names
        )
        stream = WalStream(
            component="postgresql", holder=self.all, recovery_point=NOW, recovery_point_seconds=1.0, note=None
        )  # fmt: skip
        return WalStatus(
            enabled=True, stream=stream, systems=systems, refused=tuple(self.names), checks=checks
        )  # fmt: skip

    @property
    def status(self) -> list[ComponentStatus]:
        checks = tuple(self.checks)
        return [
            ComponentStatus(
                n,
                Finding((*checks[:2], Check(n, False, n)), (Role(n, n, n),)),
                (Member(n, n, n, False, 3, n),),
            )
            for n in self.names
        ]

    @property
    def deploy(self) -> DeployReport:
        return DeployReport(4.0, self.results, tuple(self.names))

    @property
    def backup(self) -> BackupReport:
        rows = (BackupResult(n, n, n, 9, 3, 2.0, n, n) for n in self.names)
        return BackupReport(9.0, tuple(rows))

    @property
    def proof(self) -> ProofReport:
        rows = (ProofResult(n, n, n, n, 0, 2.0, n, n) for n in self.names)
        return ProofReport(9.0, tuple(rows))

    @property
    def restore_plans(self) -> list[RestorePlan]:
        plans = [
            RestorePlan(
                manifest=self.manifest(n), earlier=(), units=(Replacement(n, 9),), not_replaced=(n,),
                writers=n, proven=False, warnings=(n, n), took=n,
            )
            for n in self.names
        ]  # fmt: skip
        by_hand = RestorePlan(
            self.manifest(self.all), (), (), (), "", False, (), by_hand=f"x {self.all}"
        )
        return [*plans, by_hand]

    @property
    def restores(self) -> list[RestoreReport]:
        return [
            RestoreReport(
                backup=n, component=n, outcome="different", safety=n, kept=[n], not_replaced={n: n},
                differences=(Difference(unit=n, item=n, what=n),), stages={"replace": 2.0}, reason=n,
            )
            for n in self.names
        ]  # fmt: skip

    @property
    def rebuild_plan(self) -> RebuildPlan:
        pairs = {f"{n} {at}": n for at, n in enumerate(self.names)}
        many = tuple(self.names)
        return RebuildPlan(Policy("nats"), pairs, pairs, many, self.all, self.all, many, many, many)

    @property
    def rebuild(self) -> RebuildReport:
        return RebuildReport("nats", "rebuild-1", 9.0, self.results, self.all, (self.all,), True)

    @property
    def way(self) -> UndoPlan:
        volumes = (Volume(n, n, n, n, n, True, {}) for n in self.names)
        return UndoPlan(self.all, tuple(volumes))

    @property
    def retention(self) -> RetentionPlan:
        verdicts = (
            Verdict(self.manifest(n), (n,) if at % 2 else ()) for at, n in enumerate(self.names)
        )
        return RetentionPlan(tuple(verdicts), Garbage((), tuple(self.names), 9))

    @property
    def held(self) -> dict[str, str]:
        return {n: n for at, n in enumerate(self.names) if at % 4 == 0}

    @property
    def extension(self) -> Extension:
        return Extension(NOW, 3, {f"{n} {at}": n for at, n in enumerate(self.names)})

    @property
    def doctor(self) -> list[DoctorFinding]:
        return [DoctorFinding(check) for check in self.checks]

    @property
    def charts(self) -> list[ChartState]:
        return [ChartState(n, True, n) for n in self.names]

    @property
    def reinstated(self) -> Reinstated:
        return Reinstated(tuple(self.names), tuple(self.names))

    def fresh(self, name: str) -> Freshness:
        evidence = Evidence.model_construct(
            set=name, verdict="fail", level=name, seconds=1.0, reason=name, compared=1, things=1,
            failed_at=name, words=name, scratch=name, counted_only=(name,), from_artefact=0, begun=NOW,
            differences=(Difference(unit=name, item=name, what=name),), component=name, environment=name,
        )  # fmt: skip
        return Freshness(name, "failing", NOW, 9, Proof(NOW, name, name), NOW, evidence)

    @property
    def freshness(self) -> tuple[Freshness, ...]:
        return tuple(map(self.fresh, self.names))

    @property
    def histories(self) -> tuple[ComponentHistory, ...]:
        """Some names only: each is three pictures."""
        return tuple(
            ComponentHistory(
                self.fresh(n),
                (BackupPoint(n, NOW, 1.0, 9, 9, n, n),),
                (ProofPoint(n, NOW, "fail", n, 1.0, n), ProofPoint(n, ENDED, "pass", n, 1.0, n)),
                NOW,
            )
            for n in self.names
        )

    @property
    def report(self) -> Report:
        run = DeployRun(self.all, NOW, 61.0, self.all, self.all, tuple(self.lines))
        return Report(
            environment=self.all, made=NOW, components=self.histories,
            needs=dict.fromkeys(self.names, ()), deploys=(run,), status=tuple(self.status),
            checks=tuple(self.checks), unasked=tuple(self.names),
        )  # fmt: skip


def harmless(reports: Reports) -> Reports:
    """The same with names that nobody minds: as many, as different, and nothing where there is nothing to see."""
    names = enumerate(reports.names)
    return Reports([f"name{at:x<60}" if name.strip(" ") else name for at, name in names])


def texts(document: Any) -> set[str]:
    """All texts in a JSON document, keys too."""
    if isinstance(document, dict):
        return {part for key, value in document.items() for part in (key, *texts(value))}
    if isinstance(document, list):
        return {part for value in document for part in texts(value)}
    return {document} if isinstance(document, str) else set()
