"""Each run is a Job of its queue's PodTemplate, whatever the API's caller asks for or happens to the dispatcher.

Server, dispatcher, API server and Job controller are real. Pods are only looked at; a test that needs a run's process
starts it as the pod would.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.kube import Kube, Manifest, NotAllowed
from cluster.pods.jobs import QUEUE, RUN, job_of
from config.loading import ROOT
from config.models import KubernetesSettings
from sandbox.cluster import Sandbox
from sandbox.control_room import ISA, POOL, ControlRoom

from .accounts import identity_of, log_in
from .own_namespaces import ADMISSION, namespaces, own_settings, refused
from .platform_tree import until
from .test_control_room_attacks import FINAL, PARAMETERS, REBUILD

pytestmark = pytest.mark.integration

ID = "12345678-1234-1234-1234-123456789012"
# No node has it, so that no pod starts: those of a Job end by themselves where nodes are simulated.
NOWHERE = {"isa-cloud.io/test": "nowhere"}
SECONDS = 240.0


@dataclass
class Place:
    """A control namespace with its accounts, policies and PodTemplates.

    Attributes:
        sandbox: whose cluster.
        kubernetes: settings with its namespaces.
        directory: of the accounts' kubeconfigs.
    """

    sandbox: Sandbox
    kubernetes: KubernetesSettings
    directory: Path

    @property
    def namespace(self) -> str:
        return self.kubernetes.control_namespace

    def log_in(self, account: str) -> KubernetesSettings:
        return log_in(self.sandbox, self.directory, account, self.kubernetes)

    def as_account(self, account: str) -> Kube:
        return Kube.connect(self.log_in(account))

    def template(self, queue: str) -> Manifest:
        found = self.sandbox.kube().get("v1", "PodTemplate", f"isa-run-{queue}", self.namespace)
        assert found is not None
        return found

    def job(self, queue: str = "backups") -> Manifest:
        return job_of(self.template(queue), queue, ID, ID)

    def jobs(self, run: str) -> list[Manifest]:
        return self.sandbox.kube().list("batch/v1", "Job", self.namespace, f"{RUN}={run}")

    def pod(self, run: str) -> Manifest:
        """The newest pod of a run, once the Job controller has made it."""
        kube = self.sandbox.kube()

        def pods() -> list[Manifest]:
            found = kube.list("v1", "Pod", self.namespace, f"{RUN}={run}")
            jobs = self.jobs(run)
            return found if len(found) == len(jobs) else []

        found = until(f"each Job of run {run} has a pod", pods, SECONDS)
        return max(found, key=lambda one: str(one["metadata"]["creationTimestamp"]))


@pytest.fixture(scope="module")
def place(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    settings = own_settings(sandbox, "j")
    kubernetes, kube = settings.kubernetes, sandbox.kube()
    with namespaces(kube, settings, ADMISSION):
        for one in yaml.safe_load_all((ROOT / "deployments/worker/worker.yaml").read_text()):
            if one["kind"] == "PodTemplate":
                one["metadata"]["namespace"] = kubernetes.control_namespace
                one["template"]["spec"]["nodeSelector"] = NOWHERE
                kube.apply(one)
        yield Place(sandbox, kubernetes, tmp_path_factory.mktemp("accounts"))


Change = Callable[[Manifest], object]


def in_pod(**values: Any) -> Change:
    return lambda job: job["spec"]["template"]["spec"].update(values)


def in_container(**values: Any) -> Change:
    return lambda job: job["spec"]["template"]["spec"]["containers"][0].update(values)


def in_job(**values: Any) -> Change:
    return lambda job: job["spec"].update(values)


def labels_of_pod(**values: str) -> Change:
    return lambda job: job["spec"]["template"]["metadata"]["labels"].update(values)


def labelled(queue: str) -> Change:
    return lambda job: job["metadata"]["labels"].update({QUEUE: queue})


POD = "its pod is that of the queue's PodTemplate"
CHANGES: dict[str, tuple[Change, str]] = {
    "the account of another queue": (in_pod(serviceAccountName="isa-rebuild"), POD),
    "an account by the field's old name": (
        lambda job: job["spec"]["template"]["spec"].update(
            serviceAccount="isa-rebuild", serviceAccountName=""
        ),
        POD,
    ),
    "another image": (in_container(image="registry.example.com/evil:1"), POD),
    "another command": (in_container(command=["sh", "-c", "id"]), POD),
    "other arguments": (in_container(args=["python", "-m", "flows.execute", "rebuilds"]), POD),
    "a variable": (in_container(env=[{"name": "LD_PRELOAD", "value": "/tmp/evil.so"}]), POD),
    "another Secret": (in_container(envFrom=[{"secretRef": {"name": "isa-verify-identity"}}]), POD),
    "a second container": (
        lambda job: job["spec"]["template"]["spec"]["containers"].append(
            {**job["spec"]["template"]["spec"]["containers"][0], "name": "evil"}
        ),
        POD,
    ),
    "an init container": (
        lambda job: job["spec"]["template"]["spec"].update(
            initContainers=[{"name": "evil", "image": "registry.example.com/evil:1"}]
        ),
        POD,
    ),
    "a directory of the node": (
        lambda job: job["spec"]["template"]["spec"]["volumes"].append(
            {"name": "host", "hostPath": {"path": "/"}}
        ),
        POD,
    ),
    "the node's network": (in_pod(hostNetwork=True), POD),
    "more resources": (in_container(resources={"limits": {"cpu": "8", "memory": "8Gi"}}), POD),
    "root": (in_pod(securityContext={"runAsUser": 0}), POD),
    "a node of its choice": (in_pod(nodeName="node-1"), POD),
    "the label of another queue of its own": (labelled("proofs"), POD),
    "the label of a queue of the other dispatcher": (labelled("rebuilds"), ""),
    "no label": (lambda job: job["metadata"].pop("labels"), "no Job of another queue"),
    "a queue that does not exist": (labelled("evil"), "no Job of another queue"),
    "the network of another worker": (
        labels_of_pod(**{"app.kubernetes.io/name": "isa-verify-worker"}),
        "its pod's labels",
    ),
    "a label by which others select it": (labels_of_pod(app="minio"), "its pod's labels"),
    "the id of another run": (labels_of_pod(**{RUN: ID.replace("1", "2")}), "its pod's labels"),
    "an annotation": (
        lambda job: job["spec"]["template"]["metadata"].update(annotations={"a": "b"}),
        "no annotation",
    ),
    "several pods": (in_job(parallelism=3, completions=3), "one pod"),
    "a selector that takes other pods": (
        in_job(manualSelector=True, selector={"matchLabels": {RUN: ID}}),
        "one pod",
    ),
}


def test_the_job_of_every_queue_is_admitted_for_its_own_dispatcher_and_for_no_other(
    place: Place,
) -> None:
    served = {
        "isa-dispatcher": ("default", "backups", "proofs", "retention"),
        "isa-recovery-dispatcher": ("restores", "rebuilds"),
    }
    for account, queues in served.items():
        kube = place.as_account(account)
        for queue in queues:
            until(f"{account} creates Jobs of {queue}", lambda: not refused(kube, place.job(queue)))  # noqa: B023
        for queue in {one for other in served.values() for one in other} - {*queues}:
            answer = until("it is refused", lambda: refused(kube, place.job(queue)))  # noqa: B023
            assert "isa-run" in answer


@pytest.mark.parametrize("what", CHANGES)
def test_a_dispatcher_creates_no_job_with(what: str, place: Place) -> None:
    change, words = CHANGES[what]
    job = deepcopy(place.job())
    change(job)
    kube = place.as_account("isa-dispatcher")
    found = until("it is refused", lambda: refused(kube, job))
    assert "isa-run" in found
    assert words in found


def test_a_queue_whose_pod_template_is_missing_gets_no_job(place: Place) -> None:
    kube, template = place.sandbox.kube(), place.template("retention")
    job, dispatcher = place.job("retention"), place.as_account("isa-dispatcher")
    until("its Jobs are created", lambda: not refused(dispatcher, job))
    kube.delete("v1", "PodTemplate", "isa-run-retention", place.namespace)
    try:
        until("its Jobs are refused", lambda: "no params" in refused(dispatcher, job))
        del job["metadata"]["labels"][QUEUE]
        assert refused(kube, job) == ""  # other Jobs are not asked about
    finally:
        for key in ("uid", "resourceVersion", "creationTimestamp", "managedFields"):
            template["metadata"].pop(key, None)
        kube.create(template)


def test_a_dispatcher_creates_no_pods_reads_no_secrets_and_changes_no_template(
    place: Place,
) -> None:
    kube = place.as_account("isa-dispatcher")
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "x", "namespace": place.namespace},
        "spec": place.template("backups")["template"]["spec"],
    }
    elsewhere = deepcopy(place.job())
    elsewhere["metadata"]["namespace"] = place.kubernetes.namespace
    for attempt in (
        lambda: kube.create(pod),
        lambda: kube.list("v1", "Secret", place.namespace),
        lambda: kube.patch(place.template("backups"), {"metadata": {"labels": {"x": "y"}}}),
        lambda: kube.create(elsewhere),
    ):  # fmt: skip
        with pytest.raises(NotAllowed):
            attempt()


# ---------------------------------------------------------------------- with a Prefect server
@dataclass
class Dispatched:
    """A Prefect server with a pool of Jobs, and its dispatcher.

    Attributes:
        room: the server.
        place: of the Jobs.
        log: of the dispatcher.
        dispatcher: its process.
    """

    room: ControlRoom
    place: Place
    log: Path
    dispatcher: subprocess.Popen[bytes] | None = field(default=None)

    def environ(self) -> dict[str, str]:
        """The environment of a run's process."""
        return {
            **self.room.environ(),
            "ISA_KUBERNETES__NAMESPACE": self.place.kubernetes.namespace,
            "ISA_KUBERNETES__CONTROL_NAMESPACE": self.place.namespace,
            "ISA_KUBERNETES__VERIFY_NAMESPACE": self.place.kubernetes.verify_namespace,
            "ISA_POOL__TYPE": "kubernetes",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
        }

    def environ_of_dispatcher(self) -> dict[str, str]:
        kubeconfig = self.place.log_in("isa-dispatcher").kubeconfig
        assert kubeconfig is not None
        return {**self.environ(), **identity_of(kubeconfig)}

    def setup(self) -> str:
        done = subprocess.run(
            [ISA, "setup"],
            env=self.environ_of_dispatcher(),
            capture_output=True,
            text=True,
            check=False,
        )
        return "" if done.returncode == 0 else done.stderr + done.stdout

    def start(self) -> None:
        queues = ("default", "backups", "proofs", "retention")
        with self.log.open("ab") as log:
            self.dispatcher = subprocess.Popen(
                [ISA, "worker", *queues, "--jobs"],
                env=self.environ_of_dispatcher(),
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        if self.dispatcher is not None:
            self.dispatcher.kill()
            self.dispatcher.wait(30)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        answer = self.room.http.request(method, path, json=body)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def deployment(self, name: str = "backup-component") -> dict[str, Any]:
        flow = "backup-platform" if name.startswith("backup") else name
        found: dict[str, Any] = self.call("GET", f"/deployments/name/{flow}/{name}")
        return found

    def run(self, name: str = "backup-component", **body: Any) -> str:
        """Start one without a schedule, so that no other run holds its place in the deployment's limit."""
        path = f"/deployments/{self.deployment(name)['id']}/create_flow_run"
        parameters = PARAMETERS.get(name, {"environment": "sandbox"})
        return str(self.call("POST", path, {"parameters": parameters, **body})["id"])

    def job(self, run: str) -> Manifest:
        return until(f"run {run} has a Job", lambda: self.place.jobs(run), SECONDS)[0]

    def state(self, run: str) -> dict[str, Any]:
        return self.call("GET", f"/flow_runs/{run}")["state"]  # type: ignore[no-any-return]

    def end(self, run: str) -> dict[str, Any]:
        until(f"run {run} ends", lambda: self.state(run)["type"] in FINAL, SECONDS)
        return self.state(run)

    def process(self, run: str) -> subprocess.Popen[bytes]:
        """The run's process, started as its pod would: arguments from the pod, the run's id from its label."""
        pod = self.place.pod(run)
        program, *arguments = pod["spec"]["containers"][0]["args"]
        assert program == "python"
        environ = {**self.environ(), "PREFECT__FLOW_RUN_ID": pod["metadata"]["labels"][RUN]}
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, *arguments], env=environ, stdout=log, stderr=log, cwd=ROOT
            )

    def pod_ends(self, run: str, reason: str, code: int) -> None:
        """Report the end of a run's container, as kubelet does."""
        pod = self.place.pod(run)
        terminated = {"reason": reason, "exitCode": code}
        status = {
            "phase": "Failed" if code else "Succeeded",
            "containerStatuses": [
                {
                    "name": "run", "image": "x", "imageID": "", "ready": False, "restartCount": 0,
                    "state": {"terminated": terminated},
                }
            ],
        }  # fmt: skip
        self.place.sandbox.kube().request(
            "PATCH",
            f"/api/v1/namespaces/{self.place.namespace}/pods/{pod['metadata']['name']}/status",
            body={"status": status},
            content_type="application/strategic-merge-patch+json",
        )


