"""What is known of the platform: plan, status, doctor, charts, credentials, and the Prefect server's own setup."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from components import base
from operations.documents.base import Document, one_of

Action = Annotated[
    str, one_of("install", "upgrade", "drifted", "restart", "unchanged", "recover", "unknown")
]


@dataclass(frozen=True, kw_only=True)
class Check(Document):
    """One finding.

    Attributes:
        name: what was asked, in a few words.
        ok: the answer.
        critical: whether something cannot be used without it; if not, it is degraded only.
        unknown: the engine's own rules keep isa from asking; `ok` is true then.
        hint: what was found, and what to do about it where it is not ok.
        seconds: time that asking took.
    """

    name: str
    ok: bool
    critical: bool
    unknown: bool
    hint: str
    seconds: float

    @classmethod
    def of(cls, check: base.Check) -> Check:
        """An answer of an engine, of the preflight, of the doctor."""
        return cls(**{**vars(check), "seconds": round(check.seconds, 3)})

    def verdict(self, critical: str, other: str) -> str:
        """The answer in one word, as `components.base.Check.verdict`."""
        return base.Check(**vars(self)).verdict(critical, other)


@dataclass(frozen=True, kw_only=True)
class Change(Document):
    """A field of an object that differs.

    Attributes:
        path: of the field.
        old: what it is; null if it is absent.
        new: what it would be; null if it would be absent.
        manager: field manager that added it; empty for a field of isa.
    """

    path: str
    old: Any
    new: Any
    manager: str


@dataclass(frozen=True, kw_only=True)
class ObjectDifference(Document):
    """An object that is not as it is declared.

    Attributes:
        object: `KIND/NAME`.
        state: how it differs; `undecided` if the API server refuses the dry run.
        fields: what is changed.
    """

    object: str
    state: Annotated[str, one_of("changed", "missing", "removed", "undecided")]
    fields: tuple[Change, ...]


@dataclass(frozen=True, kw_only=True)
class PlannedRelease(Document):
    """What would be done to a release.

    Attributes:
        name: of the release.
        action: what would be done.
        reasons: why.
    """

    name: str
    action: Action
    reasons: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class PlannedNode(Document):
    """What would be done at a node of the deploy.

    Attributes:
        name: `storage-classes`, `namespace` or a component.
        action: what would be done.
        reasons: why.
        differences: what would change, object by object.
        releases: what would be done to its releases.
    """

    name: str
    action: Action
    reasons: tuple[str, ...]
    differences: tuple[ObjectDifference, ...]
    releases: tuple[PlannedRelease, ...]


@dataclass(frozen=True, kw_only=True)
class Plan(Document):
    """What a deploy would change, and what blocks it.

    Attributes:
        changes: whether a deploy would change anything.
        blocked: whether the preflight blocks it.
        nodes: in the order in which they would start.
        preflight: its findings.
    """

    changes: bool
    blocked: bool
    nodes: tuple[PlannedNode, ...]
    preflight: tuple[Check, ...]


@dataclass(frozen=True, kw_only=True)
class Member(Document):
    """A pod of a component.

    Attributes:
        name: of the pod.
        workload: StatefulSet or Deployment that it belongs to.
        node: where it runs; empty while it is not scheduled.
        ready: what its probes say.
        restarts: of all its containers.
        trouble: why it is not ready; empty if it is.
        role: the engine's own word: primary, standby, master, leader, follower.
        lag: how far it is behind, in words; empty where that means nothing.
    """

    name: str
    workload: str
    node: str
    ready: bool
    restarts: int
    trouble: str
    role: str
    lag: str


@dataclass(frozen=True, kw_only=True)
class ComponentStatus(Document):
    """A component.

    Attributes:
        name: of the component.
        ready: whether it is all that it is declared to be.
        state: of the component.
        checks: answers of Kubernetes and the engine.
        members: its pods.
    """

    name: str
    ready: bool
    state: Annotated[str, one_of("ready", "degraded", "down")]
    checks: tuple[Check, ...]
    members: tuple[Member, ...]


@dataclass(frozen=True, kw_only=True)
class RecoveryPoint(Document):
    """Until when the changes of a component are stored.

    Attributes:
        component: name.
        time: each commit until then is stored, as the stream noted it; null if that is not known.
        seconds: how long ago that is; null if that is not known.
        holder: who streams its WAL; empty if nobody does.
        checks: what is wrong with the stream, and what is right.
    """

    component: str
    time: datetime | None
    seconds: float | None
    holder: str
    checks: tuple[Check, ...]


@dataclass(frozen=True, kw_only=True)
class Status(Document):
    """How the platform is right now.

    Attributes:
        ready: whether every component is.
        components: one each.
        recovery_points: one for each component whose changes are stored continuously.
    """

    ready: bool
    components: tuple[ComponentStatus, ...]
    recovery_points: tuple[RecoveryPoint, ...]


@dataclass(frozen=True, kw_only=True)
class Finding(Check):
    """An answer of the doctor.

    Attributes:
        fixable: whether `isa doctor --fix` fixes it.
    """

    fixable: bool


@dataclass(frozen=True, kw_only=True)
class Doctor(Document):
    """What the doctor found.

    Attributes:
        checks: one each.
    """

    checks: tuple[Finding, ...]


@dataclass(frozen=True, kw_only=True)
class Chart(Document):
    """A chart of helmfile.yaml.

    Attributes:
        chart: `NAME-VERSION`.
        kept: whether its archive is in `charts.directory`.
        locked: its digest in charts.lock; empty if it has none.
    """

    chart: str
    kept: bool
    locked: str


@dataclass(frozen=True, kw_only=True)
class Charts(Document):
    """The charts of an environment.

    Attributes:
        directory: `charts.directory`.
        charts: one each.
    """

    directory: str
    charts: tuple[Chart, ...]


@dataclass(frozen=True, kw_only=True)
class Credential(Document):
    """A key of a Secret that an engine needs; never its value.

    Attributes:
        component: that needs it.
        secret: name of the Secret.
        key: in the Secret.
        exists: whether it is there; a deploy makes what is not.
    """

    component: str
    secret: str
    key: str
    exists: bool


@dataclass(frozen=True, kw_only=True)
class Secrets(Document):
    """The credentials of an environment.

    Attributes:
        namespace: of the engines.
        secrets: one row a key.
    """

    namespace: str
    secrets: tuple[Credential, ...]


@dataclass(frozen=True, kw_only=True)
class RestoredSecrets(Document):
    """Secrets that came back from a backup.

    Attributes:
        replaced: names of those that a deploy had just generated.
        created: names of those that were not there.
    """

    replaced: tuple[str, ...]
    created: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Setup(Document):
    """What was registered on the Prefect server.

    Attributes:
        automations: which automations were created, changed or deleted, in words.
    """

    automations: str


@dataclass(frozen=True, kw_only=True)
class SentMessage(Document):
    """What became of a test message.

    Attributes:
        block: that it was sent through, `TYPE/NAME`.
        arrived: whether the receiver took it.
        seconds: until that was known.
        reason: why it did not arrive.
    """

    block: str
    arrived: bool
    seconds: float
    reason: str


@dataclass(frozen=True, kw_only=True)
class Notify(Document):
    """The test messages.

    Attributes:
        sent: one a block.
    """

    sent: tuple[SentMessage, ...]


@dataclass(frozen=True, kw_only=True)
class Signer(Document):
    """The public key of a worker.

    Attributes:
        signer: Ed25519 public key in hexadecimal.
    """

    signer: str


@dataclass(frozen=True, kw_only=True)
class Error(Document):
    """Why a command failed; printed on standard error.

    Attributes:
        error: what failed, where, why, what to do.
        faults: everything that is wrong with the input.
        traceback: of an unexpected exception, with `-v`; empty otherwise.
    """

    error: str
    faults: tuple[str, ...]
    traceback: str = ""
