"""What a rebuild was asked for and how far it has come, as its Lease keeps it for whoever goes on with it."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from archive.manifest import IDENTITY, Identity
from cluster.kube import Kube
from cluster.lease import UnreadableNote, inquire
from components import COMPONENTS
from config.models import Settings
from errors import ConfigurationError, Fault
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
    """What whoever asks for a rebuild wants.

    Attributes:
        component: name.
        volumes: `new` puts the old ones aside, `keep` installs upon them.
        restore: `fresh` for the set that the rebuild takes itself, `none`, or the id of a set.
        final_backup: whether a set is taken and proven first; an engine that is dead cannot give one.
    """

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid")

    component: str
    volumes: Volumes = "new"
    restore: str = FRESH
    final_backup: bool = True

    def check(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            ConfigurationError: a value is unknown, or two contradict each other.
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
            raise ConfigurationError(faults)

    @property
    def fenced(self) -> bool:
        """Whether writers must be kept away from the last backup on.

        With the old volumes in place nothing that is written can be lost, and with none to come back nothing is
        compared.
        """
        return self.final_backup and self.volumes == NEW and self.restore == FRESH


@dataclass
class RebuildState:
    """How far a rebuild has come.

    Attributes:
        id: of the rebuild; label of the volumes that it puts aside.
        policy: what was approved.
        set: that comes back.
        done: steps that have ended.
        changed: whether the uninstall has begun; until then only writers are kept away.
        again: how often it was begun anew.
        replaced: whether the set is back, be it that clients have changed something since, so that it does not compare.
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
        """That of a rebuild which begins now."""
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        return cls(f"rebuild-{stamp}-{secrets.token_hex(2)}".lower(), policy)

    @property
    def slot(self) -> str:
        """Of its set: a backup that is repeated finds it, one that is taken anew does not."""
        return f"{self.id}.{self.again}"

    @property
    def gone(self) -> bool:
        """Whether the component was uninstalled: what it held is in the set and on the volumes, and nothing since."""
        return UNINSTALL in self.done

    @property
    def hollow(self) -> bool:
        """Whether the engine may stand there without what it shall hold."""
        comes_back = self.policy.volumes == NEW and self.policy.restore != NONE
        return comes_back and self.gone and not self.replaced

    def resume(self, *, loading: bool = False) -> None:
        """Forget what an interruption has made worthless.

        Until the uninstall has ended the engine may have been in use since, fence or no fence, so that its backup is
        not all that there is. And until the restore has ended the engine may stand as that has left it: the gate is
        asked again, unless a restore that broke off has left something that only its repetition makes well.

        Args:
            loading: whether a restore of this very set was broken off while it replaced.
        """
        if not self.gone:
            self.done, self.set, self.again = [], "", self.again + 1
        elif RESTORE not in self.done and not loading:
            self.done = [step for step in self.done if step != INSTALL]

    def other(self, policy: Policy) -> str:
        """Why a rebuild of another policy cannot begin, in words."""
        words = ", ".join(f"{key}={value}" for key, value in asdict(self.policy).items())
        return (
            f"the rebuild {self.id} is not finished ({words}; done: {', '.join(self.done)}): "
            f"call it again with the same policy, or `isa rebuild undo {policy.component}`"
        )

    def text(self) -> str:
        """As it is written on the Lease."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, text: str, settings: Settings, component: str) -> RebuildState | None:
        """What an earlier run left behind; None if it came to its end.

        Args:
            text: on the Lease.
            settings: of the environment.
            component: name.

        Raises:
            UnreadableNote: the text is no state of a rebuild of this component.
        """
        if not text:
            return None
        try:
            found = _STANDING.validate_json(text)
            found.policy.check()
        except (ValidationError, ConfigurationError):
            found = None
        if found is None or found.policy.component != component:
            raise UnreadableNote(
                settings.kubernetes.control_namespace,
                rebuild_lease(component),
                f"it is unknown how far a rebuild of {component} has got",
            ) from None
        return found


_STANDING = TypeAdapter(RebuildState)


def is_of(slot: str, rebuild: str) -> bool:
    """Whether a set was taken for a rebuild, by their slot and id."""
    return slot.rpartition(".")[0] == rebuild


def unfinished(kube: Kube, settings: Settings, component: str) -> RebuildState | None:
    """The rebuild of a component that has fenced or changed it and not come to its end; None if there is none.

    Raises:
        UnreadableNote: there may be one.
    """
    text = inquire(kube, settings, rebuild_lease(component))[0]
    return RebuildState.read(text, settings, component)
