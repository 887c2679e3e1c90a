"""Mutual exclusion by `coordination.k8s.io/Lease`: one holder per component, one for the deploy.

A holder renews while it lives. Another one may take over when the lease was released, ran out, or its holder is a
process of this very machine that no longer exists (so that a rerun after kill -9 need not wait). Times are those of
the holders' clocks: a skew near the duration breaks the promise, so keep machines on NTP.
https://kubernetes.io/docs/concepts/architecture/leases/
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from cluster.kube import Conflict, Kube, Manifest
from config.models import Settings
from errors import IsaError, PermanentError, TemporaryError

API_VERSION, KIND = "coordination.k8s.io/v1", "Lease"
PURPOSE = "isa-cloud.io/purpose"
OPERATION = (
    "isa-cloud.io/operation"  # what the last holder was doing; stays when the lease is released
)


class LeaseHeld(TemporaryError):
    """Somebody else holds the lease; `holder` says who."""

    def __init__(self, name: str, holder: str, purpose: str, since: str, delay: float) -> None:
        self.holder = holder
        super().__init__(
            f"lease {name} is held by {holder} ({purpose or 'purpose unknown'}) since {since}: "
            "wait for it, or cancel that run",
            delay=delay,
        )


class LeaseLost(PermanentError):
    """The lease is somebody else's now: going on could damage what they do."""

    def __init__(self, name: str, to: str) -> None:
        super().__init__(f"lease {name} was lost to {to}: this run stops changing anything")


def identity() -> str:
    """Name this process so that others can tell whether it still lives: host/pid/start-time."""
    return f"{socket.gethostname()}/{os.getpid()}/{_start_time(os.getpid())}"


def lease_of(kube: Kube, settings: Settings, name: str, purpose: str) -> Lease:
    """A lease of an environment.

    Args:
        kube: its cluster.
        settings: of it.
        name: what is protected.
        purpose: shown to others who want it.
    """
    where = settings.kubernetes.control_namespace
    return Lease(kube, where, name, purpose=purpose, duration=settings.deploy.lease_seconds)


def inquire(kube: Kube, settings: Settings, name: str) -> tuple[str, bool]:
    """What is noted on a lease of an environment, and whether somebody holds it now; takes nothing."""
    lease = kube.get(API_VERSION, KIND, name, settings.kubernetes.control_namespace) or {}
    spec = lease.get("spec", {})
    held = bool(spec.get("holderIdentity")) and not _expired(spec, 0, datetime.now(UTC))
    return str(lease.get("metadata", {}).get("annotations", {}).get(OPERATION, "")), held


