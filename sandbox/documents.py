"""The JSON that `isa sandbox … --json` prints."""

from __future__ import annotations

from dataclasses import dataclass

from operations.documents.base import Document


@dataclass(frozen=True, kw_only=True)
class ObjectStore(Document):
    """The sandbox's object store.

    Attributes:
        endpoint: URL.
        bucket: name.
        access_key: of its administrator.
        secret_key: of its administrator; it is of use on this machine only.
    """

    endpoint: str
    bucket: str
    access_key: str
    secret_key: str


@dataclass(frozen=True, kw_only=True)
class EngineMember(Document):
    """A member of an engine.

    Attributes:
        member: name of its pod.
        host: address on this machine.
        port: for clients.
        user: for clients.
        secret: where the password is: `NAMESPACE/SECRET/KEY`.
        real: whether it is the engine itself, and no double.
    """

    member: str
    host: str
    port: int
    user: str
    secret: str
    real: bool


@dataclass(frozen=True, kw_only=True)
class SandboxStatus(Document):
    """What runs, and how to connect.

    Attributes:
        name: of the sandbox.
        up: whether every process of the cluster runs.
        processes: name → process id.
        kubeconfig: file; empty if the sandbox was never started.
        object_store: null if the sandbox was never started.
        age_identity_file: file with the private key of the verify pool; empty if the sandbox was never started.
        engines: component → its members; empty while no engine runs.
        prefect_api: URL; empty while no Prefect server runs.
        prefect_ui: URL; empty while no Prefect server runs.
        prefect_login_file: file with user and password; empty while no Prefect server runs.
    """

    name: str
    up: bool
    processes: dict[str, int]
    kubeconfig: str
    object_store: ObjectStore | None
    age_identity_file: str
    engines: dict[str, tuple[EngineMember, ...]]
    prefect_api: str
    prefect_ui: str
    prefect_login_file: str


@dataclass(frozen=True, kw_only=True)
class SeededEngine(Document):
    """What an engine holds now.

    Attributes:
        component: name.
        counts: kind → number.
        seconds: that filling it took.
    """

    component: str
    counts: dict[str, int]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Seed(Document):
    """What the engines hold now.

    Attributes:
        seeded: one each.
    """

    seeded: tuple[SeededEngine, ...]
