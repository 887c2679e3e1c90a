"""`isa setup` and `isa notify`: register this project on the Prefect server, and test its notifications."""

from __future__ import annotations

import click

from cli.commands import options


@click.command()
@options.environment
@options.prints("operations.documents.environment:Setup")
def setup(environment: str, as_json: bool) -> None:
    """Register work pools, deployments, schedules and automations on the Prefect server."""
    from cli.printing.output import emit, say
    from config.loading import load
    from operations.documents.environment import Setup
    from tasks.server.setup import set_up

    words = set_up(load(environment))
    if as_json:
        emit(Setup(automations=words))
    else:
        say(f"deployments match prefect.yaml; automations: {words}")


@click.command()
@options.environment
@options.prints("operations.documents.environment:Notify")
def notify(environment: str, as_json: bool) -> None:
    """Send a test message through notify.blocks. Exits 1 if one did not arrive."""
    from cli.printing.output import emit
    from cli.printing.tables import console, table
    from config.loading import load
    from operations.documents.environment import Notify, SentMessage
    from tasks.server.notifications import send_test

    sent = send_test(load(environment))
    if as_json:
        rows = (
            SentMessage(
                block=one.block,
                arrived=one.arrived,
                seconds=round(one.seconds, 2),
                reason=one.words,
            )
            for one in sent
        )
        emit(Notify(sent=tuple(rows)))
    else:
        lines = [
            (one.block, "arrived" if one.arrived else "LOST", f"{one.seconds:.1f}", one.words)
            for one in sent
        ]
        console().print(table("Test message", ("block", "verdict", "seconds", "why"), lines))
    if not all(one.arrived for one in sent):
        raise click.exceptions.Exit(1)
