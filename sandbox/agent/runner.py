"""Runs one pod: starts its engine, restarts it with back-off, probes it, reports its status, and stops it."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Mapping
from typing import Any

from cluster.kube import Manifest, NotFound
from errors import IsaError
from sandbox.agent import access, probes, status
from sandbox.agent.pod import HOLD, NEVER_READY, Host, NotStartable, Pod
from sandbox.agent.status import ContainerState
from sandbox.agent.steps import Steps, terminated
from sandbox.engines import ENGINES
from sandbox.engines.base import Engine
from sandbox.machine import processes
from sandbox.machine.processes import Daemon

TICK_SECONDS = 0.5
# A kubelet starts with 10 s and doubles up to 5 min; shorter here, for tests.
BACKOFF_FIRST, BACKOFF_LAST = 1.0, 30.0
STABLE_SECONDS = 60.0  # without a crash for this long, the back-off is reset
IDLE_READY_SECONDS = 0.3
# How long the probes of a running engine use cached Secrets. Without the cache they send 11 requests a second.
READ_SECONDS = 5.0


class Runner:
    """Runs one pod until it is deleted; adopts a process that an earlier agent started.

    Args:
        manifest: the pod, bound to a node.
        host: what all pods share.
    """

    def __init__(self, manifest: Manifest, host: Host) -> None:
        metadata = manifest["metadata"]
        self._name = f"{metadata['namespace']}/{metadata['name']}"
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._host = host
        self._manifest = manifest
        self._wake = threading.Event()
        self._gone = False
        self._born = time.monotonic()
        self._states = _states(Pod(manifest, host))
        self._published: dict[str, Any] = {}
        self._granted = False
        self._output = access.Output(Pod(manifest, host).home)
        self._backoff = BACKOFF_FIRST
        self._next_start = 0.0
        self._started = self._born
        self._next_probe = 0.0
        self._failed_probes = 0
        self._trouble = ""
        self._steps: Steps | None = None
        self._pod, self._pod_until = Pod(manifest, host), 0.0

    def update(self, manifest: Manifest) -> None:
        """Set the newest state of the pod."""
        if manifest["metadata"]["resourceVersion"] != self._manifest["metadata"]["resourceVersion"]:
            self._manifest = manifest
            self._wake.set()

    def vanish(self) -> None:
        """Record that the pod was deleted by force: it is no longer in the API."""
        self._gone = True
        self._wake.set()

    def start(self) -> None:
        """Start the runner's thread."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the pod has not ended yet."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while True:
            try:
                if self._step():
                    return
            except NotStartable as exc:
                self._wait(exc.reason, str(exc))
            except (
                IsaError
            ) as exc:  # the API server does not answer or refuses: the next step tries again
                print(f"{self._name}: {exc}", flush=True)
            except Exception as exc:  # a problem of one pod must not stop the others
                print(f"{self._name}: {type(exc).__name__}: {exc}", flush=True)
                self._wait("RunContainerError", str(exc))
            self._wake.wait(TICK_SECONDS)
            self._wake.clear()

    # ------------------------------------------------------------------ steps
    def _step(self) -> bool:
        """Do the next step. Returns True when the pod has ended."""
        pod = self._current()
        metadata = self._manifest["metadata"]
        if self._gone or metadata.get("deletionTimestamp"):
            grace = 0.0 if self._gone else float(metadata.get("deletionGracePeriodSeconds", 30))
            self._end(pod, grace)
            return True
        if self._manifest.get("status", {}).get("phase") in ("Succeeded", "Failed"):
            return False
        if not self._granted:
            pod.home.mkdir(parents=True, exist_ok=True)
            access.grant(self._host.kube, pod, self._output.file)
            self._granted = True
        self._output.copy()
        if not self._prepared(pod):
            self._publish(pod)
            return False
        engines = [c for c in pod.containers if c["name"] in ENGINES]
        try:
            for container in engines:
                self._serve(pod, container, ENGINES[container["name"]])
            if self._idle(pod) and not engines and _is_job(pod):
                self._patch(pod, status.finished_status(pod))
                return False
        finally:
            self._publish(pod)
        return False

    def _current(self) -> Pod:
        """The current pod. While its engine runs, referenced objects may be up to `READ_SECONDS` old."""
        now = time.monotonic()
        running = self._daemon(self._pod).pid is not None
        if not running or now > self._pod_until or self._pod.manifest is not self._manifest:
            self._pod, self._pod_until = Pod(self._manifest, self._host), now + READ_SECONDS
        return self._pod

    def _prepared(self, pod: Pod) -> bool:
        """Whether the init containers of a scratch engine have succeeded."""
        if not pod.steps:
            return True
        self._steps = self._steps or Steps(pod)
        return self._steps.advance(pod)

    def _serve(self, pod: Pod, container: Mapping[str, Any], engine: Engine) -> None:
        state, daemon = self._states[container["name"]], self._daemon(pod)
        if daemon.pid is None:
            if pod.scratch and daemon.record.exists():
                state.ended = terminated(daemon, daemon.forget())
                state.running_since, state.ready = "", False
                return
            self._note_exit(daemon, state)
            self._start(pod, engine, daemon, state)
            return
        if not state.running_since:  # adopted
            state.running_since = status.now()
        if time.monotonic() < self._next_probe:
            return
        if time.monotonic() - self._started > STABLE_SECONDS:
            self._backoff = BACKOFF_FIRST
        if not state.ready:
            engine.form(pod)
        self._trouble = probes.ask(pod, container, engine)
        self._failed_probes = self._failed_probes + 1 if self._trouble else 0
        if not self._trouble:
            state.ready = NEVER_READY not in pod.annotations
        elif self._failed_probes >= probes.threshold(container):
            state.ready = False
        stable = state.ready and not self._failed_probes
        self._next_probe = time.monotonic() + probes.period(container, stable)

    def _start(self, pod: Pod, engine: Engine, daemon: Daemon, state: ContainerState) -> None:
        if HOLD in pod.annotations:
            state.waiting = ("Held", f"annotation {HOLD} keeps it from starting")
            return
        if time.monotonic() < self._next_start:
            state.waiting = ("CrashLoopBackOff", f"back-off {self._backoff:.0f}s restarting it")
            return
        pod.check_references()
        launch = engine.prepare(pod)
        processes.end_leftovers(pod.home, grace=0)  # a container dies with all its processes
        daemon.start(launch.argv, {**_inherited(), **launch.environ})
        self._started = time.monotonic()
        self._failed_probes = 0
        state.running_since = status.now()

    def _note_exit(self, daemon: Daemon, state: ContainerState) -> None:
        if not daemon.record.exists():
            return  # it has never run
        code = daemon.forget()
        state.last = {
            "exitCode": code,
            "reason": "Completed" if code == 0 else "Error",
            "startedAt": state.running_since or status.now(),
            "finishedAt": status.now(),
        }
        state.running_since, state.ready = "", False
        state.restarts += 1
        self._next_start = time.monotonic() + self._backoff
        self._backoff = min(self._backoff * 2, BACKOFF_LAST)

    def _idle(self, pod: Pod) -> bool:
        """Mark containers without an engine as running, once the objects that they refer to exist."""
        waiting = [s for n, s in self._states.items() if n not in ENGINES and not s.ready]
        if not waiting:
            return True
        pod.check_references()
        aged = time.monotonic() - self._born >= IDLE_READY_SECONDS
        for state in waiting:
            state.running_since = state.running_since or status.now()
            state.ready = aged and NEVER_READY not in pod.annotations
        return aged

    def _end(self, pod: Pod, grace: float) -> None:
        daemon = self._daemon(pod)
        for container in pod.containers:
            engine = ENGINES.get(container["name"])
            if engine is not None:
                daemon.stop(min(engine.grace, grace), engine.stop)
        processes.end_leftovers(pod.home, grace=0)
        shutil.rmtree(pod.home, ignore_errors=True)
        self._host.book.forget(pod.namespace, pod.name)
        if not self._gone:
            path = self._host.kube.resource("v1", "Pod").path(pod.namespace, pod.name)
            body = {"gracePeriodSeconds": 0, "preconditions": {"uid": pod.uid}}
            try:
                self._host.kube.request("DELETE", path, body=body)
            except NotFound:
                return

    # ------------------------------------------------------------------ status
    def _wait(self, reason: str, message: str) -> None:
        for state in self._states.values():
            if not state.running_since:
                state.waiting = (reason, message)
        self._publish(Pod(self._manifest, self._host))

    def _publish(self, pod: Pod) -> None:
        steps = self._steps.statuses(pod) if self._steps else None
        ended = any(state.ended for state in self._states.values())
        failed = ended or (self._steps is not None and self._steps.failed)
        self._patch(pod, status.pod_status(pod, self._states, self._trouble, steps, failed))

    def _patch(self, pod: Pod, wanted: dict[str, Any]) -> None:
        if wanted == self._published:
            return
        path = self._host.kube.resource("v1", "Pod").path(pod.namespace, pod.name)
        content = "application/strategic-merge-patch+json"
        try:
            # with the uid, because a StatefulSet may have created another pod of this name
            body = {"metadata": {"uid": pod.uid}, "status": wanted}
            self._manifest = self._host.kube.request(
                "PATCH", f"{path}/status", body=body, content_type=content
            )
            self._published = wanted
        except NotFound:
            self._gone = True

    @staticmethod
    def _daemon(pod: Pod) -> Daemon:
        return Daemon("engine", pod.home)


def _states(pod: Pod) -> dict[str, ContainerState]:
    """The containers' states from an earlier agent, so that restarts are counted on."""
    known = {c["name"]: c for c in pod.manifest.get("status", {}).get("containerStatuses", [])}
    states = {}
    for container in pod.containers:
        old = known.get(container["name"], {})
        running = old.get("state", {}).get("running", {})
        states[container["name"]] = ContainerState(
            container["name"],
            running_since=running.get("startedAt", ""),
            ready=bool(old.get("ready")),
            restarts=int(old.get("restartCount", 0)),
        )
    return states


def _is_job(pod: Pod) -> bool:
    owners = pod.manifest["metadata"].get("ownerReferences", [])
    return any(owner["kind"] == "Job" for owner in owners)


def _inherited() -> dict[str, str]:
    # without the agent's KUBECONFIG: it is the administrator's
    return {key: value for key, value in os.environ.items() if key != "KUBECONFIG"}
