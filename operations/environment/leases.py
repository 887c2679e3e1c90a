"""Names of the Leases by which runs exclude each other; all are in the control namespace.

What a Lease's note holds is typed where it is read: `operations.state` (restore, rebuild, verdicts) and
`archive.backup.cleanup_journal` (what an engine holds for a backup).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from cluster.command import CANCELLATION
from cluster.lease import Lease, LeaseHeld
from cluster.polling import retry

INTERVAL_BACKUP = "backup between two nights"  # begins the purpose of the Lease that it holds
INTERVAL_SECONDS = 1800.0  # such a backup is short; it is waited for
DEPLOY = "isa-deploy"  # one deploy of the whole platform at a time


def component_lease(component: str) -> str:
    """Name of the Lease that a deploy's node or a restore of a component holds."""
    return f"isa-{component}"


def backup_lease(component: str) -> str:
    """Name of the Lease that a component's backup holds, and what replaces its data; its note: what engines hold."""
    return f"isa-backup-{component}"


def verify_lease(component: str) -> str:
    """Name of the Lease that a run with scratch engines of a component holds; its note: the number of verdicts."""
    return f"isa-verify-{component}"


def rebuild_lease(component: str) -> str:
    """Name of the Lease that a component's rebuild holds; its note: how far the rebuild has come."""
    return f"isa-rebuild-{component}"


def wal_lease(component: str) -> str:
    """Name of the Lease that the stream of a component's WAL holds; its note: how the stream stands."""
    return f"isa-wal-{component}"


@contextmanager
def after_interval_backup(
    lease: Lease, *, sleep: Callable[[float], None] = CANCELLATION.sleep
) -> Iterator[Lease]:
    """Hold a component's backup Lease. A backup between two nights that holds it is waited for: it runs often.

    Args:
        lease: not yet held.
        sleep: waits.

    Raises:
        LeaseHeld: another run holds it.
    """
    with ExitStack() as stack:
        yield retry(
            lambda: stack.enter_context(lease),
            lambda exc: isinstance(exc, LeaseHeld) and exc.purpose.startswith(INTERVAL_BACKUP),
            INTERVAL_SECONDS,
            pause=2.0,
            sleep=sleep,
        )
