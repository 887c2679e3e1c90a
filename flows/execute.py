"""The process of one flow run: finds the run's flow in the shipped prefect.yaml and runs it.

A worker starts it (`tasks.workers`), with the queues that it serves as arguments. It reads the run from the API once:
the names of its flow and deployment, its queue and its parameters. Prefect's own engine (prefect/engine.py, 3.8.8)
also executes pull steps, imports any entrypoint, loads blocks that parameters refer to, and unpickles the result of a
run that someone has set to Completed. This module does none of that.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

from prefect._internal.control_listener import configure_from_env
from prefect.client.schemas.objects import FlowRun
from prefect.engine import handle_engine_signals
from prefect.flow_engine import load_flow_run, run_flow
from prefect.flows import Flow
from prefect.logging.loggers import flow_run_logger
from prefect.states import Failed

from config.loading import ENVIRONMENT
from config.process_environment import clean_process
from errors import PermanentError
from flows.parameters import validate
from redaction import install, redact
from tasks.server.api import connect, deployments
from tasks.server.deployed import code_faults


class Refused(PermanentError):
    """The run does not match a declared deployment."""


def main(queues: Sequence[str]) -> None:
    """Run the flow run that the worker names in `PREFECT__FLOW_RUN_ID`.

    Args:
        queues: that the worker serves.
    """
    clean_process()
    install()
    configure_from_env()  # how the worker tells a cancel from another signal
    identity = UUID(os.environ["PREFECT__FLOW_RUN_ID"])
    with handle_engine_signals(identity):
        run = load_flow_run(identity)
        try:
            flow = declared_flow(run, queues)
            parameters = validate(flow.fn, run.parameters)
            refuse_other_environment(parameters, os.environ.get(ENVIRONMENT, ""))
        except PermanentError as exc:
            _refuse(run, exc)
            return
        with TemporaryDirectory(prefix="isa-results-") as directory:
            # an error is stored as a result: never where the server's settings say
            run_flow(
                flow.with_options(result_storage=Path(directory), persist_result=False),
                flow_run=run,
                parameters=parameters,
                return_type="state",  # "result" reads what the state refers to, which is the API's
                error_logger=flow_run_logger(run).logger,
            )


def declared_flow(
    run: FlowRun,
    queues: Sequence[str],
    declared: Sequence[Mapping[str, Any]] | None = None,
) -> Flow[..., Any]:
    """Return the flow of a run, imported by the entrypoint in prefect.yaml.

    Args:
        run: as the API returns it.
        queues: that this worker serves.
        declared: deployments; those of prefect.yaml by default.

    Raises:
        Refused: the run's deployment, flow or queue is not the declared one, or the run asks to execute anything else.
    """
    if run.deployment_id is None:
        raise Refused("it has no deployment")
    with connect() as client:
        deployment = client.read_deployment(run.deployment_id).model_dump(mode="json")
        name = client.read_flow(run.flow_id).name
    known = {
        deployment["name"]: deployment
        for deployment in (deployments() if declared is None else declared)
    }
    one = known.get(deployment["name"])
    if one is None:
        raise Refused(f"prefect.yaml declares no deployment {deployment['name']!r}")
    faults = code_faults(one, deployment)
    if run.job_variables:
        faults.append("the run sets job variables")
    queue = one["work_pool"]["work_queue_name"]
    if queue not in queues or run.work_queue_name != queue:
        faults.append(f"the run is in queue {run.work_queue_name!r} instead of {queue!r}")
    flow = load(one["entrypoint"])
    if flow.name != name:
        faults.append(f"its flow is {name!r} instead of {flow.name!r}")
    if faults:
        raise Refused(f"deployment {one['name']}: {'; '.join(faults)}")
    return flow


def refuse_other_environment(parameters: Mapping[str, Any], own: str) -> None:
    """Refuse a run that names another settings file than its worker's, before any is read.

    Args:
        parameters: of the run.
        own: environment of the worker; "" if it has none.

    Raises:
        Refused: they differ.
    """
    named = parameters.get("environment")
    if named is not None and named != own:
        served = f"serves {own!r}" if own else f"has no {ENVIRONMENT}"
        raise Refused(f"parameter environment is {named!r}, but this worker {served}")


def load(entrypoint: str) -> Flow[..., Any]:
    """Import a flow of this project.

    Args:
        entrypoint: `flows/FILE.py:FUNCTION`, of prefect.yaml.
    """
    file, _, function = entrypoint.partition(":")
    module = import_module(".".join(Path(file).with_suffix("").parts))
    flow: Flow[..., Any] = getattr(module, function)
    return flow


def _refuse(run: FlowRun, error: PermanentError) -> None:
    """End a run without running it. Forced, because a policy in the run itself may ask for retries."""
    message = redact(f"refused, nothing was run: {error}. Restore the deployments with isa setup")
    flow_run_logger(run).error(message)
    with connect() as client:
        client.set_flow_run_state(run.id, Failed(message=message), force=True)


if __name__ == "__main__":
    main(sys.argv[1:])
