"""A Prefect worker that starts each run as a Kubernetes Job, and ends the runs whose Job ended without them.

prefect-kubernetes (0.8.0) is not used. Its worker builds Jobs from the server's job template and job variables, writes
the API's password into them, and deletes the Job that a run's `infrastructure_pid` names, which a caller of the API can
set. This worker uses the run's id and queue alone; `cluster.pods.jobs` builds the Job.

The worker keeps no state: a restarted one finds the Jobs by their labels. A run reports its own states and logs to the
server. Only the end of a run whose process was killed is reported here.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import anyio.to_thread
from anyio.abc import TaskStatus
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
    WorkQueueFilter,
    WorkQueueFilterName,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import Abort, ObjectNotFound
from prefect.states import Scheduled
from prefect.utilities.engine import propose_state
from prefect.workers.base import BaseWorkerResult

from cluster.kube import Kube
from cluster.pods.jobs import EndedJob, RunJobs
from config.models import Settings
from errors import IsaError, PermanentError, TemporaryError
from tasks.workers.worker import DeclaredFlowWorker, FixedConfiguration

# A run waits as Pending for an API server that is away.
START_SECONDS = 600.0
PAUSE_SECONDS = 5.0
# A state is as old as the server's clock says, and a Job's end is in whole seconds of the API server's.
CLOCKS = timedelta(seconds=1)
# From Pending to the Job it takes less than a second.
NO_JOB_AFTER = timedelta(minutes=2)


class JobWorker(DeclaredFlowWorker):
    """Serves queues of a pool of the type `kubernetes`.

    Args:
        jobs: of the runs.
        options: of Prefect's worker.
    """

    type = "kubernetes"

    def __init__(self, *, jobs: RunJobs, **options: Any) -> None:
        super().__init__(**options)
        self._jobs = jobs
        self._settled: set[EndedJob] = set()

    @classmethod
    def __dispatch_key__(cls) -> str:
        """Key in Prefect's list of workers by type."""
        return "isa-kubernetes"

    async def run(
        self,
        flow_run: FlowRun,
        configuration: FixedConfiguration,
        task_status: TaskStatus[str] | None = None,  # type: ignore[override]
    ) -> BaseWorkerResult:
        """Create the run's Job; it is not waited for.

        Raises:
            PermanentError: the run is in a queue that this worker does not serve, or the Job is refused.
            TemporaryError: the API server was away for too long.
        """
        current = await self.client.read_flow_run(
            flow_run.id
        )  # the poll's answer lacks queue and state
        queue = current.work_queue_name
        if queue not in self._work_queues:
            raise PermanentError(f"the run is in queue {queue!r}, which this worker does not serve")
        # each attempt has a Pending state of its own
        name = await self._start(str(current.id), queue, str(current.state_id))
        if task_status is not None:
            task_status.started(name)
        return BaseWorkerResult(identifier=name, status_code=0)

    async def _start(self, run: str, queue: str, attempt: str) -> str:
        deadline = self.clock() + START_SECONDS
        while True:
            try:
                return await anyio.to_thread.run_sync(self._jobs.start, run, queue, attempt)
            except TemporaryError as exc:
                if self.clock() > deadline:
                    raise
                self._logger.warning("run %s waits for its Job: %s", run, exc)
            await anyio.sleep(PAUSE_SECONDS)

    async def get_and_submit_flow_runs(self) -> list[FlowRun]:
        """Poll for runs, and compare the earlier ones with their Jobs."""
        runs = await super().get_and_submit_flow_runs()
        if self._has_successfully_synced:
            await self._compare()
        return runs

    async def _compare(self) -> None:
        try:
            latest = await anyio.to_thread.run_sync(self._jobs.latest)
            ended = [job for job in latest.values() if job is not None]
            self._settled &= set(ended)
            for job in ended:
                if job not in self._settled:
                    await self._settle(job)
            await self._cancel({run for run, job in latest.items() if job is None})
        except IsaError as exc:
            self._logger.warning(
                "cannot read the Jobs of runs, next attempt at the next poll: %s", exc
            )
            return
        await self._start_again(latest)

    async def _settle(self, job: EndedJob) -> None:
        """End a run whose Job has ended, unless it reported its own end or waits for another Job."""
        try:
            run = await self.client.read_flow_run(UUID(job.run))
        except ObjectNotFound:
            self._settled.add(job)
            return
        state = run.state
        if state is None or state.is_final():
            self._settled.add(job)
            return
        if state.is_scheduled() or state.timestamp > job.at + CLOCKS:
            return  # it was started again
        why = await anyio.to_thread.run_sync(self._jobs.why, job)
        if state.is_cancelling():
            words = f"Flow run was cancelled; its Job ended: {why}"
            await self._mark_flow_run_as_cancelled(run, {"message": words})
        else:
            words = f"its Job ended before the run did: {why}"
            self.get_flow_run_logger(run).error(words)
            await self._propose_crashed_state(run, words)

    async def _cancel(self, active: set[str]) -> None:
        """End the cancelled runs that have no process to do it. A running one ends itself (`cancellation_poll`).

        Prefect's own observer is off by default (worker.enable_cancellation, 3.8.8), and forgets a run as soon as its
        Job is created.

        Args:
            active: runs with a Job that has not ended.
        """
        for run in await self._runs_in(StateType.CANCELLING):
            if run.id in self._submitting_flow_run_ids:
                continue
            words = "Flow run was cancelled; it has no Job that could end it."
            if str(run.id) in active:
                if await self._has_started(run):
                    continue
                await anyio.to_thread.run_sync(self._jobs.stop, str(run.id))
                words = "Flow run was cancelled before it started; its Job is deleted."
            await self._mark_flow_run_as_cancelled(run, {"message": words})

    async def _has_started(self, run: FlowRun) -> bool:
        """Whether a cancelled run was Running before.

        A Pending one starts no more: the server refuses it (EnforceCancellingToCancelledTransition in
        prefect/server/orchestration/core_policy.py, 3.8.8). `start_time` tells nothing of a run that is repeated: it is
        that of the first attempt.
        """
        states = await self.client.read_flow_run_states(run.id)
        before = [one for one in states if not one.is_cancelling()]
        latest = max(before, key=lambda one: one.timestamp, default=None)
        return latest is None or not latest.is_pending()

    async def _runs_in(self, state: StateType) -> list[FlowRun]:
        """Runs of this worker's queues in a state."""
        return await self.client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[state]))
            ),
            work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[self._work_pool_name])),
            work_queue_filter=WorkQueueFilter(name=WorkQueueFilterName(any_=[*self._work_queues])),
        )

    async def _start_again(self, present: Collection[str]) -> None:
        """Schedule the runs again whose worker ended between taking them and creating their Job.

        Args:
            present: runs that have a Job.
        """
        now = datetime.now(UTC)
        for run in await self._runs_in(StateType.PENDING):
            taken = str(run.id) in present or run.id in self._submitting_flow_run_ids
            if taken or run.state is None or now - run.state.timestamp < NO_JOB_AFTER:
                continue
            words = "its worker ended before it created the run's Job"
            self.get_flow_run_logger(run).warning("%s: it is started again", words)
            try:
                again: Any = Scheduled(scheduled_time=now, message=words)
                await propose_state(self.client, again, flow_run_id=run.id)
            except Abort as exc:
                self._logger.warning("run %s is not started again: %s", run.id, exc)


def jobs_of(settings: Settings, queues: Sequence[str]) -> RunJobs:
    """Connect to the cluster of a worker's Jobs.

    Args:
        settings: of the worker's environment.
        queues: that it serves.

    Raises:
        PermanentError: a queue has no PodTemplate.
        TemporaryError: the API server does not answer.
    """
    kube = Kube.connect(settings.kubernetes, patience=PAUSE_SECONDS)
    made = RunJobs(kube, settings.kubernetes.control_namespace)
    made.check(queues)
    return made
