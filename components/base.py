"""What every component answers, in the same words: its workloads, its Secrets, and checks that are data.

A check says whether one thing is so, and what to do if not; it never prints and never decides. Gates, status and
artifacts are different renderings of the same checks (model: barman's `CheckStrategy`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cluster.credentials import SecretSpec
from config.models import Settings


@dataclass(frozen=True)
class Check:
    """One answer.

    Attributes:
        name: what was asked, a few words.
        ok: the answer.
        hint: what was found, and what to do about it where it is not ok.
        seconds: time that asking took.
        critical: whether a gate may pass without it.
    """

    name: str
    ok: bool
    hint: str = ""
    seconds: float = 0.0
    critical: bool = True


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
class Component:
    """One engine of the platform.

    Attributes:
        name: as in settings, labels and commands.
        title: as people write it.
        secrets: what must exist before its releases.
        workloads: what Kubernetes must run for it.
    """

    name: str
    title: str
    secrets: tuple[SecretSpec, ...]
    workloads: Callable[[Settings], tuple[Workload, ...]]


def worst(checks: list[Check]) -> Check | None:
    """The first critical check that is not ok, or None if the component may be used."""
    return next((check for check in checks if check.critical and not check.ok), None)
