"""`isa setup`: what the Prefect server must know of this project."""

from __future__ import annotations

import click

from cli import options


@click.command()
@options.environment
@options.as_json
def setup(environment: str, as_json: bool) -> None:
    """Bring deployments, schedules and automations to the Prefect server; as often as you like."""
    from cli.main import emit
    from config.loading import load
    from tasks.setup import set_up

    words = set_up(load(environment))
    if as_json:
        emit({"automations": words})
    else:
        click.echo(f"deployments are as prefect.yaml declares them; automations: {words}")
