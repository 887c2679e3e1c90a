"""A worker starts the same process for every run, whatever the server says about it."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun, WorkPool

from errors import ArgumentError, ConfigurationError
from tasks.workers.serve import serve
from tasks.workers.worker import POLLS, DeclaredFlowWorker, FixedConfiguration

HOSTILE = {"command": "touch /tmp/evil", "env": {"LD_PRELOAD": "/tmp/evil.so"}, "name": "evil"}


def test_nothing_of_template_and_job_variables_reaches_the_configuration_of_a_run() -> None:
    run = FlowRun(flow_id=uuid4(), name="rebuild-nats", job_variables=HOSTILE)
    template = {"job_configuration": HOSTILE, "variables": {"properties": {}}}
    pool = WorkPool.model_construct(name="isa-platform", id=uuid4(), base_job_template=template)
    found: Any = asyncio.run(
        FixedConfiguration.resolve_for_flow_run(
            run, client=None, work_pool=pool, worker_name="isa", worker_id=None
        )
    )
    assert "evil" not in found.model_dump_json()


def test_a_queue_that_prefect_yaml_does_not_have_is_refused_before_anything_starts() -> None:
    with pytest.raises(ArgumentError) as caught:
        serve(["backups", "nightly"], environ={"ISA_ENV": "production"})
    (fault,) = caught.value.faults
    assert "'nightly' is not a queue of prefect.yaml" in str(fault)
    assert "backups" in str(fault)


def test_a_worker_without_an_environment_does_not_start() -> None:
    with pytest.raises(ConfigurationError) as caught:
        serve(["backups"], environ={})
    (fault,) = caught.value.faults
    assert "ISA_ENV" in str(fault)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class ServerThatAnswers(DeclaredFlowWorker):
    """A worker whose server has no runs for it, or is away."""

    away = False
    clock = Clock()

    @classmethod
    def __dispatch_key__(cls) -> str:
        return "isa-process-test"

    async def _get_scheduled_flow_runs(self) -> list[Any]:
        if self.away:
            raise ConnectionError("no server")
        return []


INTERVAL = 10.0


@pytest.fixture
def worker() -> ServerThatAnswers:
    made = ServerThatAnswers(work_pool_name="isa-platform")
    made.clock = Clock()
    return made


def test_a_worker_that_never_reached_its_server_is_not_healthy(worker: ServerThatAnswers) -> None:
    worker._has_successfully_synced = False  # as Prefect leaves it: no server, or no such pool
    asyncio.run(worker.get_and_submit_flow_runs())
    assert not worker.is_worker_still_polling(INTERVAL)


def test_a_worker_is_healthy_until_its_server_was_silent_for_some_polls(
    worker: ServerThatAnswers,
) -> None:
    worker._has_successfully_synced = True
    asyncio.run(worker.get_and_submit_flow_runs())
    assert worker.is_worker_still_polling(INTERVAL)

    worker.away = True
    worker.clock.now += POLLS * INTERVAL
    with pytest.raises(ConnectionError):
        asyncio.run(worker.get_and_submit_flow_runs())
    assert worker.is_worker_still_polling(INTERVAL)
    worker.clock.now += 1
    assert not worker.is_worker_still_polling(INTERVAL)

    worker.away = False
    asyncio.run(worker.get_and_submit_flow_runs())
    assert worker.is_worker_still_polling(INTERVAL)
