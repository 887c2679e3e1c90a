"""Restores a point between two backups: a scratch engine recovers to it, and what it holds is stored as a backup.

The live engine is then restored from that backup as from any other: behind fence and safety backup, and compared with
what the scratch engine held. The backup has no base backup, so it is partial, and no other backup depends on it.
"""

from __future__ import annotations

import logging

from archive.backup.reader import SetReader
from archive.backup.writer import SetWriter
from archive.wal.point import Point
from cluster.credentials import password
from components.access import Access
from components.base import BackupContent, Recovered
from errors import PermanentError
from operations.backup.component import back_up
from operations.backup.prerequisites import check_store
from operations.environment.environment import Environment
from operations.environment.leases import verify_lease
from operations.restore.plan import PointPlan, RestorePlan, plan_restore
from operations.runner.context import RunContext
from operations.runner.transfer import Transfer, watched
from operations.verify.comparison import describe
from operations.verify.point import points_of
from operations.verify.scratch import engines
from operations.verify.scratch_pod import Request

log = logging.getLogger(__name__)


def recover(
    environment: Environment, context: RunContext, identity: str, plan: RestorePlan, to: PointPlan
) -> RestorePlan:
    """Store what a point holds as a backup, and plan its restore. Nothing live is changed.

    Args:
        environment: opened.
        context: of the run.
        identity: age private key that decrypts base backup and WAL.
        plan: what was approved.
        to: the point.

    Returns:
        The plan of restoring that backup.

    Raises:
        LeaseHeld: a verification with its scratch engines, or a backup, is running.
        Damaged: an artefact or a WAL object is not what was stored.
        IsaError: the point was not reached, or could not be stored.
    """
    manifest = plan.manifest
    watch = watched(Transfer(context.tell), manifest.component)
    reader = SetReader(environment.store, manifest, identity, plan.earlier, watch)
    backup = _store(environment, context, identity, reader, to.point)
    log.info("%s is stored as %s", to.point.target.words, backup)
    catalogue = environment.catalogue([manifest.component])
    # into another cluster it comes as what the recovery began with
    new_engine = manifest.cluster != environment.cluster_uid
    return plan_restore(environment, catalogue, backup, to.only, new_engine=new_engine)


def _store(
    environment: Environment,
    context: RunContext,
    identity: str,
    reader: SetReader,
    point: Point,
) -> str:
    """Recover a scratch engine to a point and back it up; returns the id of the backup."""
    settings, manifest = environment.settings, reader.chain[-1]
    points = points_of(environment, manifest.component)
    said: list[Recovered] = []
    restore = points.restore_to(point, said.append, check=False)
    request = Request.of(environment, reader.chain, identity, point)
    scratches = restore.scratch(settings, manifest, password())
    context.tell(f"recovers to {point.words}")
    with (
        # otherwise a verification would remove the engine
        environment.lease(verify_lease(manifest.component), context.who),
        engines(request, scratches, restore.ask, context) as running,
    ):
        restore.measure(running.access, running.at, reader)
        (recovered,) = said
        if recovered.faults:
            raise PermanentError(
                f"nothing was replaced: {point.target.words} was not reached: {describe(recovered.faults)}"
            )
        context.tell(f"recovered: {recovered.words}")

        def take(_: Access, writer: SetWriter) -> BackupContent:
            return points.dump(running, writer, reader, point, recovered)

        taken = back_up(
            environment, context, manifest.component, check_store(environment), slot="", full=True,
            take=take,
        )  # fmt: skip
    return taken.id
