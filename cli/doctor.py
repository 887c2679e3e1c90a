"""`isa doctor`: what is stuck, stale, orphaned or about to expire, and what to do about it."""

from __future__ import annotations

import click

from cli import options


@click.command()
@options.environment
@options.prints("operations.documents.environment:Doctor")
@click.option("--fix", is_flag=True, help="Fix problems that are safe to fix automatically.")
def doctor(environment: str, as_json: bool, fix: bool) -> None:
    """Check cluster, object store and Prefect server. Exits 1 on a critical finding."""
    from cli.output import emit, say
    from cli.tables import console, table
    from flows.doctor import examine
    from operations.documents.environment import Check, Doctor, Finding

    found = examine(environment, fix=fix)
    checks = [one.check for one in found]
    if as_json:
        findings = (
            Finding(**vars(Check.of(one.check)), fixable=one.fix is not None) for one in found
        )
        emit(Doctor(checks=tuple(findings)))
    else:
        rows = [
            (
                c.name,
                c.verdict("BAD", "warning"),
                f"{c.seconds:.1f}",
                c.hint,
            )
            for c in checks
        ]
        console().print(table("Doctor", ("check", "verdict", "seconds", "finding"), rows))
        if not fix and any(not one.check.ok and one.fix for one in found):
            say("isa doctor --fix would fix some of these")
    if any(check.critical and not check.ok for check in checks):
        raise click.exceptions.Exit(1)
