"""A Prefect worker that runs the flows declared in prefect.yaml, and no other code.

Prefect's process worker reads from its API how to run a run: command, environment and working directory (job variables
and the pool's job template), code (a deployment's entrypoint, path and pull steps) and hooks. Anyone who can call the
API can then run commands under the worker's account. This worker reads only the run's id: its process is always
`python -m flows.execute`, in this project's directory, with the worker's own environment.
"""

from __future__ import annotations

import sys
import time
from typing import Any, Self

import anyio
from anyio.abc import TaskStatus
from prefect.client.schemas.objects import FlowRun, State, WorkPool
from prefect.runner._flow_run_executor import FlowRunExecutionResult, FlowRunExecutorContext
from prefect.runner._process_manager import ProcessHandle
from prefect.runner._starter_engine import EngineCommandStarter
from prefect.utilities.processutils import command_to_string
from prefect.workers.base import BaseJobConfiguration, BaseVariables, BaseWorker, BaseWorkerResult

from config.loading import ROOT
from tasks.server.api import PROGRAM

# A worker is connected while one of its last polls was answered: 60 s with Prefect's default of 10 s between two.
POLLS = 6


class FixedConfiguration(BaseJobConfiguration):
    """A job configuration that the API cannot change."""

    @classmethod
    async def resolve_for_flow_run(
        cls, flow_run: FlowRun, *, work_pool: WorkPool, worker_name: str, **ignored: Any
    ) -> Self:
        """Labels for Prefect's events; template and job variables are not read."""
        made = cls()
        made.prepare_for_flow_run(flow_run, work_pool=work_pool, worker_name=worker_name)
        return made


class NoHooks:
    """Runs no hooks: Prefect would load the deployment's code in the worker's own process to find them."""

    async def run_cancellation_hooks(self, flow_run: FlowRun, state: State[Any]) -> None:
        """Nothing to run."""

    async def run_crashed_hooks(self, flow_run: FlowRun, state: State[Any]) -> None:
        """Nothing to run."""


class DeclaredFlowWorker(BaseWorker[FixedConfiguration, BaseVariables, BaseWorkerResult]):
    """Serves queues of a pool of the type `process`."""

    type = "process"
    job_configuration = FixedConfiguration
    clock = staticmethod(time.monotonic)
    _answered: float | None = None

    @classmethod
    def __dispatch_key__(cls) -> str:
        """Key in Prefect's list of workers by type, where `process` is Prefect's own."""
        return "isa-process"

    async def get_and_submit_flow_runs(self) -> list[FlowRun]:
        """Poll for runs, and note when the server answered."""
        runs = await super().get_and_submit_flow_runs()
        if self._has_successfully_synced:  # before that it polls nothing
            self._answered = self.clock()
        return runs

    def is_worker_still_polling(self, query_interval_seconds: float) -> bool:
        """Whether the server answers this worker's polls; `/health` answers 503 while it does not.

        Prefect's own answer is that the loop is alive: true also for a worker that never reached its server or whose
        pool does not exist.
        """
        if self._answered is None:
            return False
        return self.clock() - self._answered <= POLLS * query_interval_seconds

    async def run(
        self,
        flow_run: FlowRun,
        configuration: FixedConfiguration,
        task_status: TaskStatus[int] | None = None,
    ) -> BaseWorkerResult:
        """Start the run's process and wait for its end; a cancel signals its process group."""
        command = [sys.executable, "-m", PROGRAM, *sorted(self._work_queues)]
        execution: FlowRunExecutionResult | None = None
        async with FlowRunExecutorContext() as context:
            starter = EngineCommandStarter(
                command=command_to_string(command),
                cwd=ROOT,
                control_channel=context.control_channel,
                isolate_process_group=True,
            )
            executor = context.create_executor(
                flow_run, starter, propose_submitting=False, hook_runner=NoHooks()
            )

            async def execute(*, task_status: TaskStatus[ProcessHandle]) -> None:
                nonlocal execution
                execution = await executor.submit(task_status=task_status)

            async with anyio.create_task_group() as group:
                handle = await group.start(execute)
                if task_status is not None:
                    task_status.started(handle.pid)
        if execution is None or execution.status_code is None:
            raise RuntimeError("the process of the flow run did not start")
        return BaseWorkerResult(
            identifier=str(execution.handle.pid), status_code=execution.status_code
        )