@pytest.fixture(scope="module")
def dispatched(
    sandbox: Sandbox, place: Place, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Dispatched]:
    room = ControlRoom(sandbox)
    made = Dispatched(room, place, tmp_path_factory.mktemp("dispatcher") / "log")
    room.serve()
    try:
        assert made.setup() == ""
        made.start()
        yield made
    finally:
        made.kill()
        room.down(purge=True)


HOSTILE = {
    "image": "registry.example.com/evil:1",
    "command": "touch /tmp/evil",
    "env": {"LD_PRELOAD": "/tmp/evil.so"},
    "service_account_name": "isa-rebuild",
    "namespace": "kube-system",
    "job_manifest": {"spec": {"template": {"spec": {"hostNetwork": True}}}},
}


def prefects_template(**fixed: Any) -> dict[str, Any]:
    """The job template of Prefect's own Kubernetes worker, as far as a caller uses it (prefect-kubernetes 0.8.0)."""
    container = {"name": "prefect-job", "image": "{{ image }}", "env": "{{ env }}"}
    spec = {"serviceAccountName": "{{ service_account_name }}", "containers": [container]}
    manifest = {"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": {"spec": spec}}}
    return {
        "base_job_template": {
            "job_configuration": {"command": "{{ command }}", "job_manifest": manifest, **fixed},
            "variables": {"type": "object", "properties": {key: {} for key in HOSTILE}},
        }
    }


