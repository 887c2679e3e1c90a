"""Registers this project on a Prefect server: work pool, deployments with the schedules of the settings, automations.

It is idempotent: nothing is created twice, and what differs is changed. What an operator has paused stays paused.
"""

from __future__ import annotations

import sys
import tempfile

import yaml
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectNotFound

from cluster.command import Command
from config.loading import ROOT
from config.models import Settings
from config.process_environment import child_environ
from config.sections.control import PoolSettings
from errors import PermanentError
from tasks.server import automations
from tasks.server.api import JOB_TEMPLATE, connect
from tasks.server.deployed import (
    complete,
    declared,
    pause,
    pools,
    present,
    registered,
    remove_undeclared_schedules,
    variables,
)

DEPLOY_SECONDS = 300.0  # nine deployments take about 8 s, most of it imports


def set_up(settings: Settings) -> str:
    """Make the configured server match prefect.yaml, deployments/automations.yaml and the settings.

    Args:
        settings: of the server's environment.

    Returns:
        What was done to the automations.

    Raises:
        PermanentError: the server refuses a part of it.
        TemporaryError: it does not answer.
    """
    for pool in sorted(pools()):
        _pool(pool, settings.pool)
    declarations, before = declared(settings), present().own
    for name, live in before.items():
        remove_undeclared_schedules(declarations[name], live)
    environ = {**child_environ(), **variables(settings)}
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(registered(settings), file)
        file.flush()
        words = ("-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", file.name)
        done = Command(sys.executable, environ=environ).run(
            *words, timeout=DEPLOY_SECONDS, directory=ROOT
        )
    if done.returncode != 0:
        raise PermanentError(f"prefect deploy failed: {done.error}")
    for name, live in present().own.items():
        complete(name, live)
        if name in before and before[name]["paused"]:
            pause(live)
    found = automations.compare(settings.notify.blocks)
    return found.settle() if found else str(found)


def _pool(name: str, pool: PoolSettings) -> None:
    """Create the pool, or set its limit and job template; a paused pool stays paused."""
    runs = pool.runs
    with connect() as client:
        try:
            found = client.read_work_pool(name)
        except ObjectNotFound:
            made = WorkPoolCreate(name=name, type=pool.type, base_job_template=JOB_TEMPLATE)
            found = client.create_work_pool(made)
        if found.type != pool.type:  # the server changes no pool's type
            raise PermanentError(
                f"work pool {name} has the type {found.type}, the settings say pool.type: {pool.type}. While no run "
                f"is under way, delete it (prefect work-pool delete {name}), then run isa setup again"
            )
        if runs not in (None, found.concurrency_limit):
            client.update_work_pool(name, WorkPoolUpdate(concurrency_limit=runs))
        if found.base_job_template != JOB_TEMPLATE:
            client.update_work_pool(name, WorkPoolUpdate(base_job_template=JOB_TEMPLATE))
