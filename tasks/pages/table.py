"""The live table of a run: one artifact that is rewritten while nodes change, and the matching log lines."""

from __future__ import annotations

import contextvars
import threading
import time
from types import TracebackType
from typing import Any

from prefect.logging import get_run_logger

from cluster.dag import Dag
from components.base import Check
from config.text.printable import first_of, json_text
from operations.backup.retention import RetentionPlan
from operations.deploy.plan import Plan
from operations.health.status import ComponentStatus
from operations.rebuild.plan import RebuildPlan
from operations.restore.plan import RestorePlan
from operations.runner.progress import DONE, NodeProgress, as_rows
from operations.verify.proofs import ProofReport
from tasks.pages.artifacts import PATIENCE_SECONDS, RETRY_SECONDS, Artifact, keep
from tasks.pages.markdown import Markdown, bold, cells, code, table
from tasks.pages.pictures import plan_picture

REASONS = 4  # of a node in the plan
REWRITE_SECONDS = 2.0
CANCELLED_SECONDS = 5.0  # of the 30 that a cancelled run has, 20 of which are its commands'


class LiveTable:
    """An artifact of the running flow that shows the state of its nodes.

    It is written in a thread of its own, always with the newest lines: nodes never wait for the server. Its end waits
    until the last lines are written.

    Args:
        key: artifact key, `deploy-sandbox`; its history in the UI has one entry per run.
        description: shown above the table.
        counting: whether notes begin with a counted item and end with figures.
    """

    def __init__(self, key: str, description: str, *, counting: bool = False) -> None:
        self._artifact = Artifact("table", key, description)
        self._counting = counting
        self._last: dict[str, NodeProgress] = {}
        self._rows: list[dict[str, Any]] = []
        self._asked = 0.0
        self._due, self._ended = threading.Event(), threading.Event()
        self._patience = PATIENCE_SECONDS
        # bound to the flow here: bytes are counted in threads that belong to no run
        self._logger: Any = get_run_logger()
        context = contextvars.copy_context()
        self._writer = threading.Thread(target=context.run, args=(self._write,), daemon=True)

    def __enter__(self) -> LiveTable:
        self._writer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        if kind is not None and not issubclass(kind, Exception):
            self._patience = CANCELLED_SECONDS
        self._ended.set()
        self._due.set()
        self._writer.join(self._patience)

    @property
    def lines(self) -> tuple[NodeProgress, ...]:
        """As they are."""
        return tuple(self._last.values())

    def publish(self, lines: list[NodeProgress]) -> None:
        """Show the lines, and log those whose phase changed."""
        for line in lines:
            before = self._last.get(line.name)
            if before is not None and self._said(before) != self._said(line):
                _log(self._logger, line)
        moved = any(
            self._standing(line) != self._standing(self._last.get(line.name)) for line in lines
        )
        self._last = {line.name: line for line in lines}
        self._rows = [cells(row) for row in as_rows(lines)]
        now = time.monotonic()
        if moved or now - self._asked >= REWRITE_SECONDS:
            self._asked = now  # a new note alone is not worth a request every time
            self._due.set()

    def _write(self) -> None:
        written: list[dict[str, Any]] | None = None
        while not self._ended.is_set():
            self._due.wait()
            self._due.clear()
            rows = self._rows
            if self._artifact.write(json_text(rows)):
                written = rows
            elif not self._ended.wait(RETRY_SECONDS):
                self._due.set()
        if self._rows and self._rows is not written:
            self._artifact.insist(json_text(self._rows), self._patience)

    def _said(self, line: NodeProgress) -> tuple[str, str]:
        """The part of a note that belongs into the log: figures that only count bytes do not."""
        return (line.phase, line.note.partition(":")[0] if self._counting else line.note)

    @staticmethod
    def _standing(line: NodeProgress | None) -> tuple[str, str] | None:
        return (line.phase, line.outcome) if line else None


def plan_artifact(plan: Plan, graph: Dag, environment: str) -> None:
    """Keep the plan with the run: nodes with their actions, and all findings of the preflight."""
    nodes = ((n.name, n.action, first_of(n.reasons, REASONS)) for n in plan.nodes)
    checks = ((c.name, _verdict(c, "blocks", "warning"), c.hint) for c in plan.preflight)
    lines = [plan_picture(plan, graph), "", *table(("node", "action", "why"), nodes)]
    lines += ["", *table(("preflight", "verdict", "finding"), checks)]
    keep(lines, f"plan-{environment}", "What this run plans to do")


def status_artifact(status: list[ComponentStatus], environment: str) -> None:
    """Keep with the run the status of the platform after it: every check of every component, and the members."""
    checks: list[tuple[object, ...]] = []
    for component in status:
        for index, check in enumerate(component.finding.checks):
            name, state = (component.name, component.finding.state) if index == 0 else ("", "")
            row = (name, state, check.name, _verdict(check, "down", "degraded"), check.hint)
            checks.append((*row, f"{check.seconds:.1f}"))
    members = [
        (component.name, member.name, role.role, role.lag, member.node, member.restarts)
        for component in status
        for member in component.members
        for role in [component.role(member)]
    ]
    lines = [
        *table(("component", "state", "check", "verdict", "finding", "s"), checks),
        "",
        *table(("component", "member", "role", "lag", "node", "restarts"), members),
    ]
    keep(lines, f"status-{environment}", "Status of the platform after this run")


