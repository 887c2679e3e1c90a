"""`isa verify`: test that backups can be restored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cli.commands import options
from cli.commands.signer import add_signer
from cli.commands.verbs import Verbs
from cli.printing.live import LiveNodes

if TYPE_CHECKING:
    from operations.documents.runs import Verify
    from operations.environment.environment import Environment


@click.command(cls=Verbs)
@click.argument("what", nargs=-1, metavar="[BACKUP|COMPONENT]...")
@options.environment
@options.prints("operations.documents.runs:Verify")
@click.option(
    "--latest",
    "which",
    flag_value="latest",
    default=True,
    help="The newest backup of each component (default).",
)
@click.option(
    "--due",
    "which",
    flag_value="due",
    help="The newest backup of each component that has not been verified yet.",
)
@click.option("--all", "which", flag_value="all", help="Every backup.")
@click.option(
    "--sample",
    "which",
    flag_value="sample",
    help="An older backup of each component, a different one every week.",
)
@click.option(
    "--at",
    default="",
    metavar="POINT",
    help="Recover to this point between two backups instead (postgresql only): a time, 2026-11-29T17:59:30Z, or an "
    "LSN, 0/3000028.",
)
@click.option("--local", is_flag=True, help="Run in this process, without a Prefect server.")
def verify(
    what: tuple[str, ...], environment: str, as_json: bool, which: str, at: str, local: bool
) -> None:
    """Restore backups into scratch engines and compare them with their source.

    Names are components or backup ids (isa backups). Without a name: all components.
    Exits 1 if a backup failed, or ended without a verdict.
    """
    from archive.backup.manifest import IDENTITY
    from cli.printing.output import emit
    from config.loading import load
    from operations.environment.environment import Environment
    from operations.verify.point import target_of
    from operations.verify.proofs import choose, week

    if at:  # wrong input is told before anything is asked
        target_of(at, what)
    settings = load(environment)
    backups = tuple(name for name in what if IDENTITY.fullmatch(name))
    components = tuple(name for name in what if name not in backups)
    with LiveNodes(quiet=as_json) as nodes:
        if local:
            env = Environment(settings).open_store()
            wanted = choose(env, backups, components, which, week(), at)
            report = nodes.here(lambda: _in_process(env, wanted, nodes), _from_rows)
        else:
            report = _by_server(environment, backups, components, which, at, nodes)
    if as_json:
        emit(report)
    else:
        _summary(report)
    if report.state != "completed":
        raise click.exceptions.Exit(1)


def _signer(environment: Environment) -> str:
    """Print the verify workers' public key for verify.signers."""
    from archive.evidence.verdicts import signer_of

    return signer_of(environment.verify_identity())


add_signer(verify, _signer)


def _in_process(env: Environment, wanted: tuple[str, ...], nodes: LiveNodes) -> Verify:
    from cluster.lease import identity
    from operations.runner.context import RunContext
    from operations.runner.threads import threads
    from operations.verify.proofs import run_proofs

    with threads(env.settings.verify.max_parallel, env.settings.verify.attempts) as start:
        report = run_proofs(
            env,
            RunContext(f"isa verify --local as {identity()}", publish=nodes.publish),
            wanted,
            start=start,
        )
    return report.document()


def _by_server(
    environment: str,
    backups: tuple[str, ...],
    components: tuple[str, ...],
    which: str,
    at: str,
    nodes: LiveNodes,
) -> Verify:
    from operations.backup.component import selected
    from tasks.server.runs import VERIFY

    selected(components)  # a wrong name is told before a run is made
    parameters = {
        "environment": environment,
        "backups": list(backups) or None,
        "only": list(components) or None,
        "which": which,
        "at": at,
    }
    ended = nodes.follow(VERIFY, parameters, f"verify-{environment}", None)
    return ended.document(_from_rows(ended.rows))


def _from_rows(rows: list[dict[str, Any]]) -> Verify:
    from archive.backup.manifest import component_of
    from operations.documents.runs import BackupProof, Verify
    from operations.runner.walk import NOT_ATTEMPTED

    proofs = (
        BackupProof(
            backup=row["name"],
            component=component_of(row["name"]),
            verdict=row["outcome"] or NOT_ATTEMPTED,
            level=row["level"],
            compared=row["compared"],
            seconds=row["seconds"],
            reason=row["note"],
            scratch=row["scratch"],
        )
        for row in rows
    )
    return Verify(state="failed", seconds=0.0, message="", proofs=tuple(proofs))


def _summary(report: Verify) -> None:
    from cli.printing.tables import console, table

    out = console()
    rows = [
        (
            one.component,
            one.verdict,
            one.level,
            f"{one.seconds:.1f}",
            one.scratch,
            one.backup,
            one.reason,
        )
        for one in report.proofs
    ]
    if rows:
        columns = ("component", "verdict", "level", "seconds", "restored into", "backup", "finding")
        title = f"Verification {report.state} in {report.seconds:.1f} s"
        out.print(table(title, columns, rows))
    else:
        out.print("This backup does not exist; nothing was verified.", highlight=False)
    if report.message:
        out.print(report.message, highlight=False)
