"""A run's cost as a Job, and its end when the dispatcher is killed, its node is drained, its node is lost."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from cluster.kube import Kube, Manifest
from config.loading import load
from errors import PermanentError
from operations.environment.environment import Environment
from sandbox.machine.processes import Daemon
from sandbox.nodes.cluster import Nodes
from sandbox.nodes.platform import Platform
from sandbox.nodes.postgresql import image
from tests.soak.case_table import CaseTable, expect
from tests.soak.run_jobs import site
from tests.soak.run_jobs.site import CONTROL, RUNS

FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
MEASURED = 3
COST_SECONDS = 10.0
# worker README: 50 s until the node counts as lost, 60 s of toleration, 90 s for the pod to end; and a poll
LOST_SECONDS = 240.0
# In the server's pod: a request to its API.
REQUEST = """
import sys, urllib.request
method, path, login, body = sys.argv[1:]
request = urllib.request.Request('http://127.0.0.1:4200/api' + path, method=method,
    data=None if body == 'null' else body.encode(),
    headers={'Authorization': 'Basic ' + login, 'Content-Type': 'application/json'})
print(urllib.request.urlopen(request, timeout=60).read().decode() or 'null')
"""


@dataclass
class RunCases(CaseTable):
    """The cases, in this order.

    Attributes:
        nodes: the cluster: the first node stays, runs are on the second.
        figures: what was measured, in words.
    """

    wait_seconds = 300.0
    nodes: Nodes = field(kw_only=True)
    figures: list[str] = field(default_factory=list)

    # ------------------------------------------------------------------ the cases
    def server_and_dispatcher_get_ready(self) -> None:
        self.platform.up()
        self.nodes.load(image.archives()[:1])
        kubeconfig = {"ISA_KUBERNETES__KUBECONFIG": str(self.nodes.kubeconfig)}
        environment = Environment(
            load("production", environ=site.facts(self.platform) | kubeconfig)
        )
        for manifests in environment.manifests.values():
            for manifest in manifests:
                self.kube.apply(manifest)
        for manifest in [*site.secrets(self.platform), *site.server(), *site.workers()]:
            self.kube.apply(manifest)
        self.until(lambda: self.ready("prefect-server"), "Prefect's server is ready", self.pods)
        self.until(lambda: self.runs("isa-dispatcher"), "the dispatcher runs", self.pods)
        self.inside("isa-dispatcher", "isa", "setup")
        self.until(lambda: self.ready("isa-dispatcher"), "the dispatcher is ready", self.pods)

    def run_completes_and_its_logs_are_on_the_server(self) -> None:
        run = self.start()
        self.ends(run, "COMPLETED")
        expect(any("retention" in line for line in self.logs(run)), f"its logs: {self.logs(run)}")

    def job_costs_little_more_than_a_process(self) -> None:
        """From the request to the flow's first line."""
        job = [self.seconds_to_start() for _ in range(MEASURED)]
        self.kube.scale(self.deployment("isa-dispatcher"), 0)
        worker = site.process_worker()
        self.kube.apply(worker)
        self.until(lambda: self.ready("process-worker"), "the worker is ready", self.pods)
        process = [self.seconds_to_start() for _ in range(MEASURED)]
        self.kube.delete("apps/v1", "Deployment", "process-worker", CONTROL)
        self.kube.scale(self.deployment("isa-dispatcher"), 1)
        self.until(lambda: self.ready("isa-dispatcher"), "the dispatcher is ready", self.pods)
        for words, seconds in (("as a Job", job), ("as a process of a worker", process)):
            shown = ", ".join(f"{one:.1f}" for one in seconds)
            self.note(f"from the request to the flow's start {words}: {shown} s")
        cost = sorted(job)[MEASURED // 2] - sorted(process)[MEASURED // 2]
        self.note(f"a Job costs {cost:.1f} s over a process (medians)")
        expect(cost <= COST_SECONDS, f"a Job costs {cost:.1f} s more")

    def run_outlives_its_dispatcher(self) -> None:
        with self.waiting_run() as run:
            for pod in self.kube.list(
                "v1", "Pod", CONTROL, "app.kubernetes.io/name=isa-dispatcher"
            ):
                self.kubectl(
                    "delete", "pod", pod["metadata"]["name"], "--grace-period=0", "--force"
                )
            self.until(lambda: self.ready("isa-dispatcher"), "a new dispatcher is ready", self.pods)
            expect(self.read(run)["state"]["type"] == "RUNNING", "the run goes on")
        self.ends(run, "COMPLETED")

    def drained_run_is_crashed_by_itself(self) -> None:
        with self.waiting_run() as run:
            began = time.monotonic()
            self.kubectl("drain", RUNS, "--ignore-daemonsets", "--delete-emptydir-data", "--force")
            state = self.ends(run, "CRASHED")
            self.note(f"node drained: the run is Crashed after {time.monotonic() - began:.0f} s")
            logs = self.logs(run)
        self.kubectl("uncordon", RUNS)
        expect(
            "Job ended before" not in state["message"], f"the dispatcher says {state['message']}"
        )
        expect(logs, "its logs are on the server")

    def lost_run_is_crashed_by_the_dispatcher(self) -> None:
        with self.waiting_run() as run:
            (lost,) = [one for one in self.nodes.capsules() if one.name == RUNS]
            lost.down()
            began = time.monotonic()
            state = self.ends(run, "CRASHED")
        seconds = time.monotonic() - began
        self.note(f"node lost: the run is Crashed after {seconds:.0f} s ({state['message']})")
        expect(seconds <= LOST_SECONDS, f"it took {seconds:.0f} s")
        expect(self.logs(run), "its logs up to then are on the server")

    # ------------------------------------------------------------------ runs
    @contextmanager
    def waiting_run(self) -> Iterator[str]:
        """A run that has started, and waits for the object store until the end of the block."""
        os.killpg(self._store_pid, signal.SIGSTOP)
        try:
            run = self.start()
            self.until(lambda: bool(self.read(run)["start_time"]), "the run starts", self.pods)
            yield run
        finally:
            os.killpg(self._store_pid, signal.SIGCONT)

    @property
    def _store_pid(self) -> int:
        pid = Daemon("object-store", self.nodes.directory / "run").pid
        expect(pid, "the object store runs")
        return pid or 0

    def start(self) -> str:
        path = "/deployments/name/retention/retention"
        body = {"parameters": {"environment": "production"}}
        deployment = self.call("GET", path)["id"]
        return str(self.call("POST", f"/deployments/{deployment}/create_flow_run", body)["id"])

    def read(self, run: str) -> dict[str, Any]:
        found: dict[str, Any] = self.call("GET", f"/flow_runs/{run}")
        return found

    def ends(self, run: str, kind: str) -> dict[str, Any]:
        """Wait for a run's end."""
        self.until(lambda: self.read(run)["state"]["type"] in FINAL, f"run {run} ends", self.pods)
        state: dict[str, Any] = self.read(run)["state"]
        expect(state["type"] == kind, f"it is {state['type']}: {state['message']}")
        return state | {"message": state["message"] or ""}

    def seconds_to_start(self) -> float:
        run = self.start()
        self.ends(run, "COMPLETED")
        found = self.read(run)
        began, asked = (datetime.fromisoformat(found[key]) for key in ("start_time", "created"))
        return (began - asked).total_seconds()

    def logs(self, run: str) -> list[str]:
        body = {"logs": {"flow_run_id": {"any_": [run]}}, "limit": 200}
        return [one["message"] for one in self.call("POST", "/logs/filter", body)]

    # ------------------------------------------------------------------ how they ask
    @property
    def kube(self) -> Kube:
        return self.nodes.kube()

    @cached_property
    def platform(self) -> Platform:
        return Platform(self.nodes, ("nats",))

    def note(self, words: str) -> None:
        self.figures.append(words)
        print(f"  {words}", flush=True)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """A request to the Prefect server, by way of its pod."""
        login = base64.b64encode(site.LOGIN.encode()).decode()
        words = ("python", "-c", REQUEST, method, path, login, json.dumps(body))
        return json.loads(self.inside("prefect-server", *words))

    def inside(self, name: str, *words: str) -> str:
        """Run a program in a Deployment's pod."""
        return self.kubectl("exec", f"deploy/{name}", "--", *words)

    def kubectl(self, *words: str) -> str:
        program = [str(self.nodes.program("kubectl")), f"--kubeconfig={self.nodes.kubeconfig}"]
        argv = [*program, "-n", CONTROL, *words]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise PermanentError(f"kubectl {' '.join(words)[:60]}: {done.stderr[-1500:]}")
        return done.stdout

    def deployment(self, name: str) -> Manifest:
        return self.kube.get("apps/v1", "Deployment", name, CONTROL) or {}

    def ready(self, name: str) -> bool:
        return bool(self.deployment(name).get("status", {}).get("readyReplicas"))

    def runs(self, name: str) -> bool:
        """Whether a pod of a Deployment runs, ready or not."""
        pods = self.kube.list("v1", "Pod", CONTROL, f"app.kubernetes.io/name={name}")
        return any(
            status.get("started")
            for pod in pods
            for status in pod.get("status", {}).get("containerStatuses", ())
        )

    def pods(self) -> str:
        """State of all pods, for a message."""
        pods = self.kube.list("v1", "Pod", CONTROL)
        return json.dumps({one["metadata"]["name"]: one.get("status") for one in pods})[-1500:]
