"""The Jobs of runs: one Job per run, made from its queue's PodTemplate, and how it ended.

The PodTemplate `isa-run-QUEUE` (deployments/worker/worker.yaml) defines the whole pod. A Job adds the run's id as a
label, which the pod reads as an environment variable (downward API). So all Jobs of a queue have the same pod, and an
admission policy refuses any other (isa-run-template in namespace.yaml).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from cluster.kube import Conflict
from cluster.manifests import Manifest
from errors import PermanentError

QUEUE = "isa-cloud.io/queue"
RUN = "isa-cloud.io/flow-run"
JOB_NAME = "batch.kubernetes.io/job-name"  # batch/v1/types.go: JobNameLabel
MANAGED = {"app.kubernetes.io/managed-by": "isa-cloud"}
# An ended pod keeps its spool's claim. The automation for lost heartbeats (deployments/automations.yaml) waits as long.
KEEP_SECONDS = 900
# FailureTarget is set when a pod is being deleted, Failed when it is gone (batch/v1/types.go): for a pod on a lost node
# never. A pod has 60 s to end by itself (terminationGracePeriodSeconds in worker.yaml).
LOST_AFTER = timedelta(seconds=90)


class Api(Protocol):
    """What this module needs of a cluster."""

    def now(self) -> datetime:
        """The time of its clock."""

    def get(
        self, api_version: str, kind: str, name: str, namespace: str | None = None
    ) -> Manifest | None:
        """Read one object."""

    def list(
        self, api_version: str, kind: str, namespace: str | None = None, selector: str = ""
    ) -> Sequence[Manifest]:
        """Read all objects of a kind."""

    def create(self, manifest: Manifest) -> Manifest:
        """Create an object."""

    def delete(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> None:
        """Delete one."""


@dataclass(frozen=True)
class EndedJob:
    """How the last Job of a run ended.

    Attributes:
        run: its id.
        at: when it ended.
        name: of the Job.
        message: of the Job's condition.
    """

    run: str
    at: datetime
    name: str
    message: str


@dataclass(frozen=True)
class RunJobs:
    """The Jobs of runs in one namespace.

    Attributes:
        api: of the cluster.
        namespace: the control namespace.
    """

    api: Api
    namespace: str

    def check(self, queues: Iterable[str]) -> None:
        """Find the PodTemplates of these queues.

        Raises:
            PermanentError: one does not exist.
        """
        for queue in queues:
            self._template(queue)

    def start(self, run: str, queue: str, attempt: str) -> str:
        """Create the Job of a run, unless it exists; returns its name.

        Args:
            run: id of the run.
            queue: whose PodTemplate is used.
            attempt: id of the state that asks for it. A request whose answer was lost can be repeated.

        Raises:
            PermanentError: the queue has no PodTemplate, or the Job is refused.
            TemporaryError: the API server does not answer.
        """
        job = job_of(self._template(queue), queue, run, attempt)
        with suppress(Conflict):
            self.api.create(job)
        return str(job["metadata"]["name"])

    def stop(self, run: str) -> None:
        """Delete the Jobs of a run. Its pods get SIGTERM and 60 s."""
        for job in self._jobs(run):
            self.api.delete("batch/v1", "Job", job["metadata"]["name"], self.namespace)

    def latest(self) -> dict[str, EndedJob | None]:
        """The last Job of each run; None while it runs."""
        now = self.api.now()
        # a run that is repeated has several
        jobs = sorted(self._jobs(), key=lambda one: str(one["metadata"]["creationTimestamp"]))
        return {run_of(job): _ended(job, now) for job in jobs}

    def why(self, job: EndedJob) -> str:
        """Why a Job ended, by its pod where there is one: `OOMKilled, exit code 137`."""
        pods = self.api.list("v1", "Pod", self.namespace, f"{JOB_NAME}={job.name}")
        return next(filter(None, map(why_ended, pods)), job.message)

    def _jobs(self, run: str = "") -> Sequence[Manifest]:
        return self.api.list("batch/v1", "Job", self.namespace, f"{RUN}={run}" if run else RUN)

    def _template(self, queue: str) -> Manifest:
        name = f"isa-run-{queue}"
        found = self.api.get("v1", "PodTemplate", name, self.namespace)
        if found is None:
            raise PermanentError(
                f"PodTemplate {name} does not exist in namespace {self.namespace}: apply deployments/worker/worker.yaml"
            )
        return found


def job_of(template: Manifest, queue: str, run: str, attempt: str) -> Manifest:
    """Build the Job of a run.

    Args:
        template: the queue's PodTemplate, as the API server returns it.
        queue: of the run.
        run: its id.
        attempt: id of the state that asks for it: a run that is repeated gets a second Job.
    """
    pod = template["template"]
    # A whole id is too long for a name (63). A UUID of version 7 starts with the time: its first 32 bits are the same
    # for 65 s (RFC 9562, 5.7). Its last 48 are random.
    suffix = attempt.rpartition("-")[2]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": f"isa-run-{run}-{suffix}",
            "namespace": template["metadata"]["namespace"],
            "labels": {**MANAGED, QUEUE: queue, RUN: run},
        },
        "spec": {
            "backoffLimit": 0,  # a second pod could not continue the run
            "ttlSecondsAfterFinished": KEEP_SECONDS,
            "template": {
                "metadata": {"labels": {**pod["metadata"]["labels"], RUN: run}},
                "spec": pod["spec"],
            },
        },
    }


def run_of(job: Manifest) -> str:
    """Id of a Job's run."""
    return str(job["metadata"]["labels"][RUN])


def end_of(job: Manifest, now: datetime) -> datetime | None:
    """Return when a Job ended; None while its pod runs, or may still end by itself.

    Args:
        job: as the API server returns it.
        now: by the API server's clock.
    """
    condition = _last(job)
    if not condition:
        return None
    at = datetime.fromisoformat(condition["lastTransitionTime"])
    if condition["type"] == "FailureTarget" and now - at < LOST_AFTER:
        return None
    return at


def why_ended(pod: Manifest) -> str:
    """Why a run's pod ended, from its status; "" if its container has reported nothing and nobody deleted it."""
    status = pod.get("status", {})
    disrupted = [
        one["message"]
        for one in status.get("conditions", ())
        if one["type"] == "DisruptionTarget" and one["status"] == "True"
    ]
    for container in status.get("containerStatuses", ()):
        ended = container.get("state", {}).get("terminated")
        if ended:
            words = [ended.get("reason", ""), f"exit code {ended['exitCode']}", *disrupted]
            return ", ".join(filter(None, words))
    reason = ": ".join(filter(None, (status.get("reason"), status.get("message"))))
    return "; ".join(filter(None, [reason, *disrupted]))


def _ended(job: Manifest, now: datetime) -> EndedJob | None:
    at = end_of(job, now)
    if at is None:
        return None
    message = _last(job).get("message", "it ended")
    return EndedJob(run_of(job), at, job["metadata"]["name"], message)


def _last(job: Manifest) -> Mapping[str, Any]:
    """The condition that tells a Job's end, the final ones first."""
    true = {
        one["type"]: one
        for one in job.get("status", {}).get("conditions", ())
        if one["status"] == "True"
    }
    return next((true[key] for key in ("Complete", "Failed", "FailureTarget") if key in true), {})
