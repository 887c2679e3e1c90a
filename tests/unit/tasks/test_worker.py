"""A worker starts the same process for every run, whatever the server says about it."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun, WorkPool

from errors import ConfigurationError
from tasks.worker import FixedConfiguration, serve

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
    with pytest.raises(ConfigurationError) as caught:
        serve(["backups", "nightly"], environ={"ISA_ENV": "production"})
    (fault,) = caught.value.faults
    assert "'nightly' is not a queue of prefect.yaml" in str(fault)
    assert "backups" in str(fault)


def test_a_worker_without_an_environment_does_not_start() -> None:
    with pytest.raises(ConfigurationError) as caught:
        serve(["backups"], environ={})
    (fault,) = caught.value.faults
    assert "ISA_ENV" in str(fault)
