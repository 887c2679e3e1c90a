"""The record of the number of verdicts outside the bucket: on the Lease of each component's verifications.

Anyone with write access to the bucket can delete the document of a failed verification. The record has the highest
number of each backup's evidence, so that its absence is detected. A new cluster has no record: then only the bucket's
own chain remains. If the record cannot be read, the verdicts are unknown until the backups are verified again.
"""

from __future__ import annotations

import time

from archive.evidence.chain import read_record
from cluster.lease import Lease


def record(lease: Lease, backup: str, number: int) -> None:
    """Record a document that was written.

    Args:
        lease: of the component's verifications, held.
        backup: id.
        number: of the document.

    Raises:
        LeaseLost: another run has the Lease now.
        TemporaryError: the API server is away.
    """
    lease.note(read_record(lease.previous_operation).extended(backup, number, time.time()))
