"""`isa plan` and `isa render`: read only, they change nothing."""

from __future__ import annotations

from pathlib import Path

import click

from cli.commands import options
from config.text.printable import first_of

CHANGES = 3
REASONS = 6  # of a node in the table


@click.command()
@options.environment
@options.prints("operations.documents.environment:Plan")
def plan(environment: str, as_json: bool) -> None:
    """Show what a deploy would change, and what blocks it.

    Exits 0 without changes, 3 with changes, 1 if the preflight blocks the deploy.
    """
    from cli.printing.output import emit
    from cli.printing.tables import console, table
    from config.loading import load
    from operations.deploy.run import checked_plan
    from operations.environment.environment import Environment

    found = checked_plan(Environment(load(environment)).open_releases())
    if as_json:
        emit(found.document())
    else:
        out = console()
        rows = [(n.name, n.action, first_of(n.reasons, REASONS)) for n in found.nodes]
        out.print(table(f"Plan for {environment}", ("node", "action", "why"), rows))
        verdicts = [(c.name, c.verdict("blocks", "warning"), c.hint) for c in found.preflight]
        out.print()
        out.print(table("Preflight", ("asked", "verdict", "finding"), verdicts))
    raise click.exceptions.Exit(1 if found.blocked else CHANGES if found.changes else 0)


@click.command()
@options.environment
@click.option(
    "--output", type=click.Path(path_type=Path), required=True, help="Directory for the files."
)
def render(environment: str, output: Path) -> None:
    """Write what deploy applies as files: manifests, values and a helmfile.yaml."""
    from cli.printing.output import say
    from config.loading import load
    from operations.environment.render_files import write_rendered

    write_rendered(load(environment), output)
    # as this tool applies, so that either can go on where the other stopped
    flags = "--server-side --force-conflicts --field-manager=isa-cloud"
    say(
        f"rendered into {output}. To deploy without isa:",
        f"  kubectl apply {flags} -f {output}/manifests",
        f"  helmfile -f {output}/helmfile.yaml sync",
    )
