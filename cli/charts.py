"""`isa charts`: whether a deploy depends on chart hosts, and how it stops doing so."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from cli import options
from cli.verbs import Verbs

if TYPE_CHECKING:
    from config.models import Settings
    from operations.environment.charts import ChartState


@click.command(cls=Verbs)
@options.environment
@options.as_json
def charts(environment: str, as_json: bool) -> None:
    """List charts: archives in charts.directory, and which are locked by digest."""
    from config.loading import load
    from operations.environment.charts import chart_states

    settings = load(environment)
    _show(settings, chart_states(settings), as_json)


@charts.command("pull")
@options.environment
@options.as_json
def pull(environment: str, as_json: bool) -> None:
    """Download missing chart archives and write all digests to charts.lock."""
    from config.loading import load
    from operations.environment.charts import pull_charts

    settings = load(environment)
    _show(settings, pull_charts(settings), as_json)


def _show(settings: Settings, states: Iterable[ChartState], as_json: bool) -> None:
    from dataclasses import asdict

    from cli.output import emit
    from cli.tables import console, table

    if as_json:
        emit({"directory": str(settings.charts.directory), "charts": [asdict(s) for s in states]})
        return
    rows = [(s.chart, "kept" if s.kept else "missing", s.locked or "not locked") for s in states]
    title = f"Charts of {settings.environment}"
    console().print(table(title, ("chart", "archive", "digest"), rows))