def test_setup_makes_a_pool_of_jobs_and_the_server_takes_no_job_variables(
    dispatched: Dispatched,
) -> None:
    pool = dispatched.call("GET", f"/work_pools/{POOL}")
    assert pool["type"] == "kubernetes"
    path = f"/deployments/{dispatched.deployment()['id']}/create_flow_run"
    body = {"parameters": {"environment": "sandbox"}, "job_variables": HOSTILE}
    assert dispatched.room.http.post(path, json=body).is_client_error


def variables_of_a_run(dispatched: Dispatched) -> str:
    return dispatched.run("deploy-platform", job_variables=HOSTILE)


def variables_of_a_deployment(dispatched: Dispatched) -> str:
    path = f"/deployments/{dispatched.deployment()['id']}"
    dispatched.call("PATCH", path, {"job_variables": HOSTILE})
    return dispatched.run()


def queue_of_another_account(dispatched: Dispatched) -> str:
    return dispatched.run(REBUILD, work_queue_name="proofs")


ATTACKS = [variables_of_a_run, variables_of_a_deployment, queue_of_another_account]


def test_the_api_changes_nothing_of_a_job_and_the_run_is_refused_in_it(
    dispatched: Dispatched,
) -> None:
    dispatched.call("PATCH", f"/work_pools/{POOL}", prefects_template(name="evil", **HOSTILE))
    runs = [attack(dispatched) for attack in ATTACKS]
    for run in runs:
        job = dispatched.job(run)
        queue = job["metadata"]["labels"][QUEUE]
        assert (
            job["spec"]["template"]["spec"] == dispatched.place.template(queue)["template"]["spec"]
        )
        assert "evil" not in str(job)
    processes = [dispatched.process(run) for run in runs]
    for run, process in zip(runs, processes, strict=True):
        state = dispatched.end(run)
        assert state["type"] == "FAILED"
        assert "refused, nothing was run" in state["message"]
        process.wait(SECONDS)
    assert dispatched.setup() == ""  # brings the declared template back


