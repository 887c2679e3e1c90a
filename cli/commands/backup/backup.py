"""`isa backup` and `isa backups`: take backups, and list them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cli.commands import options
from cli.commands.signer import add_signer
from cli.commands.verbs import Verbs
from cli.printing.live import LiveNodes

if TYPE_CHECKING:
    from archive.catalogue.listing import Catalogue
    from operations.documents.backups import Backups
    from operations.documents.runs import Backup
    from operations.environment.environment import Environment


@click.command(cls=Verbs)
@click.argument("components", nargs=-1, metavar="[COMPONENT]...")
@options.environment
@options.prints("operations.documents.runs:Backup")
@click.option("--local", is_flag=True, help="Run in this process, without a Prefect server.")
@click.option(
    "--slot",
    default="",
    metavar="NAME",
    help="Idempotency key, for example the date `2026-11-23`: a component that has a backup for it is skipped.",
)
def backup(
    components: tuple[str, ...],
    environment: str,
    as_json: bool,
    local: bool,
    slot: str,
) -> None:
    """Back up all components, or the named ones, to the object store."""
    from cli.printing.output import emit
    from config.loading import load
    from operations.backup.component import selected
    from operations.backup.slot import check_slot

    settings = load(environment)
    selected(components)  # wrong input is told before a run is made
    check_slot(slot, settings.schedules.timezone)
    with LiveNodes(quiet=as_json) as nodes:
        report = (
            nodes.here(lambda: _in_process(settings, components, slot, nodes), _from_rows)
            if local
            else _by_server(environment, components, slot, nodes)
        )
    if as_json:
        emit(report)
    else:
        _summary(report)
    if report.state != "completed":
        raise click.exceptions.Exit(1)


def _signer(environment: Environment) -> str:
    """Print the backup workers' public key for backup.signers."""
    from archive.signing import public_half
    from operations.backup.prerequisites import read_worker_key

    return public_half(read_worker_key(environment))


add_signer(backup, _signer)


@click.command()
@click.argument("components", nargs=-1, metavar="[COMPONENT]...")
@options.environment
@options.prints("operations.documents.backups:Backups")
def backups(components: tuple[str, ...], environment: str, as_json: bool) -> None:
    """List backups, the newest last. Exits 1 if a manifest is damaged."""
    from cli.printing.output import emit
    from config.loading import load
    from operations.backup.component import selected
    from operations.environment.environment import Environment

    chosen = selected(components)
    catalogue = Environment(load(environment)).open_store().catalogue(chosen)
    if as_json:
        emit(_document(catalogue))
    else:
        _print(catalogue)
    if catalogue.broken:
        raise click.exceptions.Exit(1)


def _in_process(settings: Any, only: tuple[str, ...], slot: str, nodes: LiveNodes) -> Backup:
    from cluster.lease import identity
    from operations.backup.nightly import run_backups
    from operations.environment.environment import Environment
    from operations.runner.context import RunContext
    from operations.runner.threads import threads

    env = Environment(settings).open_store()
    with threads(settings.backup.max_parallel, settings.backup.attempts) as start:
        report = run_backups(
            env,
            RunContext(f"isa backup --local as {identity()}", publish=nodes.publish),
            only=only,
            slot=slot,
            start=start,
        )
    return report.document()


def _by_server(environment: str, only: tuple[str, ...], slot: str, nodes: LiveNodes) -> Backup:
    from tasks.server.runs import BACKUP, NIGHTLY

    parameters = {"environment": environment, "only": list(only) or None, "slot": slot}
    key = f"backup-{environment}-{slot}-{'-'.join(sorted(only))}" if slot else None
    ended = nodes.follow(BACKUP if only else NIGHTLY, parameters, f"backup-{environment}", key)
    return ended.document(_from_rows(ended.rows))


def _from_rows(rows: list[dict[str, Any]]) -> Backup:
    from operations.backup.component import COMPLETE
    from operations.documents.runs import Backup, ComponentBackup
    from operations.runner.walk import NOT_ATTEMPTED

    backups = (
        ComponentBackup(
            component=row["name"],
            outcome=row["outcome"] or NOT_ATTEMPTED,
            id=row["id"],
            bytes_read=row["bytes_read"],
            bytes_stored=row["bytes_stored"],
            seconds=row["seconds"],
            manifest=row["manifest"],
            reason=row["note"] if row["outcome"] not in (COMPLETE, "") else "",
        )
        for row in rows
    )
    return Backup(state="failed", seconds=0.0, message="", backups=tuple(backups))


def _summary(report: Backup) -> None:
    from cli.printing.tables import console, table
    from operations.runner.transfer import human

    out = console()
    rows = [
        (
            one.component,
            one.outcome,
            human(one.bytes_read),
            human(one.bytes_stored),
            f"{one.seconds:.1f}",
            one.id,
            one.reason,
        )
        for one in report.backups
    ]
    if rows:
        columns = ("component", "outcome", "read", "stored", "seconds", "backup", "reason")
        title = f"Backup {report.state} in {report.seconds:.1f} s"
        out.print(table(title, columns, rows))
    if report.message:
        out.print(report.message, highlight=False)


def _print(catalogue: Catalogue) -> None:
    from cli.printing.tables import console, table
    from operations.runner.transfer import human

    out = console()
    rows = [
        (
            manifest.component,
            manifest.id,
            manifest.outcome,
            manifest.slot if manifest.slot != manifest.id else "",
            manifest.kind,
            human(manifest.plain_size),
            human(manifest.stored_size),
            f"{manifest.seconds:.1f}",
            f"{manifest.engine.name} {manifest.engine.version}",
        )
        for manifest in catalogue.sets
    ]
    columns = (
        "component", "backup", "outcome", "slot", "kind", "plain", "stored", "seconds", "engine",
    )  # fmt: skip
    out.print(table("Backups", columns, rows))
    for key, why in catalogue.broken.items():
        out.print(f"damaged: {key}: {why}", style="red", highlight=False)
    if catalogue.uncommitted:
        words = (
            f"{len(catalogue.uncommitted)} without a manifest: in progress, or orphaned (`isa retention` lists "
            "them)"
        )
        out.print(words, highlight=False)


def _document(catalogue: Catalogue) -> Backups:
    from operations.documents.backups import Backups, StoredBackup

    backups = (
        StoredBackup(
            id=one.id,
            component=one.component,
            outcome=one.outcome,
            kind=one.kind,
            slot=one.slot,
            begun=one.begun,
            ended=one.ended,
            bytes_read=one.plain_size,
            bytes_stored=one.stored_size,
            seconds=round(one.seconds, 2),
            engine=f"{one.engine.name} {one.engine.version}",
            manifest=one.own_key,
        )
        for one in catalogue.sets
    )
    return Backups(
        backups=tuple(backups), damaged=catalogue.broken, uncommitted=tuple(catalogue.uncommitted)
    )
