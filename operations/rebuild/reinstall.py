"""Uninstalls a component and installs it again, on its old volumes or on new ones; and undoes a rebuild."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from archive.backup.reader import SetReader
from cluster.kube import Manifest
from cluster.pods import volumes
from cluster.polling import polling
from errors import PermanentError, TemporaryError
from operations.deploy.node import Deployer
from operations.deploy.plan import make_plan
from operations.deploy.recovery import operation
from operations.environment import leases
from operations.environment.environment import Environment
from operations.environment.leases import component_lease, rebuild_lease
from operations.runner.context import RunContext
from operations.runner.progress import NodeProgress, Progress
from operations.state.rebuild_state import is_of, unfinished_rebuild
from operations.state.restore_journal import forget

log = logging.getLogger(__name__)

GONE_SECONDS = (
    660.0  # pods have 30-120 s of grace and end together; Neo4j has 600 s for its checkpoint
)


def claims(environment: Environment, component: str) -> list[Manifest]:
    """Claims of a component's StatefulSets, whether these exist or not."""
    workloads = environment.components[component].workloads(environment.settings)
    names = [workload.name for workload in workloads if workload.kind == "StatefulSet"]
    return volumes.claims_of(environment.kube, environment.settings.kubernetes.namespace, names)


def uninstall(environment: Environment, context: RunContext, component: str) -> None:
    """Remove the releases of a component, last one first, and wait until no pod of them is left; claims stay.

    Raises:
        LeaseHeld: another run changes it.
        TemporaryError: pods were not deleted.
        PermanentError: helm's message.
    """
    with environment.lease(component_lease(component), context.who) as lease:
        for release in reversed(environment.releases.of(component)):
            context.tell(release.name)
            lease.note(operation(release.name))
            environment.helm.uninstall(release.name, release.namespace, timeout=release.timeout)
            lease.note("")
    pods: list[str] = []
    sleep = context.cancellation.sleep
    for _ in polling(GONE_SECONDS, pause=0.5, clock=context.clock, sleep=sleep):
        pods = _pods(environment, component)
        if not pods:
            return
        context.tell(f"waiting until {', '.join(pods)} are gone")
        log.debug("waiting until %s are gone", ", ".join(pods))
    raise TemporaryError(f"{', '.join(pods)} still exist after {GONE_SECONDS:.0f} s")


def put_aside(
    environment: Environment, context: RunContext, component: str, rebuild: str
) -> list[volumes.Volume]:
    """Retain the volumes of an uninstalled component.

    Raises:
        LeaseHeld: another run changes it.
        TemporaryError: claims were not deleted.
        PermanentError: someone has installed it again; its claims were not changed.
    """
    with environment.lease(component_lease(component), context.who):
        running = _pods(environment, component)
        if running:
            raise PermanentError(
                f"{', '.join(running)} run: somebody has installed {component} again since its uninstall. Its volumes "
                f"were left in place; `isa rebuild undo {component}` leaves it so, and another rebuild may begin"
            )
        old_claims = claims(environment, component)
        return volumes.put_aside(environment.kube, old_claims, component, rebuild)


def install(environment: Environment, context: RunContext, component: str) -> str:
    """Bring a component to its declared state and wait for its gate; returns what was done.

    Raises:
        LeaseHeld, TemporaryError, PermanentError: as a deploy of that node does.
    """

    def publish(lines: list[NodeProgress]) -> None:
        context.tell(f"{lines[0].phase} {lines[0].note}".strip())

    progress = Progress([component], publish)
    deployer = Deployer(environment, make_plan(environment), progress, context)
    return deployer.deploy(component).outcome


@dataclass(frozen=True)
class UndoPlan:
    """The plan of undoing a rebuild.

    Attributes:
        rebuild: its id.
        volumes: that it has marked, including those still in use.
    """

    rebuild: str
    volumes: tuple[volumes.Volume, ...]


