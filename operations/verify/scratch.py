"""Scratch engines: temporary pods in a namespace of their own, each with a volume that is deleted with it.

A pod fetches its data by itself (`operations.verify.fetch`), runs the engine's own tools on it, and starts the
engine of the release's own image. It cannot reach a live engine or be mistaken for one: another namespace, a label, and
network policies separate them. Its Secrets are owned by the pod, so that deleting it removes everything.
"""

from __future__ import annotations

import errno
import logging
import re
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from archive.evidence.verdicts import Level
from cluster.kube import Manifest
from cluster.polling import polling
from components.access import Access, Endpoint
from components.base import RunningScratch, Scratch
from errors import IsaError, PermanentError, TemporaryError
from operations.runner.context import RunContext
from operations.verify.fetch import DAMAGED, UNREADABLE
from operations.verify.scratch_pod import FETCH, LABEL, Request, pod_of, secrets_of

log = logging.getLogger(__name__)

ANSWER_SECONDS = 30.0  # one answer of an engine that was just filled
PAUSE_SECONDS, QUOTA_SECONDS = 0.5, 2.0
REMOVAL_SECONDS = 60.0  # a pod counts against the quota until it is gone
# How the step that fetches a set ends where the set is bad → level that it fails at.
FETCHED: dict[int, Level] = {DAMAGED: "L1", UNREADABLE: "L2"}
KILLED = 128  # exit statuses from here on are signals: the machine's doing, not the data's
# In which words tools and engines say that their volume is full: ours to mend, whatever the data is.
FULL = re.compile(
    r"no space left|not enough (?:disk )?space|disk (?:quota|full)|StorageFull|insufficient storage|enospc", re.I
)  # fmt: skip


class Unrestorable(PermanentError):
    """The engine or one of its tools refuses the data.

    Attributes:
        level: that failed: L1, L2 or L3.
    """

    def __init__(self, level: Level, message: str, said: str = "") -> None:
        super().__init__(message, said=said)
        self.level: Level = level


@dataclass(frozen=True)
class Engines(RunningScratch):
    """Running scratch engines.

    Attributes:
        version: of the engine.
        check: raises TemporaryError if one of them has ended.
    """

    version: str
    check: Callable[[], None]


@contextmanager
def engines(
    request: Request,
    scratches: tuple[Scratch, ...],
    ask: Callable[[Access, Endpoint], str],
    context: RunContext,
) -> Iterator[Engines]:
    """Start scratch engines and wait until they are ready; removes them at the end, and first those of a killed run.

    Args:
        request: for what; the caller holds the component's `verify_lease`, because scratch engines of other runs are
            removed.
        scratches: the engines.
        ask: version of one, once it serves.
        context: of the run.

    Raises:
        Unrestorable: the data is bad.
        TemporaryError: the cluster could not run them.
        PermanentError: their release does not exist, or one of them is a live engine.
    """
    _sweep(request)
    passwords = {name: values for scratch in scratches for name, values in scratch.secrets.items()}
    kubernetes = request.settings.kubernetes.model_copy(update={"namespace": request.namespace})
    settings = request.settings.model_copy(update={"kubernetes": kubernetes})
    nonce = secrets.token_hex(3)
    pods = {
        scratch.name: _name(request.manifest.component, scratch.name, nonce)
        for scratch in scratches
    }
    try:
        for scratch in scratches:
            _create(request, scratch, pods[scratch.name], context)
        with Access(settings, request.kube, ANSWER_SECONDS, passwords) as access:
            version = ""
            at: dict[str, Endpoint] = {}
            for scratch in scratches:
                at[scratch.name], version = _await(
                    request, access, scratch, pods[scratch.name], ask, context
                )
            require_scratch(at.values(), live_addresses(request))

            def check() -> None:
                for scratch in scratches:
                    _refuse_dead(_pod(request, pods[scratch.name]), scratch, serving=True)

            yield Engines(access, at, version, check)
    finally:
        _remove(request, pods.values())


def _sweep(request: Request) -> None:
    """Remove the scratch engines of killed runs of the component."""
    _require_other_namespace(request)
    label = f"{LABEL}={request.manifest.component}"
    pods = request.kube.list("v1", "Pod", request.namespace, label)
    _remove(request, [pod["metadata"]["name"] for pod in pods])


def require_scratch(endpoints: Iterable[Endpoint], live: Collection[str]) -> None:
    """Check, before anything is written, that these are not live engines.

    Args:
        endpoints: where a backup is about to be restored.
        live: addresses of the live members.

    Raises:
        PermanentError: one of them is, or may be.
    """
    for endpoint in endpoints:
        if endpoint.pod_ip in live:
            raise PermanentError(
                f"{endpoint.member} has the address {endpoint.pod_ip} of a live engine: nothing was restored"
            )


def live_addresses(request: Request) -> frozenset[str]:
    """Addresses of all pods in the live engines' namespace."""
    pods = request.kube.list("v1", "Pod", request.settings.kubernetes.namespace)
    return frozenset(str(pod.get("status", {}).get("podIP") or "") for pod in pods) - {""}


def _require_other_namespace(request: Request) -> None:
    where = request.settings.kubernetes.namespace
    if request.namespace == where:
        raise PermanentError(
            f"kubernetes.verify_namespace is {where}, where the live engines are: nothing was restored"
        )


def out_of_room(exc: BaseException | None) -> bool:
    """Whether an error was caused by a full disk: the scratch engine's, or the spool."""
    while exc is not None:
        if isinstance(exc, OSError) and exc.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if FULL.search(str(exc)):
            return True
        exc = exc.__cause__
    return False