def test_a_run_ends_rightly_although_its_dispatcher_was_killed(dispatched: Dispatched) -> None:
    run = dispatched.run()
    dispatched.job(run)
    process = dispatched.process(run)
    dispatched.kill()
    try:
        state = dispatched.end(run)
        process.wait(SECONDS)
        dispatched.pod_ends(run, "Completed", process.returncode)
    finally:
        dispatched.start()
    assert state["type"] == "FAILED"  # by itself: there is no platform here
    assert "its Job ended" not in state["message"]
    logs = dispatched.call("POST", "/logs/filter", {"logs": {"flow_run_id": {"any_": [run]}}})
    assert any("Finished in state Failed" in one["message"] for one in logs)
    other = dispatched.run()
    dispatched.job(other)  # the new dispatcher works, and has left the ended run alone
    assert dispatched.state(run)["id"] == state["id"]
    dispatched.pod_ends(other, "OOMKilled", 137)
    crashed = dispatched.end(other)
    assert crashed["type"] == "CRASHED"
    assert "OOMKilled, exit code 137" in crashed["message"]
    again = {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}}
    dispatched.call("POST", f"/flow_runs/{other}/set_state", again)
    until("the repeated run has a Job", lambda: len(dispatched.place.jobs(other)) == 2, SECONDS)
    dispatched.pod_ends(other, "Error", 1)
    until("it has ended again", lambda: "Error" in str(dispatched.state(other)["message"]), SECONDS)


