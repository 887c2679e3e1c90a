"""The policy and progress of a rebuild, stored on its Lease for the run that resumes it."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from archive.backup.manifest import IDENTITY, Identity
from cluster.kube import Kube
from cluster.lease import UnreadableNote, inquire
from components import COMPONENTS
from config.models import Settings
from errors import ArgumentError, Fault
from operations.environment.leases import rebuild_lease

Volumes = Literal["new", "keep"]
NEW: Final = "new"
KEEP: Final = "keep"
FRESH, NONE = "fresh", "none"
FENCE, BACKUP, PROOF, UNINSTALL = "fence", "backup", "proof", "uninstall"
VOLUMES, INSTALL, RESTORE, DEPENDANTS = "volumes", "install", "restore", "dependants"
STEPS = (FENCE, BACKUP, PROOF, UNINSTALL, VOLUMES, INSTALL, RESTORE, DEPENDANTS)
Step = Annotated[str, Field(pattern=f"^({'|'.join(STEPS)})$")]
# `RebuildState.new` makes it; a label of volumes and the beginning of a slot
REBUILD_ID = r"^rebuild-[0-9]{8}t[0-9]{6}z-[0-9a-f]{4}$"


@dataclass(frozen=True)
class Policy:
    """The policy of a rebuild.

    Attributes:
        component: name.
        volumes: `new` creates new ones and retains the old ones, `keep` reuses the old ones.
        restore: `fresh` for the backup that the rebuild takes itself, `none`, or the id of a backup.
        final_backup: whether a backup is taken and verified first; a dead engine cannot be backed up.
    """

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid")

    component: str
    volumes: Volumes = "new"
    restore: str = FRESH
    final_backup: bool = True

    def check(self) -> None:
        """Refuse a contradictory policy.

        Raises:
            ArgumentError: a value is unknown, or two contradict each other.
        """
        faults = []
        if self.component not in COMPONENTS:
            known = f"known: {', '.join(COMPONENTS)}"
            faults.append(Fault("component", f"unknown: {self.component!r}", known))
        if self.volumes not in (NEW, KEEP):
            faults.append(Fault("volumes", f"unknown: {self.volumes!r}", "new or keep"))
        if self.restore not in (FRESH, NONE) and not IDENTITY.fullmatch(self.restore):
            hint = f"{FRESH}, {NONE}, or one of `isa backups {self.component}`"
            faults.append(Fault("restore", f"{self.restore!r} is not a backup id", hint))
        if self.restore == FRESH and not self.final_backup:
            hint = "name the backup to restore, or `none`"
            faults.append(Fault("restore", "is `fresh`, but no backup is taken", hint))
        if self.restore == FRESH and self.volumes == KEEP:
            hint = "`none` starts it on its volumes; a backup id replaces the data on them"
            faults.append(
                Fault("restore", "is `fresh`, but the kept volumes hold newer data", hint)
            )
        if faults:
            raise ArgumentError(faults)

    @property
    def fenced(self) -> bool:
        """Whether writers must be blocked from the last backup on.

        With the old volumes in use no write can be lost, and without a restore nothing is
        compared.
        """
        return self.final_backup and self.volumes == NEW and self.restore == FRESH


@dataclass
class RebuildState:
    """The progress of a rebuild.

    Attributes:
        id: of the rebuild; label of the volumes that it retains.
        policy: what was approved.
        set: backup that is restored.
        done: steps that have ended.
        changed: whether the uninstall has started; until then only writers are blocked.
        again: how often it was started over.
        replaced: whether the backup is restored, even if clients have changed something since, so that it does not
            compare.
    """

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid")

    id: Annotated[str, Field(pattern=REBUILD_ID)]
    policy: Policy
    set: Identity | Literal[""] = ""
    done: Annotated[list[Step], Field(max_length=len(STEPS))] = field(default_factory=list)
    changed: bool = False
    again: Annotated[int, Field(ge=0, lt=1 << 31)] = 0
    replaced: bool = False

    @classmethod
    def new(cls, policy: Policy) -> RebuildState:
        """The state of a rebuild that starts now."""
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        return cls(f"rebuild-{stamp}-{secrets.token_hex(2)}".lower(), policy)

    @property
    def slot(self) -> str:
        """The slot of its backup: a repeated step finds it, a new attempt does not."""
        return f"{self.id}.{self.again}"

    @property
    def uninstalled(self) -> bool:
        """Whether the component was uninstalled: from then on its data is only in the backup and on the volumes."""
        return UNINSTALL in self.done

    @property
    def without_data(self) -> bool:
        """Whether the engine may be installed without its data."""
        comes_back = self.policy.volumes == NEW and self.policy.restore != NONE
        return comes_back and self.uninstalled and not self.replaced

    def resume(self, *, loading: bool = False) -> None:
        """Discard steps that an interruption has invalidated.

        Until the uninstall has ended the engine may have been in use since, with or without a fence, so that its backup
        is not complete. And until the restore has ended the engine may hold partial data: the gate is checked again,
        unless an interrupted restore has left data that only its repetition can repair.

        Args:
            loading: whether a restore of this backup was interrupted while it replaced data.
        """
        if not self.uninstalled:
            self.done, self.set, self.again = [], "", self.again + 1
        elif RESTORE not in self.done and not loading:
            self.done = [step for step in self.done if step != INSTALL]

    def conflict(self, policy: Policy) -> str:
        """Why a rebuild with another policy cannot start, as text."""
        policy_text = ", ".join(f"{key}={value}" for key, value in asdict(self.policy).items())
        return (
            f"the rebuild {self.id} is not finished ({policy_text}; done: {', '.join(self.done)}): "
            f"call it again with the same policy, or `isa rebuild undo {policy.component}`"
        )

    def text(self) -> str:
        """The text on the Lease."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, text: str, settings: Settings, component: str) -> RebuildState | None:
        """Read the state that an earlier run left; None if it completed.

        Args:
            text: on the Lease.
            settings: of the environment.
            component: name.

        Raises:
            UnreadableNote: the text is not a state of a rebuild of this component.
        """
        if not text:
            return None
        try:
            state = _STANDING.validate_json(text)
            state.policy.check()
        except (ValidationError, ArgumentError):
            state = None
        if state is None or state.policy.component != component:
            raise UnreadableNote(
                settings.kubernetes.control_namespace,
                rebuild_lease(component),
                f"it is unknown how far a rebuild of {component} has got",
            ) from None
        return state


_STANDING = TypeAdapter(RebuildState)


def is_of(slot: str, rebuild: str) -> bool:
    """Whether a backup was taken for a rebuild, by their slot and id."""
    return slot.rpartition(".")[0] == rebuild


def unfinished_rebuild(kube: Kube, settings: Settings, component: str) -> RebuildState | None:
    """Return the unfinished rebuild that has fenced or changed a component; None if there is none.

    Raises:
        UnreadableNote: there may be one.
    """
    text = inquire(kube, settings, rebuild_lease(component))[0]
    return RebuildState.read(text, settings, component)
