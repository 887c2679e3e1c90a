"""Starts a worker for queues of prefect.yaml, until it is stopped."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from prefect.utilities.processutils import setup_signal_handlers_worker

from config.loading import ENVIRONMENT, load
from errors import ArgumentError, ConfigurationError, Fault
from tasks.server.api import deployments
from tasks.workers.job_worker import JobWorker, jobs_of
from tasks.workers.worker import DeclaredFlowWorker


def serve(
    queues: Sequence[str],
    name: str = "",
    environ: Mapping[str, str] = os.environ,
    *,
    jobs: bool = False,
    with_healthcheck: bool = False,
) -> None:
    """Run a worker until it gets SIGINT or SIGTERM.

    Args:
        queues: of the pool in prefect.yaml that it takes runs from.
        name: shown in the UI; queues and host by default.
        environ: its ISA_ENV is the environment that this worker serves.
        jobs: whether each run is a Kubernetes Job, and not a process of this worker.
        with_healthcheck: whether it serves `/health`, at Prefect's own settings PREFECT_WORKER_WEBSERVER_{HOST,PORT}.

    Raises:
        ArgumentError: prefect.yaml has no such queue.
        ConfigurationError: the worker has no environment, or its settings are wrong.
        PermanentError: a queue has no PodTemplate.
        TemporaryError: the Kubernetes API does not answer.
    """
    pools = {
        deployment["work_pool"]["work_queue_name"]: deployment["work_pool"]["name"]
        for deployment in deployments()
    }
    faults = [
        Fault(
            "QUEUE",
            f"{queue!r} is not a queue of prefect.yaml",
            f"one of {', '.join(pools)}",
        )
        for queue in queues
        if queue not in pools
    ]
    if faults:
        raise ArgumentError(faults)
    if not environ.get(ENVIRONMENT):
        words = "is not set: the worker would refuse every run"
        raise ConfigurationError(
            [Fault(f"environment variable {ENVIRONMENT}", words, "production, staging")]
        )
    (pool,) = {pools[queue] for queue in queues}
    common: dict[str, Any] = {
        "work_pool_name": pool,
        "work_queues": list(queues),
        "name": name or f"isa {'+'.join(queues)} on {socket.gethostname()}",
        "create_pool_if_not_found": False,  # `isa setup` makes it
    }
    worker: DeclaredFlowWorker
    if jobs:
        worker = JobWorker(jobs=jobs_of(load(environ[ENVIRONMENT]), queues), **common)
    else:
        worker = DeclaredFlowWorker(**common)
    setup_signal_handlers_worker(os.getpid(), "the isa worker", print)
    asyncio.run(worker.start(with_healthcheck=with_healthcheck))