def test_a_pod_that_ended_while_no_dispatcher_ran_is_noticed_by_the_next(
    dispatched: Dispatched,
) -> None:
    run = dispatched.run()
    dispatched.job(run)
    dispatched.kill()
    try:
        dispatched.pod_ends(run, "Error", 1)
    finally:
        dispatched.start()
    state = dispatched.end(run)
    assert state["type"] == "CRASHED"
    assert "Error, exit code 1" in state["message"]


def test_a_cancel_before_the_pod_starts_deletes_the_runs_own_job_and_no_other(
    dispatched: Dispatched,
) -> None:
    victim, run = dispatched.run("deploy-platform"), dispatched.run()
    name = dispatched.job(victim)["metadata"]["name"]
    dispatched.job(run)
    until(
        "the run has its Job's name",
        lambda: dispatched.call("GET", f"/flow_runs/{run}")["infrastructure_pid"],
        SECONDS,
    )
    hostile = {"infrastructure_pid": f"{dispatched.place.namespace}:{name}"}
    dispatched.call("PATCH", f"/flow_runs/{run}", hostile)
    dispatched.call("POST", f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})
    assert dispatched.end(run)["type"] == "CANCELLED"
    until("its Job is deleted", lambda: not dispatched.place.jobs(run))
    assert dispatched.place.jobs(victim)
    dispatched.pod_ends(victim, "Error", 1)
    dispatched.end(victim)
