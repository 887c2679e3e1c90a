"""`isa proofs`: how recent the last backup and the last verified restore of each component are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.commands import options

if TYPE_CHECKING:
    from datetime import datetime

    from operations.health.freshness import Freshness


@click.command()
@click.argument("components", nargs=-1, metavar="[COMPONENT]...")
@options.environment
@options.prints("operations.documents.backups:Proofs")
@click.option(
    "--metrics", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="Write Prometheus metrics to this file, for node-exporter's textfile collector.",
)  # fmt: skip
@click.option("--push", metavar="URL", help="Send the metrics to this Pushgateway.")
def proofs(
    components: tuple[str, ...],
    environment: str,
    as_json: bool,
    metrics: Path | None,
    push: str | None,
) -> None:
    """Show the last backup and restore proof of each component. Exits 1 if one is stale or misses an objective."""
    from cli.printing.output import emit
    from config.loading import load
    from operations.backup.component import selected
    from operations.documents.backups import Proofs
    from operations.environment.environment import Environment
    from operations.health import freshness
    from operations.report.metrics import push_metrics, write_metrics

    chosen = selected(components)
    env = Environment(load(environment)).open_store()
    found = freshness.read_freshness(env, chosen)
    text = freshness.metrics(found, environment)
    if metrics is not None:
        write_metrics(metrics, text)
    if push:
        push_metrics(push, text, environment)
    if as_json:
        emit(Proofs(proofs=tuple(one.document() for one in found)))
    else:
        _print(found)
    if any(one.state != freshness.FRESH or one.missed for one in found):
        raise click.exceptions.Exit(1)


def _print(found: tuple[Freshness, ...]) -> None:
    from cli.printing.tables import console, table

    rows = [
        (
            one.component,
            one.state,
            _time(one.backup),
            one.proof.verdict if one.proof else "",
            _time(one.passed),
            "; ".join((one.sentence, *one.missed) if one.sentence else one.missed),
        )
        for one in found
    ]
    columns = ("component", "state", "last backup", "last verdict", "last pass", "result")
    console().print(table("Verified restores", columns, rows))


def _time(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M}" if at else ""
