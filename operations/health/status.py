"""How the platform is right now, component by component."""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from components import COMPONENTS
from components.base import Check, Role
from components.pods import Member, members
from errors import IsaError
from operations.environment.environment import Environment
from operations.health import gate
from operations.health.gate import Finding


@dataclass(frozen=True)
class ComponentStatus:
    """One component.

    Attributes:
        name: component.
        finding: what Kubernetes and the engine say.
        members: its pods.
    """

    name: str
    finding: Finding
    members: tuple[Member, ...]

    @property
    def ready(self) -> bool:
        """Whether it is all that it is declared to be."""
        return self.finding.state == gate.READY

    def role(self, member: Member) -> Role:
        """What a pod is to its engine."""
        roles = {role.member: role for role in self.finding.roles}
        return roles.get(member.name, Role(member.name, ""))


def read_status(environment: Environment, only: Iterable[str] = ()) -> list[ComponentStatus]:
    """Ask all components, or some, at the same time."""
    names = [
        name for name in COMPONENTS if name in (set(only) or set(environment.releases.components()))
    ]
    with ThreadPoolExecutor(len(names) or 1) as pool:
        return list(pool.map(lambda name: _component(environment, name), names))


def as_json(status: list[ComponentStatus]) -> dict[str, Any]:
    """The status as `isa status --json` prints it."""
    return {
        "ready": all(component.ready for component in status),
        "components": [
            {
                "name": component.name,
                "ready": component.ready,
                "state": component.finding.state,
                "checks": [
                    {
                        "name": c.name,
                        "ok": c.ok,
                        "critical": c.critical,
                        "unknown": c.unknown,
                        "hint": c.hint,
                        "seconds": round(c.seconds, 3),
                    }
                    for c in component.finding.checks
                ],
                "members": [
                    asdict(member)
                    | {"role": component.role(member).role, "lag": component.role(member).lag}
                    for member in component.members
                ],
            }
            for component in status
        ],
    }


def _component(environment: Environment, name: str) -> ComponentStatus:
    started = time.monotonic()
    settings = environment.settings
    try:
        finding = gate.check(environment, name)
        pods = [
            member
            for workload in COMPONENTS[name].workloads(settings)
            for member in members(environment.kube, settings.kubernetes.namespace, workload)
        ]
    except IsaError as exc:
        lost = Check("reachable", False, str(exc), time.monotonic() - started)
        finding, pods = Finding((lost,)), []
    return ComponentStatus(name, finding, tuple(pods))
