"""`isa retention`: what may be removed from the bucket, its removal, and longer object locks for kept backups."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli.commands import options

if TYPE_CHECKING:
    from operations.backup.retention_report import RetentionReport


@click.command()
@click.argument("components", nargs=-1, metavar="[COMPONENT]...")
@options.environment
@options.prints("operations.documents.retention:Retention")
@click.option(
    "--apply",
    "apply",
    is_flag=True,
    help="Delete what is listed, and extend the object locks of kept backups.",
)
def retention(components: tuple[str, ...], environment: str, as_json: bool, apply: bool) -> None:
    """List backups and orphaned objects that are past retention; --apply deletes them.

    Exits 1 if an object lock could not be extended, or a manifest cannot be read.
    """
    from archive.retention.locks import Extension
    from cli.printing.output import emit
    from config.loading import load
    from operations.backup.component import selected
    from operations.backup.retention import apply_retention, extend_locks, plan_retention
    from operations.backup.retention_report import RetentionReport
    from operations.environment.environment import Environment

    selected(components)  # wrong input is told before anything is asked
    env = Environment(load(environment)).open_store()
    plan = plan_retention(env, components)
    extension = extend_locks(env, plan) if apply else Extension()
    held = apply_retention(env, plan) if apply else {}
    report = RetentionReport(plan, applied=apply, extension=extension, held=held)
    if as_json:
        emit(report.document())
    else:
        _print(report)
    if report.problems:
        raise click.exceptions.Exit(1)


def _print(report: RetentionReport) -> None:
    from cli.printing.tables import console, table
    from operations.runner.transfer import human

    plan, held, extension, applied = report.plan, report.held, report.extension, report.applied
    rows = [
        (
            v.manifest.component,
            v.manifest.id,
            human(v.manifest.stored_size),
            "keep"
            if v.kept
            else "held"
            if v.manifest.id in held
            else "removed"
            if applied
            else "may go",
            "; ".join(v.kept) or held.get(v.manifest.id, ""),
        )
        for v in plan.verdicts
    ]
    out = console()
    out.print(table("Retention", ("component", "backup", "stored", "verdict", "why"), rows))
    waste = plan.waste
    words = f"{len(waste.objects)} orphaned objects ({human(waste.size)}), {len(waste.uploads)} incomplete uploads"
    out.print(f"{words}{' removed' if applied else ''}", highlight=False)
    for why in [*([plan.problem] if plan.problem else []), *plan.hidden.values()]:
        out.print(why, style="red", highlight=False)
    if extension.until is not None:
        words = f"{extension.extended} objects locked until {extension.until:%Y-%m-%d %H:%M} UTC"
        out.print(words, highlight=False)
    for name, why in extension.refused.items():
        out.print(
            f"the object lock of {name} could not be extended: {why}", style="red", highlight=False
        )
    if not applied and (plan.going or waste.objects or waste.uploads):
        out.print("Nothing was removed. Run with --apply to remove it.", highlight=False)
