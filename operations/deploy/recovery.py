"""Recovers a release left in `pending-*`, if the process that left it no longer runs.

Helm refuses every operation on such a release (https://github.com/helm/helm/issues/8987). A rollback is not refused,
and rolling back to the pending first revision itself completes an interrupted install without removing anything; so is
an interrupted change of engine version completed, since the older engine may not open what the newer one has touched.
The component's Lease shows who left it: isa holds it now, so its former holder is gone, and the operation noted on it
shows whether helm was started by isa. A pending release that is not in the note belongs to another tool: it is not
touched until it is older than its helm timeout.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from cluster.helm.client import Helm
from cluster.helm.records import ReleaseRecord, last_good
from cluster.helm.releases import Release
from cluster.lease import Lease
from cluster.manifests import parse_manifests
from errors import TemporaryError
from operations.deploy.plan import images

RETRY_SECONDS = 15.0


def operation(release: str) -> str:
    """Return the note on the Lease while helm runs for a release."""
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
        TemporaryError: another tool seems to work on it.
    """
    newest = history[-1]
    age = (now() - newest.updated).total_seconds()
    if lease.previous_operation != operation(release.name) and age < release.timeout:
        raise TemporaryError(
            f"release {release.name} has been {newest.status} for {age:.0f} s, and isa did not start that: waiting "
            f"until its timeout of {release.timeout} s is over (helm status {release.name} -n {release.namespace})",
            delay=min(RETRY_SECONDS, release.timeout - age),
        )
    lease.ensure()
    if newest.status == "uninstalling":
        helm.uninstall(release.name, release.namespace, timeout=release.timeout)
        return
    good = last_good(history)
    target = newest if good is None or _images(good) != _images(newest) else good
    helm.rollback(release.name, release.namespace, target.revision, timeout=release.timeout)


def _images(record: ReleaseRecord) -> set[str]:
    return images(parse_manifests(record.manifest))
