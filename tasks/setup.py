"""Makes a Prefect server know this project: work pool, deployments with the schedules of the settings, automations.

As often as one likes: nothing is made twice, and what differs is changed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping

from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectNotFound

from cluster.command import Command
from config.loading import ROOT, variable
from config.models import Settings
from config.process_environment import child_environ
from errors import PermanentError
from tasks import automations
from tasks.parameters import refuse_unknown
from tasks.server import JOB_TEMPLATE, connect, deployments

DEPLOY_SECONDS = 300.0  # eight deployments take about 8 s, most of it imports

PLACE = re.compile(r"\{\{ \$(\w+) \}\}")


def variables(settings: Settings) -> dict[str, str]:
    """What prefect.yaml asks its environment for."""
    schedules = settings.schedules.model_dump()
    return {
        "ISA_ENV": settings.environment,
        **{variable(f"schedules.{name}"): text for name, text in schedules.items()},
    }


def filled(text: str, environ: Mapping[str, str]) -> str:
    """A text of prefect.yaml as `prefect deploy` reads it."""
    return PLACE.sub(lambda found: environ[found[1]], text)


def set_up(settings: Settings) -> str:
    """Bring the configured server to what prefect.yaml, deployments/automations.yaml and the settings declare.

    Args:
        settings: of the environment that the server is of.

    Returns:
        What became of the automations.

    Raises:
        PermanentError: the server refuses a part of it.
        TemporaryError: it is away.
    """
    for pool in sorted({one["work_pool"]["name"] for one in deployments()}):
        _pool(pool, settings.pool.runs)
    environ = {**child_environ(), **variables(settings)}
    words = ("-m", "prefect", "--no-prompt", "deploy", "--all")
    done = Command(sys.executable, environ=environ).run(
        *words, timeout=DEPLOY_SECONDS, directory=ROOT
    )
    if done.returncode != 0:
        raise PermanentError(f"prefect deploy failed: {done.error}")
    refuse_unknown()  # behind it, since it writes the schemas again
    found = automations.compare(settings.notify.blocks)
    return found.settle() if found else str(found)


def _pool(name: str, runs: int | None) -> None:
    """Make the pool, or set its limit and job template; a pool that somebody has paused stays paused."""
    with connect() as client:
        try:
            found = client.read_work_pool(name)
        except ObjectNotFound:
            made = WorkPoolCreate(name=name, type="process", base_job_template=JOB_TEMPLATE)
            found = client.create_work_pool(made)
        if runs not in (None, found.concurrency_limit):
            client.update_work_pool(name, WorkPoolUpdate(concurrency_limit=runs))
        if found.base_job_template != JOB_TEMPLATE:
            client.update_work_pool(name, WorkPoolUpdate(base_job_template=JOB_TEMPLATE))
