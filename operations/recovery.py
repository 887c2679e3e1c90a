"""Frees a release that somebody left in `pending-*`: only when that somebody is gone.

Helm refuses every operation on such a release (https://github.com/helm/helm/issues/8987). A rollback is not refused,
and rolling back to the pending first revision itself completes an interrupted install without removing anything.
Who left it is told by the component's Lease: we hold it now, so its former holder is gone, and the operation noted on
it says whether helm was running for us. A pending release that is not in the note is another tool's: it is left alone
until it is older than helm itself would have waited.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from cluster.helm import Helm
from cluster.lease import Lease
from cluster.records import ReleaseRecord
from cluster.releases import Release
from errors import TemporaryError

RETRY_SECONDS = 15.0


def operation(release: str) -> str:
    """What is written on the Lease while helm runs for a release."""
    return f"helm {release}"


def recover(
    helm: Helm,
    lease: Lease,
    release: Release,
    history: list[ReleaseRecord],
    *,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> None:
    """Bring a pending release back to a state that helm accepts.

    Args:
        helm: of the cluster.
        lease: of the component, held by us.
        release: its declaration.
        history: its revisions, oldest first; the newest is pending.

    Raises:
        TemporaryError: another tool seems to be at work on it.
    """
    newest = history[-1]
    age = (now() - newest.updated).total_seconds()
    if lease.previous_operation != operation(release.name) and age < release.timeout:
        raise TemporaryError(
            f"release {release.name} has been {newest.status} for {age:.0f} s, and not by this tool: "
            f"waiting until its {release.timeout} s are over (helm status {release.name} -n {release.namespace})",
            delay=min(RETRY_SECONDS, release.timeout - age),
        )
    lease.ensure()
    if newest.status == "uninstalling":
        helm.uninstall(release.name, release.namespace, timeout=release.timeout)
        return
    good = [record for record in history if record.status in ("deployed", "superseded")]
    target = good[-1].revision if good else newest.revision
    helm.rollback(release.name, release.namespace, target, timeout=release.timeout)
