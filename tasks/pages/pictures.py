"""Pictures of a run: the graph in the colours of its outcome, the timeline, the history of backups and verifications.

Both of Prefect's UIs show a picture in Markdown by a `data:` address; neither shows SVG in the text, and only one of
them draws Mermaid (3.8.8).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prefect.logging import get_run_logger

from cluster.dag import Dag
from errors import IsaError
from operations.deploy.plan import Plan
from operations.environment.environment import Environment
from operations.report import figures, history
from operations.report.report import needs_of, outcome
from operations.report.svg import Drawing
from operations.runner.progress import NodeProgress
from tasks.pages.artifacts import keep
from tasks.pages.markdown import Markdown, bold, picture


def plan_picture(plan: Plan, graph: Dag) -> str:
    """Return the graph in the colours of the plan, as Markdown."""
    actions = {node.name: node.action for node in plan.nodes}
    return _picture(lambda: figures.graph(needs_of(graph), actions, "What this run plans to do"))


def outcome_artifact(nodes: Iterable[NodeProgress], graph: Dag, environment: str) -> None:
    """Keep with the run how each node ended, and when it was running."""
    lines = list(nodes)
    outcomes = {line.name: outcome(line) for line in lines}
    pictures = [
        _picture(lambda: figures.graph(needs_of(graph), outcomes, "How it ended")),
        "",
        _picture(lambda: figures.timeline(lines, "When each node was running")),
    ]
    keep(pictures, f"timeline-{environment}", "How each node ended, and when it was running")


def history_artifact(environment: Environment) -> None:
    """Keep with the run the history of all backups and verifications; if it cannot be read, the run does not fail."""
    try:
        found = history.read_history(environment)
    except IsaError as exc:
        get_run_logger().warning("the history of verifications could not be read: %s", exc)
        return
    words = Markdown("{}: {}. {} backups; {}")
    parts = [_picture(lambda: figures.proofs(found)), "", figures.LEGEND]
    for one in found:
        parts += [
            "",
            words.format(bold(one.component), one.headline, len(one.backups), one.growth),
            "",
            _picture(lambda one=one: figures.backups(one)),  # type: ignore[misc]
        ]
    key = f"history-{environment.settings.environment}"
    keep(parts, key, "Verifications, sizes and durations so far")


def _picture(draw: Callable[[], Drawing]) -> str:
    try:
        drawn = draw()
        return picture(drawn.words, drawn.address)
    except Exception as exc:  # whatever it is: no deploy fails for want of its picture
        get_run_logger().warning("no picture could be drawn: %s", exc)
        return "(no picture could be drawn)"
