"""What a rebuild does to its component: fence, back up, verify, uninstall, install, restore. `steps` decides when."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from archive.backup.reader import SetReader
from archive.evidence.verdicts import Evidence
from cluster.kube import Manifest
from cluster.pods import volumes
from cluster.pods.volumes import Volume
from operations.backup.component import BackupResult, back_up
from operations.backup.prerequisites import check_store
from operations.environment.environment import Environment
from operations.health import gate
from operations.rebuild import reinstall
from operations.restore.component import refuse_untakeable, run_restore
from operations.restore.plan import RestorePlan, plan_restore
from operations.restore.report import RestoreReport
from operations.runner.context import RunContext
from operations.state.restore_journal import forget
from operations.verify.proof import prove


class ComponentActions:
    """The actions of a rebuild on one component.

    Args:
        environment: opened.
        component: name.
        new_engine: whether it gets new volumes. Then a restore includes what belongs to the engine as a whole.
    """

    def __init__(self, environment: Environment, component: str, *, new_engine: bool) -> None:
        self._environment, self._name = environment, component
        self._live = environment.components[component].live
        self._new_engine = new_engine

    @property
    def fences(self) -> bool:
        """Whether the engine can block its writers."""
        return self._live.fences

    @contextmanager
    def fence(self, units: Iterable[str]) -> Iterator[str]:
        """Block writers of units inside the `with` block; returns the effect on writers, as text."""
        with self._environment.access() as access, self._live.fence(access, units) as effect:
            yield effect

    def back_up(self, context: RunContext, slot: str) -> BackupResult:
        """Take the last backup; the same slot returns the backup that it already has."""
        capabilities = check_store(self._environment)
        return back_up(self._environment, context, self._name, capabilities, slot=slot)

    def verify(self, context: RunContext, backup: str) -> Evidence:
        """Restore a backup into scratch engines and compare it."""
        identity = self._environment.verify_identity()
        return prove(self._environment, context, identity, backup)

    def restore_plan(self, backup: str) -> RestorePlan:
        """Plan the restore of a backup."""
        catalogue = self._environment.catalogue([self._name])
        return plan_restore(self._environment, catalogue, backup, new_engine=self._new_engine)

    def refuse_untakeable(self, backup: str) -> None:
        """Ask the engine whether it would accept a backup, before it is uninstalled.

        Raises:
            PermanentError: it would refuse; with every reason.
        """
        environment, plan = self._environment, self.restore_plan(backup)
        identity = environment.verify_identity()
        reader = SetReader(environment.store, plan.manifest, identity, plan.earlier)
        with environment.access() as access:
            refuse_untakeable(
                self._live, access, reader, [replacement.unit for replacement in plan.units]
            )

    def claims(self) -> list[Manifest]:
        """The volume claims that exist."""
        return reinstall.claims(self._environment, self._name)

    def protect_volumes(self, rebuild: str) -> None:
        """Mark the volumes of a rebuild and set Retain: a chart may delete claims with their StatefulSet."""
        volumes.keep(self._environment.kube, self.claims(), self._name, rebuild)

    def uninstall(self, context: RunContext) -> None:
        """Remove the releases, and wait until their pods are gone."""
        reinstall.uninstall(self._environment, context, self._name)

    def put_volumes_aside(self, context: RunContext, rebuild: str) -> list[Volume]:
        """Retain the old volumes; what an interrupted restore left on them is no longer of interest."""
        retained = reinstall.put_aside(self._environment, context, self._name, rebuild)
        forget(self._environment.kube, self._environment.settings, self._name, context.who)
        return retained

    def install(self, context: RunContext) -> str:
        """Install the declared state and wait for its gate; returns the outcome of the node."""
        return reinstall.install(self._environment, context, self._name)

    def restore(self, context: RunContext, backup: str, *, safety: bool) -> RestoreReport:
        """Restore a backup into the new engine.

        Args:
            context: of the step.
            backup: its id.
            safety: whether to back up the current data first.
        """
        return run_restore(
            self._environment,
            context,
            self._environment.verify_identity(),
            self.restore_plan(backup),
            safety=safety,
            keep_contained=False,  # an empty backup would be the newest one
        )

    def mark_compared(self, rebuild: str) -> None:
        """Record on the old volumes of a rebuild that their successors hold the same data."""
        kube = self._environment.kube
        old = [volume for volume in volumes.aside(kube, self._name) if volume.rebuild == rebuild]
        volumes.mark_compared(kube, old, datetime.now(UTC).isoformat(timespec="seconds"))

    def wait_ready(self, context: RunContext, component: str) -> None:
        """Wait for the gate of a component that depends on this one."""
        gate.wait(self._environment, context, component)
