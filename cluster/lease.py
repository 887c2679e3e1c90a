"""Mutual exclusion by `coordination.k8s.io/Lease`: one holder per component, one for the deploy.

A holder renews while it lives. Another one may take over when the lease was released, when its holder is a process of
this machine that no longer exists (so that a rerun after kill -9 need not wait), or when it has *observed* that the
lease was not renewed for its duration. Only its own monotonic clock decides that, as in client-go
(https://github.com/kubernetes/client-go/blob/master/tools/leaderelection/leaderelection.go): a holder whose clock is
wrong keeps what it renews, and a dead one blocks others only for the duration. The API server's own clock
only says whether watching is worth it: what it wrote down a moment ago is held.
https://kubernetes.io/docs/concepts/architecture/leases/
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from cluster.command import CANCELLATION
from cluster.kube import Conflict, Kube, Manifest
from config.models import Settings
from errors import IsaError, PermanentError, TemporaryError

log = logging.getLogger(__name__)

API_VERSION, KIND = "coordination.k8s.io/v1", "Lease"
PURPOSE = "isa-cloud.io/purpose"
OPERATION = (
    "isa-cloud.io/operation"  # what the last holder was doing; stays when the lease is released
)
MAKER = "isa-lease"  # owns the labels of a new lease, and never a holder
SHOWN = 300  # characters of what another holder wrote
POLL_SECONDS = 1.0  # between two looks at a lease that may be a dead holder's


class LeaseHeld(TemporaryError):
    """Another holder has the lease; `holder` names it, `purpose` what it does."""

    def __init__(self, name: str, holder: str, purpose: str, since: str, delay: float) -> None:
        self.holder, self.purpose = holder, purpose
        super().__init__(
            f"lease {name} is held by {holder} ({purpose or 'purpose unknown'}) since {since}: "
            "wait for it, or cancel that run",
            delay=delay,
        )


class LeaseLost(PermanentError):
    """Another holder has taken the lease: continuing could damage its work."""

    def __init__(self, name: str, to: str) -> None:
        super().__init__(f"lease {name} was lost to {to}: this run makes no further changes")


class UnreadableNote(PermanentError):
    """The note on a lease cannot be read, so the state left by its last holder is unknown.

    Args:
        namespace: where leases live.
        name: of the lease.
        unknown: the unknown fact, as text.
    """

    def __init__(self, namespace: str, name: str, unknown: str) -> None:
        super().__init__(
            f"the note on Lease {namespace}/{name} cannot be read, so {unknown}. Read the note (kubectl -n "
            f"{namespace} get lease {name} -o yaml) and check the state of the component. Then remove the note: "
            f"kubectl -n {namespace} annotate lease {name} {OPERATION}-"
        )


def identity() -> str:
    """Name this process so that others can check whether it still runs: HOST/PID/START/MACHINE."""
    pid = os.getpid()
    return f"{socket.gethostname()}/{pid}/{_start_time(pid)}/{machine()}"


def machine() -> str:
    """Return an identity of the machine and PID namespace, because process numbers are only valid in it.

    A hash of the kernel's boot id (random(4)) and the process's PID namespace (pid_namespaces(7)). A number of a
    namespace is given to another one only when no process of it is left, so equal means the same. "" where the kernel
    does not provide them: then no holder is assumed to be dead.
    """
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip()
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
    return hashlib.sha256(f"{boot} {namespace}".encode()).hexdigest()[:16]


def lease_of(kube: Kube, settings: Settings, name: str, purpose: str) -> Lease:
    """A lease of an environment.

    Args:
        kube: its cluster.
        settings: of it.
        name: what is protected.
        purpose: shown to others who want it.
    """
    namespace = settings.kubernetes.control_namespace
    return Lease(kube, namespace, name, purpose=purpose, duration=settings.deploy.lease_seconds)


def inquire(kube: Kube, settings: Settings, name: str) -> tuple[str, bool]:
    """Return the note on a lease of an environment, and whether it is held now; acquires nothing."""
    note, holder = read_holder(kube, settings, name)
    return note, bool(holder)


def read_holder(kube: Kube, settings: Settings, name: str) -> tuple[str, str]:
    """Return the note on a lease of an environment, and who holds it now; "" if nobody does. Acquires nothing.

    Both times are the API server's, so that no holder's clock matters.
    """
    lease = kube.get(API_VERSION, KIND, name, settings.kubernetes.control_namespace) or {}
    spec = lease.get("spec", {})
    holder = str(spec.get("holderIdentity") or "")[:SHOWN]
    held = bool(holder) and _fresh(lease, kube.now(), _duration(spec, 0))
    note = str(lease.get("metadata", {}).get("annotations", {}).get(OPERATION, ""))
    return note, holder if held else ""


class Lease:
    """A lease held inside a `with` block.

    Args:
        kube: the cluster.
        namespace: where leases live.
        name: what is protected.
        purpose: shown to others who want it.
        duration: seconds without renewal after which others may take it.
        holder: identity; this process by default.
        now: wall clock, for people only; no decision depends on it.
        clock: monotonic seconds.
        sleep: waits, and is ended by a cancel.
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
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = CANCELLATION.sleep,
    ) -> None:
        self._kube = kube
        self._namespace = namespace
        self.name = name
        self._purpose = purpose
        self._duration = duration
        self._holder = holder or identity()
        self._now = now
        self._clock = clock
        self._sleep = sleep
        self._renewed = clock()
        self._stop = threading.Event()
        self._lost: PermanentError | None = None
        self._renewer: threading.Thread | None = None
        self._lock = threading.Lock()
        self.previous_operation = ""

    def __enter__(self) -> Lease:
        """Acquire.

        Raises:
            LeaseHeld: another holder has it.
        """
        self.take()
        self._renewer = threading.Thread(target=self._renew, name=f"lease {self.name}", daemon=True)
        self._renewer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Release; if that fails, the next holder has to wait for the duration."""
        self._stop.set()
        if self._renewer:
            self._renewer.join()
        if self._lost is None:
            try:
                with self._lock:
                    self._write(holder="", operation=None)
            except IsaError as exc:
                log.info("Lease %s was not released; it expires by itself: %s", self.name, exc)

    def ensure(self) -> None:
        """Check, before a change, that the lease is still held; asks the API server if it was not renewed in time.

        Raises:
            LeaseLost: another holder took it.
            TemporaryError: the API server does not answer.
        """
        if self._lost is not None:
            raise self._lost
        if self._clock() - self._renewed > self._duration:
            with self._lock:
                self._write(holder=self._holder, operation=None)

    def note(self, operation: str) -> None:
        """Record what is about to be done, for the next run if this one is interrupted."""
        self.ensure()
        with self._lock:
            self._write(holder=self._holder, operation=operation)

    def take(self) -> None:
        """Take the lease, without renewing it.

        Raises:
            LeaseHeld: another holder has it.
        """
        lease = self._kube.get(API_VERSION, KIND, self.name, self._namespace) or self._make()
        holder = str((lease.get("spec") or {}).get("holderIdentity") or "")
        if holder and holder != self._holder and not _dead_here(holder):
            lease = self._watch(lease)
        annotations = lease.get("metadata", {}).get("annotations", {})
        self.previous_operation = annotations.get(OPERATION, "")
        document = self._document(self._holder, {OPERATION: self.previous_operation})
        document["metadata"]["resourceVersion"] = lease["metadata"]["resourceVersion"]
        try:
            self._kube.replace(document)
        except Conflict as exc:
            raise LeaseHeld(
                self.name, "another run", "acquired it first", "just now", self._duration
            ) from exc
        self._renewed = self._clock()

    # ------------------------------------------------------------------ internals
    def _make(self) -> Manifest:
        """Create the lease, without a holder; returns it.

        By server-side apply, since an account may make its own leases only: the API server checks the right to create
        with the name there, and not in a POST (kubernetes/kubernetes: apiserver/pkg/endpoints/handlers/patch.go,
        `withAuthorization`). Of two that make it at the same time, the replacement by resourceVersion lets one take it.
        """
        bare = self._document("", {})
        del bare["spec"], bare["metadata"]["annotations"]
        return self._kube.apply(bare, manager=MAKER)

    def _watch(self, lease: Manifest) -> Manifest:
        """Wait until the lease was unchanged for its duration, or is released; returns it.

        Raises:
            LeaseHeld: it was renewed just now, or during the wait.
        """
        duration = _duration(lease["spec"], self._duration)
        if _fresh(lease, self._kube.now(), duration):
            raise self._held(lease)
        holder = lease["spec"]["holderIdentity"]
        log.info(
            "lease %s of %s was not renewed in time: watching it for %.0f s before taking it over",
            self.name, holder, duration,
        )  # fmt: skip
        began = last_read = self._clock()
        while self._clock() - began <= duration:
            self._sleep(min(POLL_SECONDS, duration / 10))
            current = self._read()
            if self._clock() - last_read > duration / 3:  # the server was away, for the holder too
                began = self._clock()
            last_read = self._clock()
            if not current["spec"].get("holderIdentity"):
                return current
            if current["metadata"]["resourceVersion"] != lease["metadata"]["resourceVersion"]:
                raise self._held(current)
        return lease

    def _read(self) -> Manifest:
        lease = self._kube.get(API_VERSION, KIND, self.name, self._namespace)
        if lease is None:
            raise TemporaryError(f"lease {self.name} was deleted just now", delay=1.0)
        return lease

    def _held(self, lease: Manifest) -> LeaseHeld:
        spec, annotations = lease["spec"], lease["metadata"].get("annotations", {})
        since = str(spec.get("acquireTime", "an unknown time"))
        purpose = annotations.get(PURPOSE, "")[:SHOWN]
        holder = str(spec["holderIdentity"])[:SHOWN]
        return LeaseHeld(self.name, holder, purpose, since, self._duration)

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
            except TemporaryError as exc:
                log.info("Lease %s was not renewed: %s", self.name, exc)
                continue  # no other holder can take it either while the server does not answer

    def _write(self, holder: str, operation: str | None) -> None:
        lease = self._kube.get(API_VERSION, KIND, self.name, self._namespace)
        if lease is None or lease["spec"].get("holderIdentity") != self._holder:
            winner = str((lease or {}).get("spec", {}).get("holderIdentity") or "nobody")
            raise LeaseLost(self.name, winner[:SHOWN])
        annotations = dict(lease["metadata"].get("annotations", {}))
        if operation is not None:
            annotations[OPERATION] = operation
        document = self._document(holder, annotations)
        document["spec"]["acquireTime"] = lease["spec"].get("acquireTime")
        document["metadata"]["resourceVersion"] = lease["metadata"]["resourceVersion"]
        self._kube.replace(document)
        self._renewed = self._clock()

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


def _duration(spec: Manifest, otherwise: float) -> float:
    """Seconds for which a lease holds without renewal."""
    return float(spec.get("leaseDurationSeconds") or otherwise)


def _fresh(lease: Manifest, now: datetime, duration: float) -> bool:
    """Whether the API server wrote it within the duration, by the server's clock.

    The server notes the time of each writer's last change in `managedFields`, whatever the writer's clock says:
    https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management
    """
    fields = lease.get("metadata", {}).get("managedFields") or ()
    written = [entry["time"] for entry in fields if entry.get("time")]
    stamp = max(written, default="") or lease.get("spec", {}).get("renewTime")
    if not stamp:
        return False
    age = (now - datetime.fromisoformat(stamp)).total_seconds()
    return -duration <= age <= duration  # several API servers may disagree a little


def _dead_here(holder: str) -> bool:
    """Whether a holder was a process of this machine and PID namespace that has ended."""
    _, pid, started, where = [*holder.split("/"), "", "", "", ""][:4]
    if not where or where != machine() or not re.fullmatch("[1-9][0-9]{0,9}", pid):
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):  # another user's; /proc may hide it (proc(5), hidepid)
        pass
    now = _start_time(int(pid))
    return now not in ("", started)


def _start_time(pid: int) -> str:
    """Start of a process in clock ticks since boot (proc(5), field 22); "ended" if it is a zombie, "" if unknown."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return ""
    return "ended" if fields[0] == "Z" else fields[19]
