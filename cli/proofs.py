"""`isa proofs`: how old the proofs are that one relies on."""

from __future__ import annotations

from pathlib import Path

import click

from cli import options


@click.command()
@click.argument("components", nargs=-1, metavar="[COMPONENT]...")
@options.environment
@options.as_json
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
    """Show the last backup and restore proof of each component. Exits 1 if one is stale."""
    from cli.output import emit
    from config.loading import load
    from operations.backup.component import selected
    from operations.environment.environment import Environment
    from operations.health import freshness
    from operations.report.metrics import push_metrics, write_metrics

    chosen = selected(components)
    env = Environment(load(environment)).open_store()
    found = freshness.look(env, chosen)
    text = freshness.metrics(found, environment)
    if metrics is not None:
        write_metrics(metrics, text)
    if push:
        push_metrics(push, text, environment)
    if as_json:
        emit({"proofs": [one.as_json() for one in found]})
    else:
        _print(found)
    if any(one.state != freshness.FRESH for one in found):
        raise click.exceptions.Exit(1)


def _print(found: tuple[object, ...]) -> None:
    from cli.tables import console, table

    rows = [
        (
            one["component"],
            one["state"],
            _time(one["last_success_backup"]),
            one["last_verdict"],
            _time(one["last_passing_verify"]),
            one["sentence"],
        )
        for one in (item.as_json() for item in found)  # type: ignore[attr-defined]
    ]
    columns = ("component", "state", "last backup", "last verdict", "last pass", "what it says")
    console().print(table("Proofs of restores", columns, rows))


def _time(at: object) -> str:
    return f"{at:%Y-%m-%d %H:%M}" if at else ""