# ---------------------------------------------------------------------- the pod
def _create(request: Request, scratch: Scratch, name: str, context: RunContext) -> None:
    """Create the pod, then its Secrets, which it owns; it waits for them."""
    pod = _within_quota(
        request, pod_of(request, scratch, name, _release(request, scratch)), context
    )
    for secret in secrets_of(request, scratch, pod):
        request.kube.create(secret)


def _within_quota(request: Request, pod: Manifest, context: RunContext) -> Manifest:
    """Create a pod as soon as the namespace's quota allows it: other scratch engines may have to end first."""
    full: PermanentError | None = None
    limit, sleep = request.settings.verify.timeout_seconds, context.cancellation.sleep
    for _ in polling(limit, pause=QUOTA_SECONDS, clock=context.clock, sleep=sleep):
        try:
            return request.kube.create(pod)
        except PermanentError as exc:
            if "exceeded quota" not in str(exc):
                raise
            full = exc
            log.info("%s", exc)
            context.tell("waits until other scratch engines free quota")
    raise TemporaryError(str(full)) from full


def _name(component: str, scratch: str, nonce: str) -> str:
    return "-".join(part for part in ("proof", component, scratch, nonce) if part)


def _release(request: Request, scratch: Scratch) -> Manifest:
    where = request.settings.kubernetes.namespace
    stateful_set = request.kube.get("apps/v1", "StatefulSet", scratch.workload, where)
    if stateful_set is None:
        raise PermanentError(
            f"StatefulSet {where}/{scratch.workload} does not exist; a scratch engine runs its image: run isa deploy "
            "first"
        )
    return stateful_set


# ---------------------------------------------------------------------- waiting
def _await(
    request: Request,
    access: Access,
    scratch: Scratch,
    name: str,
    ask: Callable[[Access, Endpoint], str],
    context: RunContext,
) -> tuple[Endpoint, str]:
    reported = why = ""
    limit, sleep = request.settings.verify.timeout_seconds, context.cancellation.sleep
    for _ in polling(limit, pause=PAUSE_SECONDS, clock=context.clock, sleep=sleep):
        pod = _pod(request, name)
        _refuse_dead(pod, scratch, serving=False)
        status = _status_text(pod, scratch)
        if status != reported:
            reported = status
            context.tell(status)
            log.info("%s: %s", name, status)
        if pod.get("status", {}).get("phase") == "Running":
            endpoint = access.endpoint(name, scratch.port)
            try:
                return endpoint, ask(access, endpoint)
            except Exception as exc:  # seven clients have seven ways to say that nobody answers yet
                why = str(exc) or type(exc).__name__
        else:
            why = status
    raise TemporaryError(f"{name} does not become ready: {why}")


def _pod(request: Request, name: str) -> Manifest:
    pod = request.kube.get("v1", "Pod", name, request.namespace)
    if pod is None:
        raise TemporaryError(f"the scratch engine {name} was deleted by someone else")
    return pod


def _refuse_dead(pod: Manifest, scratch: Scratch, *, serving: bool) -> None:
    """Raise why a pod has ended, if it has: because of its data, or for other reasons."""
    status, name = pod.get("status", {}), pod["metadata"]["name"]
    levels = {step.name: step.level for step in scratch.steps}
    for container in status.get("initContainerStatuses", []):
        ended = container.get("state", {}).get("terminated")
        if not ended or ended["exitCode"] == 0:
            continue
        step, code, output = container["name"], int(ended["exitCode"]), _words(ended)
        if step == FETCH and code in FETCHED:
            raise Unrestorable(FETCHED[code], output)  # our own words
        message = f"{step} of {name} exited with {code}"
        if step in levels and code < KILLED and not FULL.search(output):
            raise Unrestorable(levels[step], message, output)
        raise TemporaryError(message, said=output)
    for container in status.get("containerStatuses", []):
        ended = container.get("state", {}).get("terminated")
        if ended:
            code, output = int(ended["exitCode"]), _words(ended)
            message = f"the engine {name} exited with {code}"
            if serving or code >= KILLED or code == 0 or FULL.search(output):
                raise TemporaryError(message, said=output)
            raise Unrestorable("L3", message, output)
    if status.get("phase") == "Failed":
        raise TemporaryError(
            f"{name} failed: {status.get('reason', '')} {status.get('message', '')}"
        )


def _words(ended: Mapping[str, Any]) -> str:
    output = str(ended.get("message") or ended.get("reason") or "").strip()
    return " ".join(output[-1500:].split())


def _status_text(pod: Manifest, scratch: Scratch) -> str:
    """What a pod is doing, as text."""
    status = pod.get("status", {})
    for container in status.get("initContainerStatuses", []):
        if not container.get("state", {}).get("terminated"):
            waiting = container.get("state", {}).get("waiting", {})
            return f"{container['name']} {waiting.get('message', '')}".strip()
    if status.get("phase") == "Running":
        return f"the scratch engine {scratch.name} is starting".replace("  ", " ")
    for condition in status.get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] != "True":
            return f"waits for a node: {condition.get('message', '')}"
    return "the scratch engine is being created"


def _remove(request: Request, pods: Iterable[str]) -> None:
    """Delete pods, and wait a while until they are gone; the next run or their own deadline ends the others."""
    names = list(pods)
    with suppress(IsaError):
        for name in names:
            log.debug("removing pod %s", name)
            request.kube.delete("v1", "Pod", name, request.namespace)
        # also when cancelled: it is short
        for _ in polling(REMOVAL_SECONDS, pause=PAUSE_SECONDS, sleep=time.sleep):
            remaining = (request.kube.get("v1", "Pod", name, request.namespace) for name in names)
            if all(pod is None for pod in remaining):
                return
