"""`isa restore`: replace live data by a backup."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cli.commands import options
from cli.printing.live import LiveNodes

if TYPE_CHECKING:
    from operations.documents.runs import Restore
    from operations.environment.environment import Environment
    from operations.restore.plan import RestorePlan


@click.command()
@click.argument("backup", required=False, metavar="[BACKUP]")
@options.environment
@options.prints("operations.documents.runs:Restore", plan="operations.documents.plans:RestorePlan")
@click.option(
    "--unit",
    "units",
    multiple=True,
    metavar="NAME",
    help="Restore only this database, stream, bucket or collection; repeatable.",
)
@click.option(
    "--at",
    default="",
    metavar="POINT",
    help="Restore PostgreSQL to this point between two backups (isa restore postgresql --at POINT): a time, "
    "2026-11-29T17:59:30Z, or an LSN, 0/3000028.",
)
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Restore the newest verified backup of every engine, after a disaster.",
)
@click.option(
    "--other-cluster",
    is_flag=True,
    help="Accept backups of a lost cluster of the same environment.",
)
@click.option(
    "--no-safety-backup",
    is_flag=True,
    help="Do not back up the current data first (only for an empty platform).",
)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option("--plan", "plan_only", is_flag=True, help="Print what would be replaced, and stop.")
@click.option("--local", is_flag=True, help="Run in this process, without a Prefect server.")
def restore(
    backup: str | None,
    environment: str,
    as_json: bool,
    units: tuple[str, ...],
    at: str,
    everything: bool,
    other_cluster: bool,
    no_safety_backup: bool,
    yes: bool,
    plan_only: bool,
    local: bool,
) -> None:
    """Replace live data with a backup. The current data is backed up first.

    The plan is printed first. To try a backup without risk, use isa verify. Exits 1 if something was not restored, or
    differs from the backup. An engine that is restored by hand is refused with exit code 2; with --all it is listed at
    the end, and the exit code is 1.
    """
    from cli.printing.output import emit
    from config.loading import load
    from operations.documents.plans import RestorePlan
    from operations.environment.environment import Environment
    from operations.restore.plan import engine_of, plans_of
    from operations.verify.point import target_of

    if bool(backup) == everything or (everything and (units or at)):
        raise click.UsageError("name a backup, or use --all")
    if at:  # wrong input is told before anything is asked
        target_of(at, [backup or ""])
        backup = None
    elif backup:
        engine_of(backup)
    env = Environment(load(environment)).open_store()
    plans = plans_of(env, backup or "", units, other_cluster=other_cluster, at=at)
    if plan_only and as_json:
        emit(RestorePlan(plans=tuple(plan.document() for plan in plans)))
        return
    _show(plans, no_safety_backup)
    if plan_only:
        return
    wanted = environment if everything else plans[0].manifest.component
    if not yes:
        choice = click.Choice([wanted])
        click.prompt(f"Type {wanted} to replace it", type=choice, show_choices=False, err=True)
    with LiveNodes(quiet=as_json) as nodes:
        if local:
            report = nodes.here(
                lambda: _in_process(env, plans, not no_safety_backup, nodes), _from_rows
            )
        else:
            parameters = {
                "environment": environment,
                "backup": backup,
                "units": list(units) or None,
                "other_cluster": other_cluster,
                "safety_backup": not no_safety_backup,
                "at": at,
                "confirm": wanted,
            }
            report = _by_server(environment, parameters, nodes)
    if as_json:
        emit(report)
    else:
        _tell(report)
    if report.state != "completed":
        raise click.exceptions.Exit(1)


def _in_process(
    env: Environment, plans: list[RestorePlan], safety: bool, nodes: LiveNodes
) -> Restore:
    import time

    from cluster.lease import identity
    from operations.restore.report import document
    from operations.restore.restore import run_restores
    from operations.runner.context import RunContext
    from operations.runner.threads import threads

    began = time.monotonic()
    with threads(env.settings.verify.max_parallel, 1) as start:
        reports = run_restores(
            env,
            RunContext(f"isa restore --local as {identity()}", publish=nodes.publish),
            plans,
            start=start,
            safety=safety,
        )
    return document(reports, time.monotonic() - began)


def _by_server(environment: str, parameters: dict[str, Any], nodes: LiveNodes) -> Restore:
    from tasks.server.runs import RESTORE

    ended = nodes.follow(RESTORE, parameters, f"restore-{environment}", None)
    return ended.document(_from_rows(ended.rows))


def _from_rows(rows: list[dict[str, Any]]) -> Restore:
    from operations.documents.runs import ComponentRestore, Restore
    from operations.restore.report import RESTORED
    from operations.runner.walk import NOT_ATTEMPTED

    restores = (
        ComponentRestore(
            backup=row["backup"],
            component=row["name"],
            outcome=row["outcome"] or NOT_ATTEMPTED,
            safety_backup=row["safety"],
            kept=(),
            not_replaced={},
            differences=(),
            stages={},
            seconds=row["seconds"],
            reason="" if row["outcome"] == RESTORED else row["note"],
        )
        for row in rows
    )
    return Restore(state="failed", seconds=0.0, message="", restores=tuple(restores))


def _show(plans: list[RestorePlan], no_safety: bool) -> None:
    from cli.printing.tables import console, table
    from operations.runner.transfer import human

    out = console(stderr=True)
    for plan in plans:
        if plan.by_hand:
            words = (
                f"! {plan.manifest.component} is NOT restored by isa: {plan.by_hand}; its backup: "
                f"{plan.manifest.id}"
            )
            out.print(words, style="bold yellow", highlight=False)
    for plan in (plan for plan in plans if not plan.by_hand):
        title = f"{plan.manifest.component}: back to {plan.target} ({plan.source})"
        rows = [(unit.unit, human(unit.size), "replaced") for unit in plan.units]
        rows += [(unit, "", "left as it is") for unit in plan.not_replaced]
        out.print(table(title, ("unit", "in the backup", "what happens"), rows))
        out.print(f"writers: {plan.writers}", highlight=False)
        safety = "no safety backup" if no_safety else "current data is backed up first"
        out.print(f"{safety}; verified: {'yes' if plan.proven else 'no'}", highlight=False)
        if plan.took:
            out.print(f"times: {plan.took}", highlight=False)
        for warning in plan.warnings:
            out.print(f"! {warning}", style="yellow", highlight=False)
        out.print()


def _tell(report: Restore) -> None:
    from cli.printing.tables import console, table

    out = console()
    columns = ("component", "outcome", "seconds", "safety backup", "finding")
    rows = [
        (
            one.component,
            one.outcome,
            f"{one.seconds:.1f}",
            one.safety_backup,
            one.reason or "; ".join(one.kept),
        )
        for one in report.restores
    ]
    out.print(table(f"Restore {report.state} in {report.seconds:.1f} s", columns, rows))
    if report.message:
        out.print(report.message, highlight=False)
