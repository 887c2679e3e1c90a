"""What every component answers, in the same words: its workloads, its Secrets, and checks that are data.

A check says whether one thing is so, and what to do if not; it never prints and never decides. Gates, status and
artifacts are different renderings of the same checks (model: barman's `CheckStrategy`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from archive.manifest import Consistency, Engine, Measure
from archive.writer import SetWriter
from cluster.credentials import SecretSpec
from components.access import Access
from config.models import Settings


@dataclass(frozen=True)
class Check:
    """One answer.

    Attributes:
        name: what was asked, a few words.
        ok: the answer.
        hint: what was found, and what to do about it where it is not ok.
        seconds: time that asking took.
        critical: whether the component is of no use without it; if not, it is degraded only.
    """

    name: str
    ok: bool
    hint: str = ""
    seconds: float = 0.0
    critical: bool = True


@dataclass(frozen=True)
class Role:
    """What a member is to its engine.

    Attributes:
        member: pod name.
        role: the engine's own word: primary, standby, master, leader, follower.
        lag: how far it is behind, as a person reads it; "" where that means nothing.
    """

    member: str
    role: str
    lag: str = ""


@dataclass(frozen=True)
class Report:
    """What an engine says about itself.

    Attributes:
        checks: in the order in which they were asked.
        roles: of the members that answered.
    """

    checks: tuple[Check, ...]
    roles: tuple[Role, ...] = ()


@dataclass(frozen=True)
class Workload:
    """A StatefulSet or Deployment that must be there.

    Attributes:
        kind: `StatefulSet` or `Deployment`.
        name: its name.
        replicas: pods that must be ready.
        group: workloads of one group share the rule that no two pods are on one node; its own name by default.
    """

    kind: str
    name: str
    replicas: int
    group: str = ""


@dataclass(frozen=True)
class Taken:
    """What a backup says of itself beside its artefacts; all of it goes into the manifest.

    Attributes:
        engine: what was backed up.
        topology: members, shards, slots, replicas as they were.
        consistency: which moment each unit is of.
        fingerprint: what a restore is compared with.
        tools: programs that took part → version.
        not_covered: what such a backup never holds.
        missing: what should be in it and is not, with why; makes the set partial.
        needs: ids of earlier sets without which this one is of no use.
    """

    engine: Engine
    topology: dict[str, Any]
    consistency: tuple[Consistency, ...]
    fingerprint: tuple[Measure, ...]
    not_covered: tuple[str, ...]
    tools: dict[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Component:
    """One engine of the platform.

    Attributes:
        name: as in settings, labels and commands.
        title: as people write it.
        secrets: what must exist before its releases.
        workloads: what Kubernetes must run for it.
        ask: asks the engine: quorum, replication, and a transaction of its own that is cleaned up.
        back_up: writes the artefacts of one set.
    """

    name: str
    title: str
    secrets: tuple[SecretSpec, ...]
    workloads: Callable[[Settings], tuple[Workload, ...]]
    ask: Callable[[Access], Report]
    back_up: Callable[[Access, SetWriter], Taken]


def worst(checks: Iterable[Check]) -> Check | None:
    """The check that matters most: a critical one that is not ok, else any that is not; None if all is well."""
    failed = [check for check in checks if not check.ok]
    return next((check for check in failed if check.critical), failed[0] if failed else None)
