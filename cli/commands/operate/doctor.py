"""`isa doctor`: what is stuck, stale, orphaned or about to expire, and what to do about it."""

from __future__ import annotations

import click

from cli.commands import options


@click.command()
@options.environment
@options.prints("operations.documents.environment:Doctor")
@click.option("--fix", is_flag=True, help="Fix problems that are safe to fix automatically.")
def doctor(environment: str, as_json: bool, fix: bool) -> None:
    """Check cluster, object store and Prefect server. Exits 1 on a critical finding."""
    from cli.printing.output import emit, say
    from cli.printing.tables import console, table
    from flows.doctor import examine
    from operations.health.findings import document

    findings = examine(environment, fix=fix)
    checks = [finding.check for finding in findings]
    if as_json:
        emit(document(findings))
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
        if not fix and any(not finding.check.ok and finding.fix for finding in findings):
            say("isa doctor --fix would fix some of these")
    if any(check.critical and not check.ok for check in checks):
        raise click.exceptions.Exit(1)
