"""`isa wal`: store PostgreSQL's WAL continuously, and show what is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli.commands import options

if TYPE_CHECKING:
    from operations.documents.wal import WalStatus


@click.group()
def wal() -> None:
    """Store PostgreSQL's WAL continuously, and show what is stored."""


@wal.command()
@options.environment
@click.option(
    "--with-healthcheck",
    is_flag=True,
    help="Serve GET /metrics and GET /health on port 8080: 200 while the stream works or tries to, 503 if it is stuck.",
)
def stream(environment: str, with_healthcheck: bool) -> None:
    """Store PostgreSQL's WAL until SIGINT or SIGTERM.

    One stream works; a second one waits until the first has ended. It prints a line at each change of state. It goes on
    through failovers, restarts and outages of the object store.
    """
    import signal
    import threading
    from contextlib import nullcontext

    from archive.wal.names import COMPONENT
    from cli.printing.output import say
    from cluster.lease import identity
    from config.loading import load
    from operations.environment.environment import Environment
    from operations.runner.context import RunContext
    from operations.wal.metrics import metrics
    from operations.wal.monitor import StreamMonitor
    from operations.wal.probe import serving
    from operations.wal.service import require_enabled, run_stream

    settings = load(environment)
    require_enabled(settings)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    monitor = StreamMonitor(say, settings.wal.postgresql.spool_bytes)
    run = RunContext(f"isa wal stream as {identity()}", tell=say)

    def measured() -> str:
        return metrics(monitor.note(), settings.environment, COMPONENT)

    probe = serving(lambda: monitor.alive, measured) if with_healthcheck else nullcontext(0)
    with probe:
        say(
            f"streaming the WAL of {COMPONENT} of {environment} to {settings.storage.object.bucket}"
        )
        run_stream(Environment(settings), run, monitor, ended)


@wal.command()
@options.environment
@options.prints("operations.documents.wal:WalStatus")
def status(environment: str, as_json: bool) -> None:
    """Show what WAL is stored, its gaps, and how its stream stands. Exits 1 on a critical finding."""
    from cli.printing.output import emit
    from config.loading import load
    from operations.environment.environment import Environment
    from operations.wal.status import read_wal

    found = read_wal(Environment(load(environment)).open_store())
    if as_json:
        emit(found)
    else:
        _print(found)
    if any(check.critical and not check.ok for check in found.checks):
        raise click.exceptions.Exit(1)


def _print(found: WalStatus) -> None:
    from cli.printing.output import say
    from cli.printing.tables import console, table

    out = console()
    if not found.enabled:
        say("wal.postgresql.enabled is false: no WAL is stored between two backups")
    checks = [(c.name, c.verdict("BAD", "warning"), c.hint) for c in found.checks]
    if checks:
        out.print(table("WAL", ("check", "verdict", "finding"), checks))
    rows = [
        (
            system.system,
            ", ".join(str(number) for number in one.timelines),
            one.start,
            one.end,
            f"{one.covers:%Y-%m-%d %H:%M:%S}" if one.covers else "not known",
            one.objects,
        )
        for system in found.systems
        for one in system.ranges
    ]
    heads = ("database cluster", "timelines", "from", "to", "commits until (UTC)", "objects")
    out.print(table("Stored WAL", heads, rows))
    for system in found.systems:
        say(*(f"gap: {words}" for words in (*system.gaps, *system.forks)))
