"""`isa worker`: takes runs from queues of the Prefect server and runs the declared flows."""

from __future__ import annotations

import click


@click.command()
@click.argument("queues", nargs=-1, required=True, metavar="QUEUE...")
@click.option("--name", default="", help="Name in the Prefect UI. Default: queues and host name.")
@click.option(
    "--jobs",
    is_flag=True,
    help="Run each run as a Kubernetes Job, made from the PodTemplate isa-run-QUEUE. Jobs outlive the worker.",
)
@click.option(
    "--with-healthcheck",
    is_flag=True,
    help="Serve GET /health on port 8080: 200 while the Prefect server answers this worker, 503 otherwise.",
)
def worker(queues: tuple[str, ...], name: str, jobs: bool, with_healthcheck: bool) -> None:
    """Run a worker for these queues until SIGINT or SIGTERM.

    It runs only flows that prefect.yaml declares, in their declared queue. Code, command and environment come from this
    installation; what the server says about them is refused.
    """
    from tasks.workers.serve import serve

    serve(queues, name, jobs=jobs, with_healthcheck=with_healthcheck)
