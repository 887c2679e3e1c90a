"""`isa deploy`: as a run of the Prefect server, which keeps an audit trail, or in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cli.commands import options
from cli.printing.live import LiveNodes, results

if TYPE_CHECKING:
    from operations.documents.runs import Deploy


@click.command()
@options.environment
@options.only
@options.prints("operations.documents.runs:Deploy")
@click.option("--local", is_flag=True, help="Run in this process, without a Prefect server.")
@click.option(
    "--idempotency-key", help="Start at most one run for this key; a second call returns that run."
)
def deploy(
    environment: str, only: tuple[str, ...], as_json: bool, local: bool, idempotency_key: str | None
) -> None:
    """Deploy the declared state: plan, preflight, then each node behind its gate."""
    from cli.printing.output import emit
    from config.loading import load
    from config.models import COMPONENTS
    from operations.environment.environment import NAMESPACE, STORAGE, require_known

    settings = load(environment)  # every fault of the settings is told before a run is made
    require_known(only, (STORAGE, NAMESPACE, *COMPONENTS))
    with LiveNodes(quiet=as_json) as nodes:
        report = (
            nodes.here(lambda: _in_process(settings, only, nodes), _from_rows)
            if local
            else _by_server(environment, only, nodes, idempotency_key)
        )
    if as_json:
        emit(report)
    else:
        _summary(report)
    if report.state != "completed":
        raise click.exceptions.Exit(1)


def _in_process(settings: Any, only: tuple[str, ...], nodes: LiveNodes) -> Deploy:
    from cluster.lease import identity
    from operations.deploy.run import run_deploy
    from operations.environment.environment import Environment
    from operations.runner.context import RunContext
    from operations.runner.threads import threads

    env = Environment(settings).open_releases()
    deploy = env.settings.deploy
    with threads(deploy.max_parallel_releases, deploy.attempts) as start:
        report = run_deploy(
            env,
            RunContext(f"isa deploy --local as {identity()}", publish=nodes.publish),
            only=only,
            start=start,
        )
    return report.document()


def _by_server(
    environment: str, only: tuple[str, ...], nodes: LiveNodes, key: str | None
) -> Deploy:
    from tasks.server.runs import DEPLOY

    parameters = {"environment": environment, "only": list(only) or None}
    ended = nodes.follow(DEPLOY, parameters, f"deploy-{environment}", key)
    return ended.document(_from_rows(ended.rows))


def _from_rows(rows: list[dict[str, Any]]) -> Deploy:
    from operations.documents.runs import Deploy, DeployNode

    nodes = results(rows, DeployNode)
    return Deploy(state="failed", seconds=0.0, message="", nodes=nodes, blocked=())


def _summary(report: Deploy) -> None:
    """Print the result on standard output."""
    from cli.printing.tables import console, nodes_table

    out = console()
    rows = [{**node.plain(), "phase": "", "note": node.reason} for node in report.nodes]
    if rows:
        out.print(nodes_table(rows, f"Deploy {report.state} in {report.seconds:.1f} s"))
    for finding in report.blocked:
        out.print(f"preflight: {finding}", style="red", highlight=False)
    if report.message:
        out.print(report.message, highlight=False)
