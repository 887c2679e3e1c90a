"""What a rebuild was asked for and how far it has come, as its Lease keeps it for whoever goes on with it."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Final, Literal

from cluster.kube import Kube
from cluster.lease import inquire
from components import COMPONENTS
from config.models import Settings
from errors import ConfigurationError, Fault

Volumes = Literal["new", "keep"]
NEW: Final = "new"
KEEP: Final = "keep"
FRESH, NONE = "fresh", "none"


@dataclass(frozen=True)
class Policy:
    """What whoever asks for a rebuild wants.

    Attributes:
        component: name.
        volumes: `new` puts the old ones aside, `keep` installs upon them.
        restore: `fresh` for the set that the rebuild takes itself, `none`, or the id of a set.
        final_backup: whether a set is taken and proven first; an engine that is dead cannot give one.
    """

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
        if self.restore == FRESH and not self.final_backup:
            hint = "name the set that shall come back, or `none`"
            faults.append(Fault("restore", "is `fresh`, but no backup is taken", hint))
        if faults:
            raise ConfigurationError(faults)


@dataclass
class Standing:
    """How far a rebuild has come.

    Attributes:
        id: of the rebuild; label of the volumes that it puts aside, and slot of its set.
        policy: what was approved.
        set: that comes back.
        done: steps that have ended.
    """

    id: str
    policy: Policy
    set: str = ""
    done: list[str] = field(default_factory=list)

    @classmethod
    def new(cls, policy: Policy) -> Standing:
        """That of a rebuild which begins now."""
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        return cls(f"rebuild-{stamp}-{secrets.token_hex(2)}".lower(), policy)

    def text(self) -> str:
        """As it is written on the Lease."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, text: str) -> Standing | None:
        """What an earlier run left behind; None if it came to its end."""
        if not text:
            return None
        found = json.loads(text)
        return cls(**{**found, "policy": Policy(**found["policy"])})


def unfinished(kube: Kube, settings: Settings, component: str) -> Standing | None:
    """The rebuild of a component that has begun to change it and not come to its end; None if there is none."""
    return Standing.read(inquire(kube, settings, f"isa-rebuild-{component}")[0])
