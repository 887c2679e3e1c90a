"""Names of the Leases by which runs exclude each other; all are in the control namespace.

What a Lease's note holds is typed where it is read: `operations.state` (restore, rebuild, verdicts) and
`archive.backup.cleanup_journal` (what an engine holds for a backup).
"""

from __future__ import annotations

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
