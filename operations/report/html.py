"""The report as one self-contained page: no network, no script, all text escaped."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from operations.report import figures
from operations.report.report import Report
from operations.report.svg import COLOURS, GREY
from operations.runner.transfer import human
from redaction import shown

FOLDER, TEMPLATE = Path(__file__).parent, "page.html.j2"
RECENT = 10  # proofs of a component that are listed; the picture has all
TIMELINES = 3  # deploys that are drawn; the table has all that were asked for


def as_html(report: Report) -> str:
    """The page.

    Args:
        report: what it shows.
    """
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,  # engines' own words are in it
        finalize=_readable,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(human=human, day=_day)
    environment.globals.update(figures=figures, colours=COLOURS, grey=GREY)
    ready = {component.name: component.finding.state for component in report.status}
    return environment.get_template(TEMPLATE).render(
        report=report, ready=ready, recent=RECENT, timelines=TIMELINES
    )


def _readable(value: object) -> object:
    """Redact text before it is escaped: secrets and control characters are only recognised unescaped."""
    return shown(value) if type(value) is str else value


def _day(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M}" if at else "never"
