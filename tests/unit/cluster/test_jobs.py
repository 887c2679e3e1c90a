"""The Job of a run has its queue's pod, and tells how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml

from cluster.kube import Conflict
from cluster.manifests import Manifest
from cluster.pods.jobs import JOB_NAME, LOST_AFTER, QUEUE, RUN, EndedJob, RunJobs, job_of, why_ended
from config.loading import ROOT
from errors import PermanentError

NOW = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)
CONTROL = "isa-cloud-control"
FIRST, SECOND = "11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222"


@dataclass
class Api:
    """An API server that holds PodTemplates, Jobs and pods."""

    jobs: list[Manifest] = field(default_factory=list)
    pods: list[Manifest] = field(default_factory=list)
    templates: list[Manifest] = field(
        default_factory=lambda: [
            one
            for one in yaml.safe_load_all((ROOT / "deployments/worker/worker.yaml").read_text())
            if one["kind"] == "PodTemplate"
        ]
    )

    def now(self) -> datetime:
        return NOW

    def get(
        self, api_version: str, kind: str, name: str, namespace: str | None = None
    ) -> Manifest | None:
        assert (kind, namespace) == ("PodTemplate", CONTROL)
        return next((one for one in self.templates if one["metadata"]["name"] == name), None)

    def list(
        self, api_version: str, kind: str, namespace: str | None = None, selector: str = ""
    ) -> Sequence[Manifest]:
        key, _, value = selector.partition("=")
        return [
            one
            for one in (self.jobs if kind == "Job" else self.pods)
            if key in one["metadata"]["labels"]
            and (not value or one["metadata"]["labels"][key] == value)
        ]

    def create(self, manifest: Manifest) -> Manifest:
        if manifest["metadata"]["name"] in [one["metadata"]["name"] for one in self.jobs]:
            raise Conflict("it exists")
        self.jobs.append(manifest)
        return manifest

    def delete(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> None:
        self.jobs = [one for one in self.jobs if one["metadata"]["name"] != name]


def job(run: str, *conditions: tuple[str, int], created: int = 600, name: str = "x") -> Manifest:
    """A Job with conditions of some seconds ago."""
    return {
        "metadata": {
            "name": name,
            "labels": {RUN: run, QUEUE: "backups"},
            "creationTimestamp": ago(created),
        },
        "status": {
            "conditions": [
                {
                    "type": kind,
                    "status": "True",
                    "lastTransitionTime": ago(seconds),
                    "message": f"{kind} of the Job",
                }
                for kind, seconds in conditions
            ]
        },
    }


def ago(seconds: int) -> str:
    return (NOW - timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def ended(*jobs: Manifest) -> list[EndedJob]:
    latest = RunJobs(Api(jobs=[*jobs]), CONTROL).latest()
    return [job for job in latest.values() if job is not None]


def test_a_runs_pod_is_its_queues_pod_template_and_only_a_label_differs() -> None:
    api = Api()
    RunJobs(api, CONTROL).start(FIRST, "backups", SECOND)
    (made,) = api.jobs
    template = api.get("v1", "PodTemplate", "isa-run-backups", CONTROL)
    assert template is not None
    pod = made["spec"]["template"]
    assert pod["spec"] == template["template"]["spec"]
    own = {RUN: FIRST}
    assert pod["metadata"] == {"labels": {**template["template"]["metadata"]["labels"], **own}}
    assert made["metadata"]["labels"] == {
        "app.kubernetes.io/managed-by": "isa-cloud",
        QUEUE: "backups",
        **own,
    }


def test_a_request_that_is_repeated_makes_one_job_and_a_run_that_is_repeated_makes_two() -> None:
    api = Api()
    jobs = RunJobs(api, CONTROL)
    # ids of two states, 5 s apart: Prefect's are UUIDs of version 7
    first, second = "019ad4aa-0000-7a1b-8c2d-3e4f5a6b7c8d", "019ad4aa-1388-7b2c-9d3e-4f5a6b7c8d9e"
    assert jobs.start(FIRST, "backups", first) == jobs.start(FIRST, "backups", first)
    assert len(api.jobs) == 1
    jobs.start(FIRST, "backups", second)
    assert len(api.jobs) == 2
    assert all(len(one["metadata"]["name"]) <= 63 for one in api.jobs)


def test_a_queue_without_a_pod_template_is_named_with_its_file() -> None:
    with pytest.raises(PermanentError, match=r"isa-run-backups .*worker\.yaml"):
        RunJobs(Api(templates=[]), CONTROL).check(["backups"])


def test_only_the_jobs_of_the_run_are_deleted() -> None:
    api = Api(jobs=[job(FIRST, name="a"), job(SECOND, name="b")])
    for _ in range(2):
        RunJobs(api, CONTROL).stop(FIRST)
        assert [one["metadata"]["name"] for one in api.jobs] == ["b"]


def test_a_job_has_ended_when_kubernetes_says_so() -> None:
    assert ended(job(FIRST)) == []
    (complete,) = ended(job(FIRST, ("Complete", 20)))
    assert (complete.run, complete.at) == (FIRST, NOW - timedelta(seconds=20))
    (failed,) = ended(job(FIRST, ("FailureTarget", 40), ("Failed", 10)))
    assert failed.at == NOW - timedelta(seconds=10)


def test_a_pod_that_is_being_deleted_has_its_time_to_end_and_one_on_a_lost_node_no_more() -> None:
    limit = int(LOST_AFTER.total_seconds())
    assert ended(job(FIRST, ("FailureTarget", limit - 1))) == []
    assert len(ended(job(FIRST, ("FailureTarget", limit)))) == 1


def test_a_run_that_was_started_again_is_not_ended_by_its_first_job() -> None:
    first, second = job(FIRST, ("Failed", 300)), job(FIRST, created=60)
    assert ended(second, first) == []
    assert len(ended(job(FIRST, ("Failed", 20), created=60), first)) == 1


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (
            {"containerStatuses": [{"state": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}]},
            "OOMKilled, exit code 137",
        ),
        (
            {"reason": "Evicted", "message": "The node was low on resource: memory."},
            "Evicted: The node was low on resource: memory.",
        ),
        (
            {
                "containerStatuses": [{"state": {"running": {}}}],
                "conditions": [
                    {
                        "type": "DisruptionTarget",
                        "status": "True",
                        "message": "Taint manager: deleting due to NoExecute taint",
                    }
                ],
            },
            "Taint manager: deleting due to NoExecute taint",
        ),
        ({"containerStatuses": [{"state": {"running": {}}}]}, ""),
    ],
)  # fmt: skip
def test_the_reason_of_a_pods_end_is_what_kubelet_or_the_node_controller_says(
    status: dict[str, Any], words: str
) -> None:
    assert why_ended({"status": status}) == words


def test_without_a_pod_the_jobs_own_message_is_the_reason() -> None:
    terminated = {"reason": "Error", "exitCode": 1}
    pod = {
        "metadata": {"labels": {JOB_NAME: "x"}},
        "status": {"containerStatuses": [{"state": {"terminated": terminated}}]},
    }
    for pods, words in (([pod], "Error, exit code 1"), ([], "Failed of the Job")):
        jobs = RunJobs(Api(jobs=[job(FIRST, ("Failed", 9))], pods=pods), CONTROL)
        (end,) = jobs.latest().values()
        assert end is not None
        assert jobs.why(end) == words


def test_a_jobs_name_is_one_that_kubernetes_takes_for_every_queue() -> None:
    for template in Api().templates:
        made = job_of(template, "backups", FIRST, SECOND)
        assert len(made["metadata"]["name"]) <= 63  # it becomes a label of the pod