def proofs_artifact(report: ProofReport, environment: str) -> None:
    """Keep with the run which backups were verified, and the results."""
    rows = []
    for proof in report.proofs:
        verdict = proof.verdict if proof.verdict in ("pass", "partial") else bold(proof.verdict)
        figures = (proof.level, proof.compared, f"{proof.seconds:.1f}", proof.scratch)
        rows.append((proof.component, verdict, *figures, code(proof.backup), proof.reason))
    heads = ("component", "verdict", "level", "measures", "s", "restored into", "set", "finding")
    words = "Verified backups, with their results"
    keep(table(heads, rows), f"proofs-{environment}", words)


def restore_plan_artifact(plans: list[RestorePlan], environment: str) -> None:
    """Keep with the run what it plans to replace."""
    lines: list[str] = []
    for manifest, why in ((plan.manifest, plan.by_hand) for plan in plans if plan.by_hand):
        words = Markdown("**{} is not restored by isa** ({}): {}")
        lines += [words.format(manifest.component, code(manifest.id), why), ""]
    plans = [plan for plan in plans if not plan.by_hand]
    rows = [
        (
            plan.manifest.component,
            unit.unit,
            f"{unit.size:,}",
            plan.target,
            code(plan.source),
        )
        for plan in plans
        for unit in plan.units
    ]
    lines += [*table(("component", "unit", "bytes", "back to", "set"), rows), ""]
    item = Markdown("- {}: {}")
    lines += [item.format(plan.manifest.component, plan.writers) for plan in plans]
    lines += [item.format(plan.manifest.component, plan.took) for plan in plans if plan.took]
    lines += [
        item.format(bold(plan.manifest.component), words)
        for plan in plans
        for words in plan.warnings
    ]
    keep(lines, f"restore-plan-{environment}", "What this run plans to replace")


def rebuild_plan_artifact(plan: RebuildPlan, environment: str) -> str:
    """Keep with the run what has to be approved; returns its Markdown."""
    policy = plan.policy
    head = Markdown("**Rebuild of {} in {}**: volumes {}, restore {}, {} (plan {})")
    guard = (
        "after a freshly verified backup" if policy.final_backup else bold("without a backup first")
    )
    item, warning = Markdown("- {}: {}"), Markdown("- {}")
    claims = ", ".join(f"{name} ({size})" for name, size in plan.claims.items())
    lines = [
        head.format(
            policy.component, environment, policy.volumes, policy.restore, guard, plan.digest
        ),
        "",
        *table(
            ("release", "installed now"),
            ((name, what or "nothing") for name, what in plan.releases.items()),
        ),
        "",
        item.format("volumes", claims or "none"),
        item.format("last proof", plan.proof or bold("none")),
        item.format("writers", plan.writers),
        item.format("gates afterwards", ", ".join(plan.dependants) or "does not depend on others"),
        *(warning.format(bold(words)) for words in plan.warnings),
        *(warning.format(bold(f"blocked by: {words}")) for words in plan.blocked),
    ]
    return keep(lines, f"rebuild-plan-{environment}", "What has to be approved")


def retention_artifact(
    plan: RetentionPlan, environment: str, *, applied: bool, held: dict[str, str]
) -> None:
    """Keep with the run which backups stay and why, and which are removed."""
    rows = []
    for one in plan.verdicts:
        manifest = one.manifest
        stays = held.get(manifest.id, "")
        gone = "held" if stays else bold("removed") if applied else "may go"
        verdict, why = "keep" if one.kept else gone, "; ".join(one.kept) or stays
        size = f"{manifest.stored_size:,}"
        rows.append((manifest.component, code(manifest.id), size, verdict, why))
    waste = plan.waste
    words = f"{len(waste.objects)} orphaned objects, {len(waste.uploads)} incomplete uploads"
    lines = [*table(("component", "set", "bytes", "verdict", "why"), rows), "", words]
    lines += [
        Markdown("- {}").format(why) for why in (*plan.unread.values(), *plan.hidden.values())
    ]
    keep(lines, f"retention-{environment}", "Which backups are kept")


def doctor_artifact(checks: list[Check], environment: str) -> None:
    """Keep with the run the doctor's findings, failed ones first."""
    worst_first = sorted(checks, key=lambda one: (one.ok, not one.critical))
    rows = ((c.name, _verdict(c, "bad", "warning"), c.hint) for c in worst_first)
    lines = table(("check", "verdict", "finding"), rows)
    keep(lines, f"doctor-{environment}", "What is stuck, stale or about to expire")


def _verdict(check: Check, critical: str, other: str) -> str:
    """In bold if it is critical."""
    word = check.verdict(critical, other)
    return bold(word) if word == critical else word


def _log(logger: Any, line: NodeProgress) -> None:
    words = f"{line.name}: {line.outcome or line.phase}" + (f" – {line.note}" if line.note else "")
    if line.phase == DONE:
        words += f" ({line.seconds:.1f} s)"
    (logger.error if line.outcome == "failed" else logger.info)(words)
