"""`isa status`: whether each component is ready, and what is wrong if it is not."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from cli.commands import options

if TYPE_CHECKING:
    from rich.console import Group

    from operations.documents.environment import RecoveryPoint
    from operations.health.status import ComponentStatus

WATCH_SECONDS = 2.0


@click.command()
@options.environment
@options.only
@options.prints("operations.documents.environment:Status")
@click.option("--watch", is_flag=True, help="Refresh every two seconds until interrupted.")
def status(environment: str, only: tuple[str, ...], as_json: bool, watch: bool) -> None:
    """Show checks and members of each component. Exits 1 if one is not ready."""
    from rich.live import Live

    from cli.printing.broken_pipe import abandoned
    from cli.printing.output import emit
    from cli.printing.tables import console
    from config.loading import load
    from config.models import COMPONENTS
    from operations.environment.environment import Environment, require_known
    from operations.health.status import document, read_recovery_points, read_status

    require_known(only, COMPONENTS)
    env = Environment(load(environment)).open_releases()
    found, points = read_status(env, only), read_recovery_points(env, only)
    if as_json:
        emit(document(found, points))
    elif watch:
        with Live(_tables(found, points), console=console()) as live:
            while not abandoned(sys.stdout):
                time.sleep(WATCH_SECONDS)
                found, points = read_status(env, only), read_recovery_points(env, only)
                live.update(_tables(found, points))
    else:
        console().print(_tables(found, points))
    if not all(component.ready for component in found):
        raise click.exceptions.Exit(1)


def _tables(found: list[ComponentStatus], points: tuple[RecoveryPoint, ...]) -> Group:
    from rich.console import Group

    from cli.printing.tables import table

    checks: list[tuple[Any, ...]] = []
    pods: list[tuple[Any, ...]] = []
    for component in found:
        for index, check in enumerate(component.finding.checks):
            name = component.name if index == 0 else ""
            checks.append((name, check.name, check.verdict(), check.hint))
        for m in component.members:
            role = component.role(m)
            pods.append(
                (component.name, m.name, role.role, role.lag, m.node, m.restarts or "", m.trouble)
            )
    stored = [
        (point.component, check.name, check.verdict("BAD", "warning"), check.hint)
        for point in points
        for check in point.checks
    ]
    heads = ("component", "check", "verdict", "finding")
    recovery = ("", table("Recovery points", heads, stored)) if stored else ()
    return Group(
        table("Components", ("component", "check", "verdict", "finding"), checks),
        "",
        table("Members", ("component", "pod", "role", "lag", "node", "restarts", "trouble"), pods),
        *recovery,
    )
