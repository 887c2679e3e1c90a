"""`isa deploy`: as a run of the Prefect server, so that it is in the audit trail, or in this process."""

from __future__ import annotations

from typing import Any

import click

from cli import options
from cli.live import LiveNodes, in_process


@click.command()
@options.environment
@options.only
@options.as_json
@click.option("--local", is_flag=True, help="Run in this process, without a Prefect server.")
@click.option(
    "--idempotency-key", help="Start at most one run for this key; a second call returns that run."
)
def deploy(
    environment: str, only: tuple[str, ...], as_json: bool, local: bool, idempotency_key: str | None
) -> None:
    """Deploy the declared state: plan, preflight, then each node behind its gate."""
    from cli.output import emit
    from config.loading import load
    from config.models import COMPONENTS
    from operations.environment.environment import NAMESPACE, STORAGE, require_known

    settings = load(environment)  # every fault of the settings is told before a run is made
    require_known(only, (STORAGE, NAMESPACE, *COMPONENTS))
    with LiveNodes(quiet=as_json) as nodes:
        report = (
            _in_process(settings, only, nodes)
            if local
            else _by_server(environment, only, nodes, idempotency_key)
        )
    if as_json:
        emit(report)
    else:
        _summary(report)
    if report["state"] != "completed":
        raise click.exceptions.Exit(1)


def _in_process(settings: Any, only: tuple[str, ...], nodes: LiveNodes) -> dict[str, Any]:
    from cluster.lease import identity
    from operations.deploy.run import run_deploy
    from operations.environment.environment import Environment
    from operations.runner.threads import threads

    env = Environment(settings).open_releases()
    deploy = env.settings.deploy
    with threads(deploy.max_parallel_releases, deploy.attempts) as start:
        report = run_deploy(
            env,
            only=only,
            run=f"isa deploy --local as {identity()}",
            start=start,
            publish=nodes.publish,
        )
    return in_process(report.as_json())


def _by_server(
    environment: str, only: tuple[str, ...], nodes: LiveNodes, key: str | None
) -> dict[str, Any]:
    from flows.runs import DEPLOY
    from operations.deploy.run import DeployReport

    parameters = {"environment": environment, "only": list(only) or None}
    ended = nodes.follow(DEPLOY, parameters, f"deploy-{environment}", key)
    return ended.as_json(DeployReport(ended.seconds, ended.nodes).as_json())


def _summary(report: dict[str, Any]) -> None:
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
