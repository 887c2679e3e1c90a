"""Doctor: check everything that no other command checks, and fix what is safe to fix if asked to."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from config.loading import load
from flows.parameters import EnvironmentName
from operations.environment.environment import Environment
from operations.health import doctor as platform
from operations.health import findings
from operations.health.findings import Finding
from tasks.cancellation import cancellable
from tasks.late import superseded
from tasks.logs import logged
from tasks.pages.artifacts import keep_report
from tasks.pages.table import doctor_artifact
from tasks.redacted_errors import completed, failed, redacted_errors
from tasks.server import doctor as server


def examine(environment: str, *, fix: bool) -> list[Finding]:
    """Check cluster, object store and Prefect server; with `fix` fix what is safe."""
    settings = load(environment)
    environment_questions = platform.questions(Environment(settings).open_releases())
    results = findings.examine([*server.questions(settings), *environment_questions])
    return findings.fix(results) if fix else results


def conclude(results: list[Finding], environment: str) -> State[Any]:
    """Keep the findings with the run, as a table and as the command prints them; returns how the run ends."""
    checks = [result.check for result in results]
    doctor_artifact(checks, environment)
    keep_report(findings.document(results), f"doctor-{environment}")
    failures = [check for check in checks if not check.ok]
    message = "; ".join(f"{check.name}: {check.hint}" for check in failures)
    if any(check.critical for check in failures):
        return failed(message)
    return completed(message or f"{len(checks)} checks, all passed")


@flow(name="doctor", flow_run_name="doctor-{environment}", persist_result=False)
def doctor(environment: EnvironmentName, fix: bool = False) -> State[Any]:
    """Find what is stuck, stale, orphaned or about to expire.

    Args:
        environment: name of a settings file, `production`.
        fix: whether to fix problems that are safe to fix automatically.
    """
    with cancellable(), redacted_errors(), logged():
        if over := superseded():
            return completed(over)
        return conclude(examine(environment, fix=fix), environment)
