"""Collects the data of a report from object store, cluster, gates, doctor and Prefect server."""

from __future__ import annotations

from datetime import UTC, datetime

from components.base import Check
from config.loading import load
from flows import doctor
from operations.environment.environment import Environment
from operations.health.status import read_status
from operations.report import history
from operations.report.report import Asking, Report, needs_of
from tasks.server.history import last_deploys


def collect(environment: str) -> Report:
    """Collect everything that a report shows; changes nothing.

    Args:
        environment: name of a settings file, `production`.

    Raises:
        ConfigurationError: the settings have faults.
    """
    settings = load(environment)
    asking = Asking()
    env = Environment(settings)
    opened = asking.ask("releases", env.open_releases, None)
    return Report(
        environment=environment,
        made=datetime.now(UTC),
        components=asking.ask(
            "backups, proofs", lambda: history.read_history(env.open_store()), ()
        ),
        needs=needs_of(env.graph) if opened else {},
        deploys=asking.ask("deploys", lambda: last_deploys(environment), ()),
        status=tuple(read_status(env)) if opened else (),
        checks=asking.ask("doctor", lambda: _checks(environment), ()),
        unasked=tuple(asking.unasked),  # last: the others fill it
    )


def _checks(environment: str) -> tuple[Check, ...]:
    return tuple(finding.check for finding in doctor.examine(environment, fix=False))
