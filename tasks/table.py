"""The live table of a run: one artifact that is rewritten while nodes move, and the log lines that go with it."""

from __future__ import annotations

import contextvars
import json
import threading
import time
from types import TracebackType
from typing import Any

from prefect.logging import get_run_logger

from cluster.dag import Dag
from components.base import Check
from operations.plan import Plan
from operations.progress import DONE, NodeProgress, as_rows
from operations.proofs import ProofReport
from operations.rebuild_plan import RebuildPlan
from operations.restore_plan import RestorePlan
from operations.retention import RetentionPlan
from operations.status import ComponentStatus
from tasks.artifacts import PATIENCE_SECONDS, RETRY_SECONDS, Artifact, keep
from tasks.pictures import plan_picture

REWRITE_SECONDS = 2.0
CANCELLED_SECONDS = 5.0  # of the 30 that a cancelled run has, 20 of which are its commands'


class LiveTable:
    """An artifact of the running flow that shows where its nodes stand.

    It is written in a thread of its own, always the newest lines: nodes never wait for the server. Its end waits until
    the last lines are written.

    Args:
        key: artifact key, `deploy-sandbox`; its history in the UI has one entry a run.
        description: shown above the table.
        counting: notes begin with what is counted and go on with figures.
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
        self._rows = as_rows(lines)
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
            if self._artifact.write(json.dumps(rows)):
                written = rows
            elif not self._ended.wait(RETRY_SECONDS):
                self._due.set()
        if self._rows and self._rows is not written:
            self._artifact.insist(json.dumps(self._rows), self._patience)

    def _said(self, line: NodeProgress) -> tuple[str, str]:
        """What a log line is worth: notes that count bytes are not."""
        return (line.phase, line.note.partition(":")[0] if self._counting else line.note)

    @staticmethod
    def _standing(line: NodeProgress | None) -> tuple[str, str] | None:
        return (line.phase, line.outcome) if line else None


def plan_artifact(plan: Plan, graph: Dag, environment: str) -> None:
    """Keep the plan with the run: nodes with their actions, and all findings of the preflight."""
    lines = [plan_picture(plan, graph), "", "| node | action | why |", "| --- | --- | --- |"]
    lines += [f"| {n.name} | {n.action} | {_cell(n.reasons)} |" for n in plan.nodes]
    lines += ["", "| preflight | verdict | finding |", "| --- | --- | --- |"]
    lines += [
        f"| {c.name} | {c.verdict('**blocks**', 'warning')} | {c.hint} |" for c in plan.preflight
    ]
    keep(lines, f"plan-{environment}", "What this run set out to do")


def status_artifact(status: list[ComponentStatus], environment: str) -> None:
    """Keep with the run how the platform stands after it: every check of every component, and the members."""
    lines = [
        "| component | state | check | verdict | finding | s |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for component in status:
        for index, check in enumerate(component.finding.checks):
            name, state = (component.name, component.finding.state) if index == 0 else ("", "")
            verdict = check.verdict("**down**")
            hint = check.hint.replace("|", "/")
            lines.append(
                f"| {name} | {state} | {check.name} | {verdict} | {hint} | {check.seconds:.1f} |"
            )
    lines += [
        "",
        "| component | member | role | lag | node | restarts |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for component in status:
        for member in component.members:
            role = component.role(member)
            lines.append(
                f"| {component.name} | {member.name} | {role.role} | {role.lag} | {member.node} | {member.restarts} |"
            )
    keep(lines, f"status-{environment}", "How the platform stands after this run")


def proofs_artifact(report: ProofReport, environment: str) -> None:
    """Keep with the run what was proven of which set, and what was found."""
    lines = [
        "| component | verdict | level | measures | s | restored into | set | finding |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in report.proofs:
        verdict = one.verdict if one.verdict in ("pass", "partial") else f"**{one.verdict}**"
        finding = one.reason.replace("|", "/")
        lines.append(
            f"| {one.component} | {verdict} | {one.level} | {one.compared} | {one.seconds:.1f} | {one.scratch} "
            f"| `{one.backup}` | {finding} |"
        )
    keep(lines, f"proofs-{environment}", "Restores that were tried, and what they brought back")


def restore_plan_artifact(plans: list[RestorePlan], environment: str) -> None:
    """Keep with the run what it set out to replace."""
    lines = [
        f"**{plan.manifest.component} is not restored here** (`{plan.manifest.id}`): {plan.by_hand}\n"
        for plan in plans
        if plan.by_hand
    ]
    plans = [plan for plan in plans if not plan.by_hand]
    lines += ["| component | unit | bytes | back to | set |", "| --- | --- | --- | --- | --- |"]
    for plan in plans:
        point = f"{plan.manifest.begun:%Y-%m-%d %H:%M} UTC"
        lines += [
            f"| {plan.manifest.component} | {one.unit} | {one.size:,} | {point} | `{plan.manifest.id}` |"
            for one in plan.units
        ]
    notes = [f"- {plan.manifest.component}: {plan.writers}" for plan in plans]
    notes += [f"- {plan.manifest.component}: {plan.took}" for plan in plans if plan.took]
    notes += [f"- **{plan.manifest.component}**: {w}" for plan in plans for w in plan.warnings]
    keep([*lines, "", *notes], f"restore-plan-{environment}", "What this run set out to replace")


def rebuild_plan_artifact(plan: RebuildPlan, environment: str) -> str:
    """Keep with the run what somebody is asked to approve; gives its Markdown."""
    policy = plan.policy
    lines = [
        f"**Rebuild of {policy.component} in {environment}**: volumes {policy.volumes}, restore {policy.restore}, "
        f"{'behind a fresh proven backup' if policy.final_backup else '**without a backup before**'} "
        f"(plan {plan.digest})",
        "",
        "| release | installed now |",
        "| --- | --- |",
        *(f"| {name} | {what or 'nothing'} |" for name, what in plan.releases.items()),
        "",
        f"- volumes: {', '.join(f'{n} ({size})' for n, size in plan.claims.items()) or 'none'}",
        f"- last proof: {plan.proof or '**none**'}",
        f"- writers: {plan.writers}",
        f"- gates afterwards: {', '.join(plan.dependants) or 'its own only'}",
        *(f"- **{words}**" for words in plan.warnings),
        *(f"- **in the way: {words}**" for words in plan.blocked),
    ]
    return keep(lines, f"rebuild-plan-{environment}", "What somebody is asked to approve")


def retention_artifact(
    plan: RetentionPlan, environment: str, *, applied: bool, held: dict[str, str]
) -> None:
    """Keep with the run what stays and why, and what goes."""
    lines = ["| component | set | bytes | verdict | why |", "| --- | --- | --- | --- | --- |"]
    for one in plan.verdicts:
        manifest = one.manifest
        stays = held.get(manifest.id, "")
        gone = "held" if stays else "**removed**" if applied else "may go"
        verdict = "keep" if one.kept else gone
        lines.append(
            f"| {manifest.component} | `{manifest.id}` | {manifest.stored_size:,} | {verdict} "
            f"| {'; '.join(one.kept) or stays} |"
        )
    waste = plan.waste
    lines += [
        "",
        f"{len(waste.objects)} objects without a set, {len(waste.uploads)} unended uploads",
    ]
    keep(lines, f"retention-{environment}", "Which backup sets stay")


def doctor_artifact(checks: list[Check], environment: str) -> None:
    """Keep with the run what the doctor found, what is wrong first."""
    lines = ["| check | verdict | finding |", "| --- | --- | --- |"]
    for check in sorted(checks, key=lambda one: (one.ok, not one.critical)):
        verdict = check.verdict("**bad**", "warning")
        lines.append(f"| {check.name} | {verdict} | {check.hint.replace('|', '/')} |")
    keep(lines, f"doctor-{environment}", "What is stuck, stale or about to end")


def _cell(reasons: tuple[str, ...], limit: int = 4) -> str:
    shown = [reason.replace("|", "/") for reason in reasons[:limit]]
    more = [f"and {len(reasons) - limit} more"] if len(reasons) > limit else []
    return "<br>".join([*shown, *more])


def _log(logger: Any, line: NodeProgress) -> None:
    words = f"{line.name}: {line.outcome or line.phase}" + (f" – {line.note}" if line.note else "")
    if line.phase == DONE:
        words += f" ({line.seconds:.1f} s)"
    (logger.error if line.outcome == "failed" else logger.info)(words)