class Lease:
    """A lease held inside a `with` block.

    Args:
        kube: the cluster.
        namespace: where leases live.
        name: what is protected.
        purpose: shown to others who want it.
        duration: seconds without renewal after which others may take it.
        holder: identity; this process by default.
        now: wall clock; replaced in tests.
    """

    def __init__(
        self,
        kube: Kube,
        namespace: str,
        name: str,
        *,
        purpose: str,
        duration: float = 30.0,
        holder: str | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._kube = kube
        self._namespace = namespace
        self.name = name
        self._purpose = purpose
        self._duration = duration
        self._holder = holder or identity()
        self._now = now
        self._stop = threading.Event()
        self._lost: PermanentError | None = None
        self._renewer: threading.Thread | None = None
        self._lock = threading.Lock()
        self.previous_operation = ""

    def __enter__(self) -> Lease:
        """Acquire.

        Raises:
            LeaseHeld: somebody else has it.
        """
        self._take()
        self._renewer = threading.Thread(target=self._renew, name=f"lease {self.name}", daemon=True)
        self._renewer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Release; a failure to do so only costs the next one the duration."""
        self._stop.set()
        if self._renewer:
            self._renewer.join()
        if self._lost is None:
            try:
                with self._lock:
                    self._write(holder="", operation=None)
            except IsaError:
                return

    def ensure(self) -> None:
        """Check, before a change, that the lease is still ours.

        Raises:
            LeaseLost: somebody took it.
        """
        if self._lost is not None:
            raise self._lost

    def note(self, operation: str) -> None:
        """Write down what is about to be done, for whoever finds it half-done."""
        self.ensure()
        with self._lock:
            self._write(holder=self._holder, operation=operation)

    # ------------------------------------------------------------------ internals
    def _take(self) -> None:
        lease = self._kube.get(API_VERSION, KIND, self.name, self._namespace)
        if lease is None:
            try:
                self._kube.create(self._document(self._holder, {}))
                return
            except Conflict:
                lease = self._kube.get(API_VERSION, KIND, self.name, self._namespace) or {}
        holder = str(lease.get("spec", {}).get("holderIdentity") or "")
        annotations = lease.get("metadata", {}).get("annotations", {})
        if holder and holder != self._holder and not self._gone(lease):
            spec = lease["spec"]
            since = str(spec.get("acquireTime", "an unknown time"))
            raise LeaseHeld(self.name, holder, annotations.get(PURPOSE, ""), since, self._duration)
        self.previous_operation = annotations.get(OPERATION, "")
        document = self._document(self._holder, {OPERATION: self.previous_operation})
        document["metadata"]["resourceVersion"] = lease["metadata"]["resourceVersion"]
        try:
            self._kube.replace(document)
        except Conflict as exc:
            raise LeaseHeld(
                self.name, "another run", "it was faster", "just now", self._duration
            ) from exc

    def _gone(self, lease: Manifest) -> bool:
        spec = lease["spec"]
        if _expired(spec, self._duration, self._now()):
            return True
        host, _, rest = str(spec["holderIdentity"]).partition("/")
        pid, _, started = rest.partition("/")
        return host == socket.gethostname() and pid.isdigit() and _start_time(int(pid)) != started

    def _renew(self) -> None:
        while not self._stop.wait(self._duration / 3):
            try:
                with self._lock:
                    self._write(holder=self._holder, operation=None)
            except Conflict:
                continue  # the next round reads again
            except PermanentError as exc:
                self._lost = exc
                return
            except TemporaryError:
                continue  # nobody else can take it either while the server is away

    def _write(self, holder: str, operation: str | None) -> None:
        lease = self._kube.get(API_VERSION, KIND, self.name, self._namespace)
        if lease is None or lease["spec"].get("holderIdentity") != self._holder:
            raise LeaseLost(
                self.name, (lease or {}).get("spec", {}).get("holderIdentity") or "nobody"
            )
        annotations = dict(lease["metadata"].get("annotations", {}))
        if operation is not None:
            annotations[OPERATION] = operation
        document = self._document(holder, annotations)
        document["spec"]["acquireTime"] = lease["spec"].get("acquireTime")
        document["metadata"]["resourceVersion"] = lease["metadata"]["resourceVersion"]
        self._kube.replace(document)

    def _document(self, holder: str, annotations: dict[str, str]) -> dict[str, Any]:
        stamp = self._now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {
                "name": self.name,
                "namespace": self._namespace,
                "labels": {"app.kubernetes.io/managed-by": "isa-cloud"},
                "annotations": {**annotations, PURPOSE: self._purpose},
            },
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": round(self._duration),
                "acquireTime": stamp,
                "renewTime": stamp,
            },
        }


def _expired(spec: Manifest, duration: float, now: datetime) -> bool:
    """Whether it was not renewed in its time; `duration` in seconds counts where it names none."""
    renewed = datetime.fromisoformat(spec.get("renewTime", "1970-01-01T00:00:00+00:00"))
    return (now - renewed).total_seconds() > float(spec.get("leaseDurationSeconds", duration))


def _start_time(pid: int) -> str:
    """Start of a process in clock ticks since boot (proc(5), field 22), "" if there is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]
