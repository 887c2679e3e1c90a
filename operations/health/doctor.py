"""The doctor: finds leftovers, stale verifications, expiring certificates, wrong versions; fixes what is safe to fix.

Each check is independent: one that cannot run is a finding too, and does not stop the others.
"""

from __future__ import annotations

from collections.abc import Callable

from components.base import Check
from config.loading import ROOT
from errors import IsaError
from operations.environment.environment import Environment
from operations.health.cluster_checks import (
    check_certificate,
    check_clock,
    check_gates,
    check_rebuilds,
    check_releases,
    check_restores,
    check_scratch,
    check_versions,
    check_wal_stream,
)
from operations.health.findings import Finding, Question
from operations.health.store_checks import (
    check_evidence,
    check_garbage,
    check_locks,
    check_object_store,
    check_proofs,
    check_wal,
)


def questions(environment: Environment) -> list[Question]:
    """The checks of cluster and object store."""
    stored = _opened(environment)
    endpoints = [environment.kube.server, str(environment.settings.storage.object.endpoint)]
    return [
        ("versions", lambda: check_versions(ROOT / "requirements.txt")),
        ("Helm", lambda: [Finding(Check("Helm", True, f"version {environment.helm.major}"))]),
        ("Kubernetes", lambda: [Finding(Check("Kubernetes", True, environment.kube.version()))]),
        ("clock", lambda: check_clock("Kubernetes", environment.kube.now())),
        ("gates", lambda: check_gates(environment)),
        ("releases", lambda: check_releases(environment)),
        ("rebuilds", lambda: check_rebuilds(environment)),
        ("restores", lambda: check_restores(environment)),
        ("scratch engines", lambda: check_scratch(environment)),
        ("WAL stream", lambda: check_wal_stream(environment)),
        ("object store", lambda: check_object_store(stored())),
        ("object locks", lambda: check_locks(stored())),
        ("leftovers", lambda: check_garbage(stored())),
        ("evidence", lambda: check_evidence(stored())),
        ("proofs", lambda: check_proofs(stored())),
        ("WAL coverage", lambda: check_wal(stored())),
        *((f"certificate of {url}", lambda url=url: check_certificate(url)) for url in endpoints),
    ]


def _opened(environment: Environment) -> Callable[[], Environment]:
    """The environment with its store, opened once; each question about that ends with the error if it cannot be."""
    try:
        environment.open_store()
    except IsaError as exc:
        failure = exc
    else:
        return lambda: environment

    def fail() -> Environment:
        raise failure

    return fail
