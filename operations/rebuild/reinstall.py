"""Uninstalls a component and installs it again, on its old volumes or on new ones; and undoes a rebuild."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from archive.reader import SetReader
from cluster import volumes
from cluster.kube import Manifest
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
from operations.state.rebuild_state import is_of, unfinished
from operations.state.restore_journal import forget

log = logging.getLogger(__name__)

GONE_SECONDS = (
    660.0  # pods have 30-120 s of grace and end together; Neo4j has 600 s for its checkpoint
)


def claims(environment: Environment, component: str) -> list[Manifest]:
    """Claims of a component's StatefulSets, whether these exist or not."""
    found = environment.components[component].workloads(environment.settings)
    names = [one.name for one in found if one.kind == "StatefulSet"]
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
    left: list[str] = []
    sleep = context.cancellation.sleep
    for _ in polling(GONE_SECONDS, pause=0.5, clock=context.clock, sleep=sleep):
        left = _pods(environment, component)
        if not left:
            return
        context.tell(f"waiting until {', '.join(left)} are gone")
        log.debug("waiting until %s are gone", ", ".join(left))
    raise TemporaryError(f"{', '.join(left)} still exist after {GONE_SECONDS:.0f} s")


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
        found = claims(environment, component)
        return volumes.put_aside(environment.kube, found, component, rebuild)


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
    kept = volumes.aside(environment.kube, component)
    broken_off = unfinished(environment.kube, environment.settings, component)
    if broken_off is None and not kept:
        raise PermanentError(f"no volumes of {component} are retained: there is nothing to undo")
    rebuild = broken_off.id if broken_off else kept[-1].rebuild
    return UndoPlan(rebuild, tuple(one for one in kept if one.rebuild == rebuild))


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
        way = undo_plan(environment, component)
        volumes.mark_compared(kube, way.volumes, "")  # from now on nobody may purge them
        away = [one for one in way.volumes if not volumes.in_place(kube, namespace, one)]
        if away:
            uninstall(environment, context, component)
            with environment.lease(component_lease(component), context.who):
                volumes.put_back(kube, namespace, away)
            forget(kube, environment.settings, component, context.who)
        install(environment, context, component)
        _open(environment, component, way.rebuild)
        volumes.forget(kube, way.volumes)
        lease.note("")
    return tuple(one.name for one in away)


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
        old = tuple(
            one
            for one in volumes.aside(environment.kube, component)
            if one.compared and not one.bound and datetime.fromisoformat(one.compared) <= before
        )
        volumes.release(environment.kube, old)
    return old


# ---------------------------------------------------------------------- inside
def _pods(environment: Environment, component: str) -> list[str]:
    """Pods of a component's StatefulSets, whether these are there or not: helm does not wait for the end of pods."""
    found = environment.components[component].workloads(environment.settings)
    owners = {one.name for one in found if one.kind == "StatefulSet"}
    return [
        pod["metadata"]["name"]
        for pod in environment.kube.list("v1", "Pod", environment.settings.kubernetes.namespace)
        for owner in pod["metadata"].get("ownerReferences", [])
        if owner["kind"] == "StatefulSet" and owner["name"] in owners
    ]


def _open(environment: Environment, component: str, rebuild: str) -> None:
    """Remove the fence that was active when the volumes were retained: some engines store it on them."""
    sets = environment.catalogue([component]).of(component)
    # where retention has taken the set of the rebuild, another one's units are the best that is known
    fenced = next(
        (one for one in reversed(sets) if is_of(one.slot, rebuild)), sets[-1] if sets else None
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
