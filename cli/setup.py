"""`isa setup` and `isa notify`: what the Prefect server must know of this project, and whom it tells."""

from __future__ import annotations

import click

from cli import options


@click.command()
@options.environment
@options.as_json
def setup(environment: str, as_json: bool) -> None:
    """Register work pools, deployments, schedules and automations on the Prefect server."""
    from cli.output import emit, say
    from config.loading import load
    from tasks.setup import set_up

    words = set_up(load(environment))
    if as_json:
        emit({"automations": words})
    else:
        say(f"deployments are as prefect.yaml declares them; automations: {words}")


@click.command()
@options.environment
@options.as_json
def notify(environment: str, as_json: bool) -> None:
    """Send a test message through notify.blocks. Exits 1 if one did not arrive."""
    from cli.output import emit
    from cli.tables import console, table
    from config.loading import load
    from tasks.notifications import send_test

    sent = send_test(load(environment))
    if as_json:
        emit({"sent": [vars(one) for one in sent]})
    else:
        rows = [
            (one.block, "arrived" if one.arrived else "LOST", f"{one.seconds:.1f}", one.words)
            for one in sent
        ]
        console().print(table("Test message", ("block", "verdict", "seconds", "why"), rows))
    if not all(one.arrived for one in sent):
        raise click.exceptions.Exit(1)
