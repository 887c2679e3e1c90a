"""The readiness gate: waits until a component is ready, and reports what is wrong until then."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from dataclasses import dataclass

from components.base import Check, Report, Role, worst
from components.pods import check_workloads
from components.questions import begin, explain
from errors import PermanentError, TemporaryError
from operations.environment.environment import CHECK_SECONDS, Environment
from operations.runner.context import RunContext

log = logging.getLogger(__name__)

# The API answers a round in about 20 ms; twice a second is quick for people and idle for two cores.
POLL_SECONDS = 0.5

# A round takes a second or two, and each question has a limit of its own. This one is from outside: a server may keep a
# client waiting where no limit of the client's counts (PostgreSQL: a commit that waits for a synchronous standby).
ROUND_SECONDS = 30.0

# A round that hangs keeps its thread and its connections. Beyond so many of a component none is begun.
HANGING_ROUNDS = 3
_hanging: dict[str, list[Future[Report]]] = {}

READY, DEGRADED, DOWN = "ready", "degraded", "down"


@dataclass(frozen=True)
class Finding:
    """The result of a round of checks.

    Attributes:
        checks: of Kubernetes, then of the engine.
        roles: of the engine's members.
    """

    checks: tuple[Check, ...]
    roles: tuple[Role, ...] = ()

    @property
    def state(self) -> str:
        """`ready`: as declared. `degraded`: it serves, but something is missing. `down`: it does not serve."""
        trouble = worst(self.checks)
        if trouble is None:
            return READY
        return DOWN if trouble.critical else DEGRADED


def check(environment: Environment, component: str, limit: float = ROUND_SECONDS) -> Finding:
    """Run all checks of a component once, in Kubernetes and in the engine.

    Args:
        environment: opened.
        component: to check.
        limit: seconds after which an engine counts as down if a check has not finished.
    """
    pods = check_pods(environment, component)
    if environment.settings.deploy.gate == "kubernetes":
        return Finding(tuple(pods))

    def ask() -> Report:
        with environment.access(CHECK_SECONDS) as access:
            return environment.components[component].ask(access)

    hanging = [answer for answer in _hanging.get(component, ()) if not answer.done()]
    if len(hanging) >= HANGING_ROUNDS:
        hint = f"{len(hanging)} earlier rounds still wait for an answer: a member hangs. Restart it"
        return Finding((*pods, Check("engine asked", False, hint)))
    answer = begin(ask)
    try:
        wait_for([answer], limit)
        if not answer.done():
            _hanging[component] = [*hanging, answer]
            hint = f"not every check finished within {limit:.0f} s: a member hangs"
            return Finding((*pods, Check("engine asked", False, hint, limit)))
        report = answer.result()
    except TemporaryError:  # the API server is away
        raise
    except Exception as exc:  # a Secret is missing, or an answer that nobody has seen yet: no reason to stop looking
        return Finding((*pods, Check("engine asked", False, explain(exc))))
    return Finding((*pods, *report.checks), report.roles)


def check_pods(environment: Environment, component: str) -> list[Check]:
    """Run only the checks of Kubernetes."""
    settings = environment.settings
    workloads = environment.components[component].workloads(settings)
    return check_workloads(environment.kube, settings.kubernetes.namespace, workloads)


def wait(
    environment: Environment,
    context: RunContext,
    component: str,
    *,
    ask: Callable[[Environment, str], Finding] = check,
) -> Finding:
    """Wait until a component passes `deploy.gate`, for `deploy.gate_stable_seconds`.

    Args:
        environment: opened.
        context: of the run; gets told the first trouble whenever it changes.
        component: to check.
        ask: asks one round.

    Returns:
        The result of the last round.

    Raises:
        PermanentError: `deploy.gate_timeout_seconds` have passed; it names what is still wrong.
        Cancelled: the run was cancelled.
    """
    settings = environment.settings.deploy
    stable = 0.0 if settings.gate == "kubernetes" else settings.gate_stable_seconds
    deadline = context.clock() + settings.gate_timeout_seconds
    reported, good_since = "", None
    while True:
        finding, trouble = Finding(()), None
        try:
            finding = ask(environment, component)
            trouble = _in_the_way(finding, settings.gate)
        except TemporaryError as exc:  # the API server is away; the engines may be fine
            trouble = Check("API server", False, str(exc))
        now = context.clock()
        if trouble is None:
            good_since = now if good_since is None else good_since
            if now - good_since >= stable:
                return finding
            message = f"all checks pass; watching for {stable:.0f} s"
        else:
            good_since, message = None, f"{trouble.name}: {trouble.hint}"
        if message != reported:
            log.info("%s: %s", component, message)
            context.tell(message)
            reported = message
        if trouble is not None and now > deadline:
            limit = settings.gate_timeout_seconds
            raise PermanentError(f"{component} is not ready after {limit:.0f} s: {message}")
        context.cancellation.sleep(POLL_SECONDS)


def _in_the_way(finding: Finding, policy: str) -> Check | None:
    trouble = worst(finding.checks)
    if policy == "quorum" and trouble is not None and not trouble.critical:
        return None
    return trouble
