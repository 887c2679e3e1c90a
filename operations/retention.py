"""Keeps the bucket from growing: decides what may go, shows it, and removes it only when told to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from archive.manifest import Manifest
from archive.retention import Verdict, decide
from archive.sweep import Waste, find_waste, remove_waste
from errors import PermanentError
from operations.backup import Vault, selected


@dataclass(frozen=True)
class RetentionPlan:
    """What would be done.

    Attributes:
        verdicts: one a set.
        waste: what no set has.
    """

    verdicts: tuple[Verdict, ...]
    waste: Waste

    @property
    def going(self) -> tuple[Manifest, ...]:
        """Sets that go, those that need others first."""
        return tuple(v.manifest for v in reversed(self.verdicts) if not v.kept)

    def as_json(self, *, applied: bool, held: dict[str, str]) -> dict[str, Any]:
        """As `isa retention --json` prints it."""
        return {
            "applied": applied,
            "sets": [
                {
                    "id": v.manifest.id,
                    "component": v.manifest.component,
                    "begun": v.manifest.begun,
                    "bytes_stored": v.manifest.stored_size,
                    "keep": bool(v.kept),
                    "reasons": list(v.kept),
                    "held": held.get(v.manifest.id, ""),
                }
                for v in self.verdicts
            ],
            "waste": {
                "uploads": len(self.waste.uploads),
                "objects": len(self.waste.objects),
                "bytes": self.waste.size,
            },
        }


def plan_retention(
    vault: Vault, only: Iterable[str] = (), now: datetime | None = None
) -> RetentionPlan:
    """Decide about all sets of some components.

    Raises:
        PermanentError: a manifest is damaged; nothing is decided on half the facts.
    """
    rules = vault.settings.backup.retention
    components = selected(only)
    catalogue = vault.catalogue(components)
    if catalogue.broken:
        raise PermanentError(
            f"{', '.join(catalogue.broken)} cannot be read: while it is not known what needs what, nothing is removed"
        )
    verdicts = [
        v for name in components for v in decide(catalogue.of(name), rules, catalogue.proven)
    ]
    before = (now or datetime.now(UTC)) - timedelta(hours=rules.grace_hours)
    return RetentionPlan(
        tuple(verdicts), find_waste(vault.store, vault.settings.environment, before)
    )


def apply_retention(vault: Vault, plan: RetentionPlan) -> dict[str, str]:
    """Remove what may go: of each set the manifest first, so that no half of it is ever listed.

    Returns:
        Sets that the store holds by object lock → its words.
    """
    held: dict[str, str] = {}
    for manifest in plan.going:
        try:
            vault.store.purge(manifest.own_key)
        except PermanentError as exc:
            held[manifest.id] = str(exc)
            continue
        for entry in list(vault.store.list(manifest.prefix)):
            vault.store.purge(entry.key)
    remove_waste(vault.store, plan.waste)
    return held
