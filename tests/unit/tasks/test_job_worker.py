"""A worker of Jobs creates each run's Job, and ends runs whose Job ended without them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling, Completed, Pending, Running, Scheduled

from cluster.pods.jobs import EndedJob, RunJobs
from errors import PermanentError, TemporaryError
from tasks.workers import job_worker
from tasks.workers.job_worker import CLOCKS, NO_JOB_AFTER, JobWorker
from tasks.workers.worker import FixedConfiguration

RUN = uuid4()


@dataclass
class Jobs:
    """The Jobs in the cluster."""

    started: list[tuple[str, str, str]] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    over: list[EndedJob] = field(default_factory=list)
    present: set[str] = field(default_factory=set)
    refusals: list[Exception] = field(default_factory=list)

    def start(self, run: str, queue: str, attempt: str) -> str:
        if self.refusals:
            raise self.refusals.pop(0)
        self.started.append((run, queue, attempt))
        return f"isa-run-{run}"

    def stop(self, run: str) -> None:
        self.stopped.append(run)

    def latest(self) -> dict[str, EndedJob | None]:
        if self.refusals:
            raise self.refusals.pop(0)
        return {**dict.fromkeys(self.present), **{job.run: job for job in self.over}}

    def why(self, job: EndedJob) -> str:
        return "OOMKilled, exit code 137"


@dataclass
class Server:
    """The Prefect server: one run, the runs of its queues, and the states that a run had."""

    state: State[Any] | None = None
    queue: str = "backups"
    exists: bool = True
    runs: Sequence[Any] = ()
    earlier: Sequence[State[Any]] = ()

    async def read_flow_run(self, run: UUID) -> Any:
        if not self.exists:
            raise ObjectNotFound(Exception())
        return run_of(run, self.state, self.queue)

    async def read_flow_runs(self, flow_run_filter: FlowRunFilter, **_: Any) -> Sequence[Any]:
        assert flow_run_filter.state
        assert flow_run_filter.state.type
        wanted = flow_run_filter.state.type.any_ or ()
        return [one for one in self.runs if one.state.type in wanted]

    async def read_flow_run_states(self, run: UUID) -> Sequence[State[Any]]:
        return self.earlier


def run_of(identity: UUID, state: State[Any] | None, queue: str = "backups") -> FlowRun:
    return FlowRun(
        id=identity,
        flow_id=uuid4(),
        name="backup-1",
        state=state,
        state_id=uuid4(),  # of an attempt: another one each time
        work_queue_name=queue,
    )


class Recording(JobWorker):
    """Records what it would set on the server."""

    @classmethod
    def __dispatch_key__(cls) -> str:
        return "isa-kubernetes-test"

    def __init__(self, jobs: Jobs, server: Server) -> None:
        super().__init__(
            jobs=cast(RunJobs, jobs), work_pool_name="isa-platform", work_queues=["backups"]
        )
        self._client = cast(Any, server)
        self.crashed: list[str] = []
        self.cancelled: list[str] = []

    def get_flow_run_logger(self, flow_run: Any) -> Any:
        return logging.getLogger("run")  # the real one sends to a server, and starts one

    async def _propose_crashed_state(self, flow_run: Any, message: str, client: Any = None) -> None:
        self.crashed.append(message)

    async def _mark_flow_run_as_cancelled(self, flow_run: Any, state_updates: Any = None) -> None:
        self.cancelled.append(state_updates["message"])


def at(state: State[Any], seconds: float) -> State[Any]:
    """A state that was set some seconds ago."""
    return state.model_copy(update={"timestamp": cast(Any, now() - timedelta(seconds=seconds))})


def now() -> datetime:
    return datetime.now(UTC)


def worker(server: Server, *ended: EndedJob, present: Sequence[str] = ()) -> Recording:
    return Recording(Jobs(over=[*ended], present={*present}), server)


def over(seconds: float = 60) -> EndedJob:
    return EndedJob(str(RUN), now() - timedelta(seconds=seconds), "isa-run-x", "it failed")


def compare(made: Recording) -> Recording:
    asyncio.run(made._compare())
    return made


def run(**more: Any) -> FlowRun:
    state: Any = Scheduled()
    return FlowRun(id=RUN, flow_id=uuid4(), name="backup", state=state, **more)


def test_a_run_of_which_the_process_was_killed_is_crashed_with_the_reason() -> None:
    made = compare(worker(Server(at(Running(), 300)), over()))
    (message,) = made.crashed
    assert "OOMKilled, exit code 137" in message


def test_a_run_that_was_being_cancelled_when_its_pod_ended_is_cancelled() -> None:
    made = compare(worker(Server(at(Cancelling(), 90)), over()))
    assert made.cancelled
    assert not made.crashed


@pytest.mark.parametrize(
    ("state", "seconds"),
    [
        pytest.param(Completed(), 70, id="it reported its own end"),
        pytest.param(Scheduled(), 90, id="it waits to be repeated"),
        pytest.param(Pending(), 5, id="its next Job is about to be created"),
    ],
)
def test_a_run_keeps_its_state_when(state: State[Any], seconds: float) -> None:
    made = compare(worker(Server(at(state, seconds)), over()))
    assert not made.crashed
    assert not made.cancelled


def test_a_state_of_the_second_in_which_the_job_ended_is_before_its_end() -> None:
    ended = over(60)
    state = at(Running(), 0).model_copy(update={"timestamp": cast(Any, ended.at + CLOCKS)})
    assert compare(worker(Server(state), ended)).crashed


def test_a_deleted_run_is_no_fault() -> None:
    assert not compare(worker(Server(exists=False), over())).crashed


def test_a_worker_goes_on_when_the_api_server_is_away() -> None:
    made = worker(Server(at(Running(), 300)), over())
    cast(Any, made._jobs).refusals = [TemporaryError("connection refused")]
    assert not compare(made).crashed
    assert compare(made).crashed  # at the next poll


def test_a_run_without_a_job_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    proposed: list[tuple[UUID, str]] = []

    async def propose(client: Any, state: State[Any], flow_run_id: UUID) -> State[Any]:
        proposed.append((flow_run_id, str(state.type.value)))
        return state

    monkeypatch.setattr(job_worker, "propose_state", propose)
    old = NO_JOB_AFTER.total_seconds() + 1
    lost, with_job, fresh = (run_of(uuid4(), at(Pending(), age)) for age in (old, old, 1))
    compare(worker(Server(runs=[lost, with_job, fresh]), present=[str(with_job.id)]))
    assert proposed == [(lost.id, "SCHEDULED")]


def configuration(flow_run: FlowRun) -> FixedConfiguration:
    made = FixedConfiguration()
    made.prepare_for_flow_run(flow_run)
    return made


def test_a_run_gets_a_job_of_its_queue_and_nothing_else_of_it_is_used() -> None:
    made = worker(Server())
    hostile = run(job_variables={"image": "evil", "env": {"X": "1"}, "serviceAccountName": "x"})
    asyncio.run(made.run(hostile, configuration(hostile)))
    ((run_id, queue, _),) = cast(Any, made._jobs).started
    assert (run_id, queue) == (str(RUN), "backups")


def test_each_attempt_of_a_run_asks_for_a_job_of_its_own() -> None:
    made = worker(Server())
    for _ in range(2):  # as the poll gives it: without a state
        asyncio.run(made.run(run().model_copy(update={"state": None}), configuration(run())))
    first, second = (attempt for _, _, attempt in cast(Any, made._jobs).started)
    assert first != second


def cancelled(
    *states: State[Any], ended: Sequence[EndedJob] = (), present: bool = True
) -> Recording:
    """Compare a run that had these states and is Cancelling."""
    cancelling = at(Cancelling(), 0)
    earlier = [at(state, 9 * (len(states) - n)) for n, state in enumerate(states)]
    hostile = run_of(RUN, cancelling).model_copy(update={"infrastructure_pid": "x:of-another"})
    server = Server(cancelling, runs=[hostile], earlier=[cancelling, *earlier])
    return compare(worker(server, *ended, present=[str(RUN), "other"] if present else ["other"]))


@pytest.mark.parametrize(
    "states",
    [
        pytest.param([Scheduled(), Pending()], id="its pod has not started"),
        pytest.param([Running(), Scheduled(), Pending()], id="nor that of its second attempt"),
    ],
)
def test_a_cancel_before_the_start_deletes_the_runs_own_job_and_no_other(
    states: list[State[Any]],
) -> None:
    made = cancelled(*states)
    assert cast(Any, made._jobs).stopped == [str(RUN)]
    assert made.cancelled


def test_a_run_that_has_started_ends_itself_when_it_is_cancelled() -> None:
    made = cancelled(Pending(), Running())
    assert not cast(Any, made._jobs).stopped
    assert not made.cancelled


def test_a_cancelled_run_without_a_job_that_could_end_it_is_cancelled() -> None:
    assert cancelled(Running(), Scheduled(), ended=[over()]).cancelled  # it was to be repeated
    assert cancelled(Running(), present=False).cancelled


def test_a_run_is_not_cancelled_while_its_job_is_created() -> None:
    made = worker(Server(runs=[run_of(RUN, Cancelling())]))
    made._submitting_flow_run_ids.add(RUN)
    assert not compare(made).cancelled


def test_a_run_of_a_queue_that_the_worker_does_not_serve_gets_no_job() -> None:
    made = worker(Server(queue="rebuilds"))
    with pytest.raises(PermanentError, match="'rebuilds'"):
        asyncio.run(made.run(run(), configuration(run())))
    assert not cast(Any, made._jobs).started


def test_a_run_waits_for_an_api_server_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_worker, "PAUSE_SECONDS", 0.0)
    made = worker(Server())
    cast(Any, made._jobs).refusals = [TemporaryError("connection refused")] * 2
    asyncio.run(made.run(run(), configuration(run())))
    assert len(cast(Any, made._jobs).started) == 1
