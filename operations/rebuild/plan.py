"""The plan of a rebuild: which releases and volumes are removed, what is restored, and the verification it relies on.

Nothing is changed here. A person approves one of these plans. It is made again after the approval,
and a rebuild does not start if the plan has changed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from archive.catalogue import Catalogue
from archive.evidence import Evidence
from archive.manifest import Manifest
from cluster.records import read_records
from config.printable import first_of
from errors import ConfigurationError, Fault, PermanentError
from operations.deploy.plan import DRIFTED, UPGRADE
from operations.deploy.run import checked_plan
from operations.documents import plans as documents
from operations.environment.environment import Environment
from operations.health import freshness
from operations.rebuild.reinstall import claims
from operations.restore.plan import RestorePlan, plan_restore
from operations.state.rebuild_state import FRESH, NEW, NONE, Policy, RebuildState, unfinished

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
        ConfigurationError: the policy is contradictory.
        TemporaryError, PermanentError: cluster or store do not answer, or a named backup does not exist or is not
            complete.
    """
    policy.check()
    component, settings = environment.components[policy.component], environment.settings
    standing = unfinished(environment.kube, settings, component.name)
    catalogue = environment.catalogue([component.name])
    (known,) = freshness.look(environment, [component.name])
    back = _set_to_look_at(environment, catalogue, policy, standing)
    warnings, blocked = _about_the_set(policy, back)
    if standing is not None:
        warnings += [_about(standing)]
        blocked += [standing.other(policy)] if standing.policy != policy else []
    deploy = checked_plan(environment, [component.name])
    blocked += [f"{check.name}: {check.hint}" for check in deploy.blocked]
    node = deploy.node(component.name)
    if node.action in (UPGRADE, DRIFTED):
        what = "; ".join(first_of(node.reasons, REASONS))
        warnings.append(f"the declared version is installed, not the current one: {what}")
    if standing is None or not standing.gone:
        if policy.final_backup and known.state != freshness.FRESH:
            blocked.append(
                f"its verification is {known.state}: {component.name} needs a recent verified restore (isa backup "
                f"{component.name}; isa verify {component.name} --latest)"
            )
        if policy.fenced and not component.live.fences:
            warnings.append(_window(catalogue.latest(component.name), known.evidence))
    refusal = component.live.by_hand(settings)
    if refusal and policy.restore != NONE:
        blocked.append(refusal)
    records = read_records(environment.kube, settings.kubernetes.namespace)
    return RebuildPlan(
        policy,
        {
            one.name: _installed(records.get(one.name, []))
            for one in environment.releases.of(component.name)
        },
        {
            claim["metadata"]["name"]: claim["spec"]["resources"]["requests"]["storage"]
            for claim in claims(environment, component.name)
        },
        tuple(one.unit for one in back.units) if back else (),
        known.evidence.sentence if known.evidence else "",
        _writers(policy, component.live.writers),
        _dependants(environment, component.name),
        tuple(warnings),
        tuple(blocked),
    )


# ---------------------------------------------------------------------- inside
def _set_to_look_at(
    environment: Environment, catalogue: Catalogue, policy: Policy, standing: RebuildState | None
) -> RestorePlan | None:
    """Return the named backup, that of the resumed rebuild, or the newest one as a model of the fresh one."""
    name = policy.restore
    if standing is not None and standing.set and standing.gone:
        name = standing.set
    elif name in (FRESH, NONE):
        newest = catalogue.latest(policy.component)
        if newest is None:
            return None
        name = newest.id
    elif not name.startswith(f"{policy.component}-"):
        hint = f"`isa backups {policy.component}` lists them"
        raise ConfigurationError(
            [Fault("restore", f"{name!r} is not a backup of {policy.component}", hint)]
        )
    try:
        return plan_restore(environment, catalogue, name, new_engine=policy.volumes == NEW)
    except PermanentError:
        if name == policy.restore:
            raise
        return None  # its proof says so


def _about_the_set(policy: Policy, back: RestorePlan | None) -> tuple[list[str], list[str]]:
    """Warnings, and what is in the way."""
    warnings: list[str] = []
    blocked: list[str] = []
    if policy.restore not in (FRESH, NONE) and back is not None:
        warnings.append(
            f"what was written since {back.manifest.begun:%Y-%m-%d %H:%M} UTC is not restored"
        )
        if not back.proven:
            blocked.append(
                f"no restore of {back.manifest.id} was ever verified: run isa verify first"
            )
    if policy.fenced and back is None:
        blocked.append(
            f"the newest backup cannot be restored, so what has to be fenced is unknown: isa backup {policy.component}"
        )
    if policy.restore != NONE and back is not None:
        warnings += [f"not restored: {what}" for what in back.manifest.not_covered]
        if policy.volumes == NEW and back.not_replaced:
            what = ", ".join(back.not_replaced)
            warnings.append(f"not restored, except by name afterwards: {what}")
    if policy.restore == NONE and policy.volumes == NEW:
        warnings.append("it will be EMPTY: the old data stays on the retained volumes")
    if not policy.final_backup:
        warnings.append(
            "no backup is taken first: data newer than the last backup is only on the old volumes"
        )
    return warnings, blocked


def _about(standing: RebuildState) -> str:
    """Return the warnings about an interrupted rebuild."""
    if not standing.gone:
        return f"{standing.id} was interrupted before its uninstall ended: all steps start again"
    set_back = f"; it restores {standing.set}" if standing.set else ""
    done = ", ".join(standing.done)
    return f"continues {standing.id}, which completed {done}: no backup is taken now{set_back}"


def _window(newest: Manifest | None, evidence: Evidence | None) -> str:
    """Return what is lost in an engine that cannot block writers, and how many minutes of writes that was last time."""
    words = (
        "writers cannot be blocked: what they write between the start of the last backup and the uninstall is not "
        "restored and is only on the old volumes. Stop them, or that data is lost"
    )
    if newest is None or evidence is None:
        return words
    minutes = max(1, round((newest.seconds + evidence.seconds) / 60))
    return f"{words}: during the last backup and verification, {minutes} min of writes"


def _writers(policy: Policy, words: str) -> str:
    away = "it is down from the uninstall until its gate opens"
    if policy.restore == NONE:
        return f"{away}; {'clients then find it empty' if policy.volumes == NEW else 'nothing is lost'}"
    return f"{away}; what is written then, before its restore starts, is replaced; then: {words}"


def _dependants(environment: Environment, component: str) -> tuple[str, ...]:
    graph = environment.graph
    return tuple(n for n in graph if n != component and component in graph.with_needs([n]))


def _installed(history: list[Any]) -> str:
    return f"{history[-1].chart}, revision {history[-1].revision}" if history else ""
