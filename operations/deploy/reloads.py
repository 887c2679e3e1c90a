"""Waits until servers have reloaded their settings, if a sidecar signals changes to them.

Such a server may refuse what it cannot change while it runs, and reports that in its log only: NATS refuses a smaller
JetStream store, and with it every later change. So the servers are asked when they loaded their settings the
last time; if one does not reload in time, its pods restart.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from cluster.polling import polling
from operations.environment.environment import CHECK_SECONDS, Environment
from operations.runner.context import RunContext

log = logging.getLogger(__name__)

# A kubelet looks once a minute, at a copy that may be another minute old
# (https://kubernetes.io/docs/concepts/configuration/configmap/#mounted-configmaps-are-updated-automatically).
LIMIT_SECONDS = 180.0
POLL_SECONDS = 2.0


def times_of_reading(environment: Environment, component: str) -> dict[str, str]:
    """When each member has loaded its settings; {} if the members cannot be asked."""
    ask = environment.components[component].settings_read
    if ask is None or environment.settings.deploy.gate == "kubernetes":
        return {}
    with environment.access(CHECK_SECONDS) as access:
        return dict(ask(access))


def read_again(
    context: RunContext,
    before: Mapping[str, str],
    ask: Callable[[], Mapping[str, str]],
    *,
    limit: float = LIMIT_SECONDS,
) -> bool:
    """Whether all members reloaded their settings in time.

    Args:
        context: of the run.
        before: when each did, before they changed.
        ask: when each did, now.
        limit: seconds.
    """
    sleep = context.cancellation.sleep
    for _ in polling(limit, pause=POLL_SECONDS, clock=context.clock, sleep=sleep):
        now = ask()
        if all(now.get(member, then) != then for member, then in before.items()):
            return True
        log.debug(
            "waiting for a reload of %s",
            ", ".join(m for m, t in before.items() if now.get(m, t) == t),
        )
    return False
