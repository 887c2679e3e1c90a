"""Puts the report together: object store, cluster, gates, doctor, and the Prefect server's own memory."""

from __future__ import annotations

from datetime import UTC, datetime

from components.base import Check
from config.loading import load
from flows import doctor
from operations.backup.component import Vault
from operations.environment.platform import Platform
from operations.health.status import read_status
from operations.report import history
from operations.report.report import Asking, Report, needs_of
from tasks.history import last_deploys


def collect(environment: str) -> Report:
    """Ask everything that a report tells; mends nothing.

    Args:
        environment: name of a settings file, `production`.

    Raises:
        ConfigurationError: the settings have faults.
    """
    settings = load(environment)
    asking = Asking()
    platform = asking.ask("releases", lambda: Platform.open(settings), None)
    return Report(
        environment=environment,
        made=datetime.now(UTC),
        components=asking.ask("backups, proofs", lambda: history.look(Vault.open(settings)), ()),
        needs=needs_of(platform.graph) if platform else {},
        deploys=asking.ask("deploys", lambda: last_deploys(environment), ()),
        status=tuple(read_status(platform)) if platform else (),
        checks=asking.ask("doctor", lambda: _checks(environment), ()),
        unasked=tuple(asking.unasked),  # last: the others fill it
    )


def _checks(environment: str) -> tuple[Check, ...]:
    return tuple(one.check for one in doctor.examine(environment, fix=False))
