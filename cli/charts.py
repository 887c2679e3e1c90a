"""`isa charts`: whether a deploy depends on chart hosts, and how it stops doing so."""

from __future__ import annotations

import click

from cli import options


@click.command()
@options.environment
@options.as_json
@click.option(
    "--pull",
    is_flag=True,
    help="Download missing archives and write all digests to charts.lock.",
)
def charts(environment: str, as_json: bool, pull: bool) -> None:
    """List charts: archives in charts.directory, and which are locked by digest."""
    from dataclasses import asdict

    from cli.output import emit
    from cli.tables import console, table
    from config.loading import load
    from operations.environment.charts import chart_states, pull_charts

    settings = load(environment)
    states = pull_charts(settings) if pull else chart_states(settings)
    if as_json:
        emit({"directory": str(settings.charts.directory), "charts": [asdict(s) for s in states]})
        return
    rows = [(s.chart, "kept" if s.kept else "missing", s.locked or "not locked") for s in states]
    console().print(table(f"Charts of {environment}", ("chart", "archive", "digest"), rows))
