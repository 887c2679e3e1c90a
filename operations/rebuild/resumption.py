"""Checks the recorded state of an unfinished rebuild before its next step, because a Lease can be forged.

After the uninstall only its backup and the old volumes exist. The signed manifest shows which backup it took
(the slot names the rebuild and the attempt), the signed evidence shows whether it was verified, and the cluster
shows where the old volumes are.
"""

from __future__ import annotations

from collections.abc import Iterable

from archive.backup.manifest import Manifest
from archive.catalogue.listing import Catalogue
from cluster.pods import volumes
from errors import PermanentError
from operations.environment.environment import Environment
from operations.environment.leases import rebuild_lease
from operations.state.rebuild_state import FRESH, NEW, NONE, RESTORE, VOLUMES, RebuildState, is_of


def refuse_unfounded(environment: Environment, catalogue: Catalogue, state: RebuildState) -> None:
    """Refuse to continue a rebuild whose recorded state is not true.

    Args:
        environment: opened.
        catalogue: of the component's sets.
        state: the state on the Lease; the uninstall has ended.

    Raises:
        PermanentError: names each fact that is not true.
    """
    faults = [*_about_sets(state, catalogue), *_about_volumes(environment, state)]
    if faults:
        name = state.policy.component
        where = f"{environment.settings.kubernetes.control_namespace}/{rebuild_lease(name)}"
        raise PermanentError(
            f"nothing was changed: Lease {where} says that {state.id} has done {', '.join(state.done)}, but "
            f"{'; '.join(faults)}. `isa rebuild undo {name}` brings the old volumes back"
        )


# ---------------------------------------------------------------------- inside
def _about_sets(state: RebuildState, catalogue: Catalogue) -> Iterable[str]:
    policy = state.policy
    backups = {backup.id: backup for backup in catalogue.of(policy.component)}
    if policy.final_backup:
        last = _last_backup(state, backups.values())
        if last is None:
            yield "there is no complete backup of this attempt"
            return
        yield from _unproven(catalogue, last.id)
        if policy.restore == FRESH and state.set != last.id:
            yield f"its backup is {last.id}, not {state.set or 'none'}"
    if policy.restore not in (FRESH, NONE):
        if state.set != policy.restore:
            yield f"{policy.restore} was approved, not {state.set or 'none'}"
        elif RESTORE not in state.done:
            yield from _unproven(catalogue, policy.restore)


def _last_backup(state: RebuildState, backups: Iterable[Manifest]) -> Manifest | None:
    """Return the backup that its last attempt took; none if there was an attempt after the recorded one."""
    attempts = [
        backup
        for backup in backups
        if is_of(backup.slot, state.id) and backup.outcome == "complete"
    ]
    newest = max(attempts, key=lambda backup: backup.begun, default=None)
    return newest if newest is not None and newest.slot == state.slot else None


def _unproven(catalogue: Catalogue, backup: str) -> Iterable[str]:
    verdict = catalogue.verdict(backup)
    if verdict != "pass":
        reason = catalogue.gaps.get(backup) or f"the last one is {verdict or 'none'}"
        yield f"no passed verification of {backup} counts ({reason}): run isa verify {backup}, then this command again"


def _about_volumes(environment: Environment, state: RebuildState) -> Iterable[str]:
    policy = state.policy
    if policy.volumes != NEW or VOLUMES not in state.done:
        return
    kube, namespace = environment.kube, environment.settings.kubernetes.namespace
    for volume in volumes.aside(kube, policy.component):
        if volume.rebuild == state.id and volumes.in_place(kube, namespace, volume):
            yield f"volume {volume.name} is still in its place"
