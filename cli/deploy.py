"""`isa deploy`: as a run of the Prefect server, so that it is in the audit trail, or in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cli import options

if TYPE_CHECKING:
    from operations.progress import NodeProgress
    from operations.run import DeployReport


@click.command()
@options.environment
@options.only
@options.as_json
@click.option("--local", is_flag=True, help="Run in this process, without a Prefect server.")
@click.option(
    "--idempotency-key", help="The same key returns the same run instead of starting a second one."
)
def deploy(
    environment: str, only: tuple[str, ...], as_json: bool, local: bool, idempotency_key: str | None
) -> None:
    """Bring the platform to what is declared: plan, preflight, then node by node behind its gate."""
    from cli.main import emit
    from config.loading import load

    settings = load(environment)  # every fault of the settings is told before a run is made
    with LiveNodes(quiet=as_json) as nodes:
        report = (
            _in_process(settings, only, nodes)
            if local
            else _by_server(environment, only, nodes, idempotency_key)
        )
    if as_json:
        emit(report)
    else:
        nodes.summary(report)
    if report["state"] != "completed":
        raise click.exceptions.Exit(1)


def _in_process(settings: Any, only: tuple[str, ...], nodes: LiveNodes) -> dict[str, Any]:
    from cluster.lease import identity
    from operations.platform import Platform
    from operations.run import run_deploy, threads

    platform = Platform.open(settings)
    with threads(platform) as start:
        report: DeployReport = run_deploy(
            platform,
            only=only,
            run=f"isa deploy --local as {identity()}",
            start=start,
            publish=nodes.publish,
        )
    return report.as_json()


def _by_server(
    environment: str, only: tuple[str, ...], nodes: LiveNodes, key: str | None
) -> dict[str, Any]:
    from flows.runs import DEPLOY, follow, start_run

    parameters = {"environment": environment, "only": list(only) or None}
    run = start_run(DEPLOY, parameters, idempotency_key=key)
    nodes.announce(f"flow run {run.name}: {run.url}")
    try:
        return follow(run, f"deploy-{environment}", nodes.rows, nodes.announce)
    except KeyboardInterrupt:
        nodes.announce(f"no longer following; the run goes on, cancel it at {run.url}")
        raise


class LiveNodes:
    """One line per node that changes in place on a terminal, or one line per change elsewhere."""

    def __init__(self, *, quiet: bool) -> None:
        from rich.live import Live

        from cli.tables import console, nodes_table

        self._console = console(stderr=True)
        self._table = nodes_table
        self._shown: dict[str, str] = {}
        self._quiet = quiet
        live = self._console.is_terminal and not quiet
        self._live = (
            Live(nodes_table([]), console=self._console, refresh_per_second=4) if live else None
        )

    def __enter__(self) -> LiveNodes:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def announce(self, words: str) -> None:
        """Say something above the table."""
        if not self._quiet:
            self._console.print(words, highlight=False, soft_wrap=True)

    def publish(self, lines: list[NodeProgress]) -> None:
        """Show the progress of a deploy in this process."""
        from operations.progress import as_rows

        self.rows(as_rows(lines))

    def rows(self, rows: list[dict[str, Any]]) -> None:
        """Show the rows of the table."""
        if self._live:
            self._live.update(self._table(rows))
            return
        for row in rows:
            state = row["outcome"] or row["phase"]
            if self._shown.get(row["name"], "waiting") != state:
                self._shown[row["name"]] = state
                self.announce(
                    f"{row['name']:<16} {state:<12} {row['seconds']:6.1f} s  {row['note']}"
                )

    def summary(self, report: dict[str, Any]) -> None:
        """Print how it ended, on standard output."""
        from cli.tables import console, nodes_table

        out = console()
        rows = [{**node, "phase": "", "note": node["reason"]} for node in report["nodes"]]
        if rows:
            out.print(nodes_table(rows, f"Deploy {report['state']} in {report['seconds']:.1f} s"))
        for finding in report.get("blocked", ()):
            out.print(f"preflight: {finding}", style="red", highlight=False)
        if report.get("message"):
            out.print(report["message"], highlight=False)
