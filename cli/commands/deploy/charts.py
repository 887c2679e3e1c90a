"""`isa charts`: whether a deploy depends on chart hosts, and how to remove that dependency."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from cli.commands import options
from cli.commands.verbs import Verbs

if TYPE_CHECKING:
    from config.models import Settings
    from operations.environment.charts import ChartState


@click.command(cls=Verbs)
@options.environment
@options.prints("operations.documents.environment:Charts")
def charts(environment: str, as_json: bool) -> None:
    """List charts: archives in charts.directory, and which are locked by digest."""
    from config.loading import load
    from operations.environment.charts import chart_states

    settings = load(environment)
    _show(settings, chart_states(settings), as_json)


@charts.command("pull")
@options.environment
@options.prints("operations.documents.environment:Charts")
def pull(environment: str, as_json: bool) -> None:
    """Download missing chart archives and write all digests to charts.lock."""
    from config.loading import load
    from operations.environment.charts import pull_charts

    settings = load(environment)
    _show(settings, pull_charts(settings), as_json)


def _show(settings: Settings, states: Iterable[ChartState], as_json: bool) -> None:
    from cli.printing.output import emit
    from cli.printing.tables import console, table
    from operations.documents.environment import Chart, Charts

    if as_json:
        charts = tuple(Chart(**vars(state)) for state in states)
        emit(Charts(directory=str(settings.charts.directory), charts=charts))
        return
    rows = [(s.chart, "kept" if s.kept else "missing", s.locked or "not locked") for s in states]
    title = f"Charts of {settings.environment}"
    console().print(table(title, ("chart", "archive", "digest"), rows))