def undo_plan(environment: Environment, component: str) -> UndoPlan:
    """Find the rebuild to undo: the unfinished one, else the last one whose volumes are retained.

    Volumes of an earlier rebuild never replace those that an unfinished one has not touched.

    Raises:
        PermanentError: there is none.
    """
    retained = volumes.aside(environment.kube, component)
    state = unfinished_rebuild(environment.kube, environment.settings, component)
    if state is None and not retained:
        raise PermanentError(f"no volumes of {component} are retained: there is nothing to undo")
    rebuild = state.id if state else retained[-1].rebuild
    return UndoPlan(rebuild, tuple(volume for volume in retained if volume.rebuild == rebuild))


def undo(environment: Environment, context: RunContext, component: str) -> tuple[str, ...]:
    """Undo the last rebuild; data written since then is deleted with the new volumes.

    If it is interrupted, the same call continues: the marks of the volumes are removed last.

    Args:
        environment: opened.
        context: of the run.
        component: name.

    Returns:
        Names of the volumes that are in use again; none if they were never replaced.

    Raises:
        LeaseHeld: a deploy or a rebuild is running.
        PermanentError: there is nothing to undo.
    """
    kube, namespace = environment.kube, environment.settings.kubernetes.namespace
    with (
        environment.lease(leases.DEPLOY, context.who),
        environment.lease(rebuild_lease(component), context.who) as lease,
    ):
        plan = undo_plan(environment, component)
        volumes.mark_compared(kube, plan.volumes, "")  # from now on nobody may purge them
        replaced = [
            volume for volume in plan.volumes if not volumes.in_place(kube, namespace, volume)
        ]
        if replaced:
            uninstall(environment, context, component)
            with environment.lease(component_lease(component), context.who):
                volumes.put_back(kube, namespace, replaced)
            forget(kube, environment.settings, component, context.who)
        install(environment, context, component)
        _open(environment, component, plan.rebuild)
        volumes.forget(kube, plan.volumes)
        lease.note("")
    return tuple(volume.name for volume in replaced)


def purge(
    environment: Environment, context: RunContext, component: str, now: datetime | None = None
) -> tuple[volumes.Volume, ...]:
    """Release old volumes whose successors were compared, once `rebuild.keep_volumes_days` are over.

    Returns:
        Those that went.

    Raises:
        LeaseHeld: a rebuild of it, or its undoing, is running.
    """
    days = timedelta(days=environment.settings.rebuild.keep_volumes_days)
    before = (now or datetime.now(UTC)) - days
    with environment.lease(rebuild_lease(component), context.who):
        expired = tuple(
            volume
            for volume in volumes.aside(environment.kube, component)
            if volume.compared
            and not volume.bound
            and datetime.fromisoformat(volume.compared) <= before
        )
        volumes.release(environment.kube, expired)
    return expired


# ---------------------------------------------------------------------- inside
def _pods(environment: Environment, component: str) -> list[str]:
    """Pods of a component's StatefulSets, whether these are there or not: helm does not wait for the end of pods."""
    workloads = environment.components[component].workloads(environment.settings)
    owners = {workload.name for workload in workloads if workload.kind == "StatefulSet"}
    return [
        pod["metadata"]["name"]
        for pod in environment.kube.list("v1", "Pod", environment.settings.kubernetes.namespace)
        for owner in pod["metadata"].get("ownerReferences", [])
        if owner["kind"] == "StatefulSet" and owner["name"] in owners
    ]


def _open(environment: Environment, component: str, rebuild: str) -> None:
    """Remove the fence that was active when the volumes were retained: some engines store it on them."""
    backups = environment.catalogue([component]).of(component)
    # where retention has taken the set of the rebuild, another one's units are the best that is known
    fenced = next(
        (manifest for manifest in reversed(backups) if is_of(manifest.slot, rebuild)),
        backups[-1] if backups else None,
    )
    if fenced is None:
        return
    live = environment.components[component].live
    units = tuple(live.units(SetReader(environment.store, fenced, "")))
    with (
        environment.access() as access,
        live.fence(access, units),
    ):
        return
