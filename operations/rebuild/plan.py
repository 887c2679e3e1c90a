"""The plan of a rebuild: which releases and volumes are removed, what is restored, and the verification it relies on.

Nothing is changed here. A person approves one of these plans. It is made again after the approval,
and a rebuild does not start if the plan has changed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from archive.backup.manifest import Manifest
from archive.catalogue.listing import Catalogue
from archive.evidence.verdicts import Evidence
from cluster.helm.records import read_records
from config.text.printable import first_of
from errors import ArgumentError, Fault, PermanentError
from operations.deploy.plan import DRIFTED, UPGRADE, NodePlan
from operations.deploy.run import checked_plan
from operations.documents import plans as documents
from operations.environment.environment import Environment
from operations.health import freshness
from operations.rebuild.reinstall import claims
from operations.restore.plan import RestorePlan, plan_restore
from operations.state.rebuild_state import (
    FRESH,
    NEW,
    NONE,
    Policy,
    RebuildState,
    unfinished_rebuild,
)

REASONS = 5  # as many as somebody reads


@dataclass(frozen=True)
class RebuildPlan:
    """The plan of a rebuild.

    Attributes:
        policy: as requested.
        releases: name → what is installed now, `redis-cluster-13.0.4, revision 3`; "" where nothing is.
        claims: name of each claim → its size.
        units: what is fenced, backed up and restored.
        proof: the component's last verification, as a sentence.
        writers: effect on writers.
        dependants: components whose gates are waited for afterwards.
        warnings: for the person who approves it.
        blocked: why it cannot start.
    """

    policy: Policy
    releases: dict[str, str]
    claims: dict[str, str]
    units: tuple[str, ...]
    proof: str
    writers: str
    dependants: tuple[str, ...]
    warnings: tuple[str, ...]
    blocked: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Identifies the plan: 12 hexadecimal digits."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def document(self) -> documents.RebuildPlan:
        """As `isa rebuild --plan --json` prints it."""
        policy = documents.RebuildPolicy(**vars(self.policy))
        return documents.RebuildPlan(**{**vars(self), "policy": policy}, digest=self.digest)


def plan_rebuild(environment: Environment, policy: Policy) -> RebuildPlan:
    """Make the plan of a rebuild from a component and its backups. Nothing is changed.

    Raises:
        ArgumentError: the policy is contradictory.
        TemporaryError, PermanentError: cluster or store do not answer, or a named backup does not exist or is not
            complete.
    """
    policy.check()
    component, settings = environment.components[policy.component], environment.settings
    state = unfinished_rebuild(environment.kube, settings, component.name)
    catalogue = environment.catalogue([component.name])
    (proof,) = freshness.read_freshness(environment, [component.name])
    restore = _set_to_look_at(environment, catalogue, policy, state)
    warnings, blocked = _about_the_set(policy, restore)
    if state is not None:
        warnings += [_about(state)]
        blocked += [state.conflict(policy)] if state.policy != policy else []
    deploy = checked_plan(environment, [component.name])
    blocked += [f"{check.name}: {check.hint}" for check in deploy.blocked]
    warnings += _version_warnings(deploy.node(component.name))
    if state is None or not state.uninstalled:
        if policy.final_backup and proof.state != freshness.FRESH:
            blocked.append(
                f"its verification is {proof.state}: {component.name} needs a recent verified restore (isa backup "
                f"{component.name}; isa verify {component.name} --latest)"
            )
        if policy.fenced and not component.live.fences:
            warnings.append(_window(catalogue.latest(component.name), proof.evidence))
    manual_reason = component.live.by_hand(settings)
    if manual_reason and policy.restore != NONE:
        blocked.append(manual_reason)
    return RebuildPlan(
        policy=policy,
        releases=_releases(environment, component.name),
        claims={
            claim["metadata"]["name"]: claim["spec"]["resources"]["requests"]["storage"]
            for claim in claims(environment, component.name)
        },
        units=tuple(replacement.unit for replacement in restore.units) if restore else (),
        proof=proof.sentence,
        writers=_writers(policy, component.live.writers),
        dependants=_dependants(environment, component.name),
        warnings=tuple(warnings),
        blocked=tuple(blocked),
    )


# ---------------------------------------------------------------------- inside
def _set_to_look_at(
    environment: Environment, catalogue: Catalogue, policy: Policy, state: RebuildState | None
) -> RestorePlan | None:
    """Return the named backup, that of the resumed rebuild, or the newest one as a model of the fresh one."""
    name = policy.restore
    if state is not None and state.set and state.uninstalled:
        name = state.set
    elif name in (FRESH, NONE):
        newest = catalogue.latest(policy.component)
        if newest is None:
            return None
        name = newest.id
    elif not name.startswith(f"{policy.component}-"):
        hint = f"`isa backups {policy.component}` lists them"
        raise ArgumentError(
            [Fault("restore", f"{name!r} is not a backup of {policy.component}", hint)]
        )
    try:
        return plan_restore(environment, catalogue, name, new_engine=policy.volumes == NEW)
    except PermanentError:
        if name == policy.restore:
            raise
        return None  # its proof says so


def _about_the_set(policy: Policy, restore: RestorePlan | None) -> tuple[list[str], list[str]]:
    """Warnings, and what is in the way."""
    warnings: list[str] = []
    blocked: list[str] = []
    if policy.restore not in (FRESH, NONE) and restore is not None:
        warnings.append(
            f"what was written since {restore.manifest.begun:%Y-%m-%d %H:%M} UTC is not restored"
        )
        if not restore.proven:
            blocked.append(
                f"no restore of {restore.manifest.id} was ever verified: run isa verify first"
            )
    if policy.fenced and restore is None:
        blocked.append(
            f"the newest backup cannot be restored, so what has to be fenced is unknown: isa backup {policy.component}"
        )
    if policy.restore != NONE and restore is not None:
        warnings += [f"not restored: {what}" for what in restore.manifest.not_covered]
        if policy.volumes == NEW and restore.not_replaced:
            what = ", ".join(restore.not_replaced)
            warnings.append(f"not restored, except by name afterwards: {what}")
    if policy.restore == NONE and policy.volumes == NEW:
        warnings.append("it will be EMPTY: the old data stays on the retained volumes")
    if not policy.final_backup:
        warnings.append(
            "no backup is taken first: data newer than the last backup is only on the old volumes"
        )
    return warnings, blocked


def _about(state: RebuildState) -> str:
    """Return the warnings about an interrupted rebuild."""
    if not state.uninstalled:
        return f"{state.id} was interrupted before its uninstall ended: all steps start again"
    restored = f"; it restores {state.set}" if state.set else ""
    done = ", ".join(state.done)
    return f"continues {state.id}, which completed {done}: no backup is taken now{restored}"


def _window(newest: Manifest | None, evidence: Evidence | None) -> str:
    """Return what is lost in an engine that cannot block writers, and how many minutes of writes that was last time."""
    warning = (
        "writers cannot be blocked: what they write between the start of the last backup and the uninstall is not "
        "restored and is only on the old volumes. Stop them, or that data is lost"
    )
    if newest is None or evidence is None:
        return warning
    minutes = max(1, round((newest.seconds + evidence.seconds) / 60))
    return f"{warning}: during the last backup and verification, {minutes} min of writes"


def _writers(policy: Policy, words: str) -> str:
    away = "it is down from the uninstall until its gate opens"
    if policy.restore == NONE:
        return f"{away}; {'clients then find it empty' if policy.volumes == NEW else 'nothing is lost'}"
    return f"{away}; what is written then, before its restore starts, is replaced; then: {words}"


def _dependants(environment: Environment, component: str) -> tuple[str, ...]:
    graph = environment.graph
    return tuple(n for n in graph if n != component and component in graph.with_needs([n]))


def _version_warnings(node: NodePlan) -> list[str]:
    """Warn if the installation changes more than the data."""
    if node.action not in (UPGRADE, DRIFTED):
        return []
    reasons = "; ".join(first_of(node.reasons, REASONS))
    return [f"the declared version is installed, not the current one: {reasons}"]


def _releases(environment: Environment, component: str) -> dict[str, str]:
    """Return what each release of a component has installed; "" if nothing."""
    records = read_records(environment.kube, environment.settings.kubernetes.namespace)
    names = [release.name for release in environment.releases.of(component)]
    return {name: _installed(records.get(name, [])) for name in names}


def _installed(history: list[Any]) -> str:
    return f"{history[-1].chart}, revision {history[-1].revision}" if history else ""
