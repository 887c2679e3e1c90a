"""The current status of the platform, component by component."""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from archive.wal.names import COMPONENT
from components.base import Check, Role
from components.pods import Member, members
from errors import IsaError
from operations.documents import environment as documents
from operations.environment.environment import Environment
from operations.health import gate
from operations.health.gate import Finding
from operations.wal.checks import check_stream
from operations.wal.status import read_stream


@dataclass(frozen=True)
class ComponentStatus:
    """One component.

    Attributes:
        name: component.
        finding: result of the checks of Kubernetes and of the engine.
        members: its pods.
    """

    name: str
    finding: Finding
    members: tuple[Member, ...]

    @property
    def ready(self) -> bool:
        """Whether it is ready."""
        return self.finding.state == gate.READY

    def role(self, member: Member) -> Role:
        """The role of a pod in its engine."""
        roles = {role.member: role for role in self.finding.roles}
        return roles.get(member.name, Role(member.name, ""))

    def document(self) -> documents.ComponentStatus:
        """The component as `isa status --json` prints it."""
        roles = {member.name: self.role(member) for member in self.members}
        return documents.ComponentStatus(
            name=self.name,
            ready=self.ready,
            state=self.finding.state,
            checks=tuple(documents.Check.of(check) for check in self.finding.checks),
            members=tuple(
                documents.Member(**vars(one), role=roles[one.name].role, lag=roles[one.name].lag)
                for one in self.members
            ),
        )


def read_status(environment: Environment, only: Iterable[str] = ()) -> list[ComponentStatus]:
    """Check all components, or some, at the same time."""
    names = [
        name
        for name in environment.components
        if name in (set(only) or set(environment.releases.components()))
    ]
    with ThreadPoolExecutor(len(names) or 1) as pool:
        return list(pool.map(lambda name: _component(environment, name), names))


def read_recovery_points(
    environment: Environment, only: Iterable[str] = ()
) -> tuple[documents.RecoveryPoint, ...]:
    """Until when changes are stored, for each component, or some, whose changes are stored continuously."""
    settings = environment.settings.wal.postgresql
    if not settings.enabled or COMPONENT not in (tuple(only) or (COMPONENT,)):
        return ()
    try:
        stream = read_stream(environment)
    except IsaError as exc:
        lost = documents.Check.of(Check("WAL stream", False, str(exc)))
        return (
            documents.RecoveryPoint(
                component=COMPONENT, time=None, seconds=None, holder="", checks=(lost,)
            ),
        )
    return (
        documents.RecoveryPoint(
            component=COMPONENT,
            time=stream.recovery_point,
            seconds=stream.recovery_point_seconds,
            holder=stream.holder,
            checks=tuple(documents.Check.of(check) for check in check_stream(stream)),
        ),
    )


def document(
    status: Iterable[ComponentStatus], points: tuple[documents.RecoveryPoint, ...] = ()
) -> documents.Status:
    """The status as `isa status --json` prints it."""
    components = tuple(component.document() for component in status)
    return documents.Status(
        ready=all(component.ready for component in components),
        components=components,
        recovery_points=points,
    )


def _component(environment: Environment, name: str) -> ComponentStatus:
    started = time.monotonic()
    settings = environment.settings
    try:
        finding = gate.check(environment, name)
        pods = [
            member
            for workload in environment.components[name].workloads(settings)
            for member in members(environment.kube, settings.kubernetes.namespace, workload)
        ]
    except IsaError as exc:
        lost = Check("reachable", False, str(exc), time.monotonic() - started)
        finding, pods = Finding((lost,)), []
    return ComponentStatus(name, finding, tuple(pods))
