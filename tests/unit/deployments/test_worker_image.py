from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from prefect.settings import PREFECT_WORKER_WEBSERVER_PORT

from cli.main import isa
from cluster.pods.jobs import LOST_AFTER, RUN
from config.loading import variable
from config.models import StoreSecrets
from config.sections.wal import PostgresqlWal
from operations.wal.probe import PORT
from sandbox.control_room import CLIENT, QUEUES
from sandbox.machine.binaries import GO_MINIMUM, TOOLS
from sandbox.site.object_store import POLICY_OF
from tasks.cancellation import LIMIT_SECONDS
from tasks.server.api import PROGRAM, deployments

PROJECT = Path(__file__).resolve().parents[3]
CONTAINERFILE = (PROJECT / "deployments/worker/Containerfile").read_text()
MANIFESTS = list(yaml.safe_load_all((PROJECT / "deployments/worker/worker.yaml").read_text()))
(STREAM,) = yaml.safe_load_all((PROJECT / "deployments/worker/wal.yaml").read_text())
PODS = [*MANIFESTS, STREAM]
DISPATCHERS = [one for one in MANIFESTS if one["kind"] == "Deployment"]
RUNS = [one for one in MANIFESTS if one["kind"] == "PodTemplate"]


def each(manifests: list[dict[str, Any]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("one", manifests, ids=lambda one: one["metadata"]["name"])


def pod_of(one: dict[str, Any]) -> dict[str, Any]:
    """The pod of a Deployment or of a PodTemplate."""
    found: dict[str, Any] = one.get("spec", one)["template"]["spec"]
    return found


def test_the_sandbox_is_as_patient_with_its_server_as_the_workers_image() -> None:
    (line,) = re.findall(r"^ENV (.*PREFECT_.*)$", CONTAINERFILE, re.MULTILINE)
    image = dict(one.split("=", 1) for one in line.split())
    assert {name: image.get(name) for name in CLIENT} == CLIENT


def test_the_image_has_the_helm_that_everything_is_tested_with_and_it_tells_its_whole_version() -> (
    None
):
    helm = TOOLS["helm"]
    (line,) = re.findall(r"^RUN (.*go install.*)$", CONTAINERFILE, re.MULTILINE)
    assert line.endswith(f" {helm.package}@{helm.version}")
    assert f'-ldflags "{helm.flags}"' in line
    assert helm.flags.endswith(f"version.version={helm.version}")
    (go,) = re.findall(r"^FROM docker.io/library/golang:(\d+)\.(\d+)-", CONTAINERFILE, re.MULTILINE)
    assert tuple(map(int, go)) >= GO_MINIMUM


def test_the_image_installs_the_pinned_requirements_and_nothing_else_from_pypi() -> None:
    installs = re.findall(r"pip install (.*?)(?: &&|$)", CONTAINERFILE, re.MULTILINE)
    assert installs == [
        "--no-cache-dir -r requirements.txt",
        "--no-cache-dir --no-deps --editable .",
    ]


def test_postgresqls_programs_in_the_image_are_of_productions_major_version() -> None:
    contract = json.loads((PROJECT / "tests/contracts/postgresql-ha.json").read_text())
    programs = re.findall(r"postgresql-client-(\d+)", CONTAINERFILE)
    assert programs == [contract["appVersion"].split(".")[0]]


def test_every_package_of_the_image_is_debians() -> None:
    stages = re.findall(r"^FROM docker.io/library/(\S+)", CONTAINERFILE, re.MULTILINE)
    assert all("trixie" in stage for stage in stages)
    assert "http" not in CONTAINERFILE


def test_the_image_runs_as_the_user_that_the_pods_run_as() -> None:
    assert re.findall(r"^USER (\d+)$", CONTAINERFILE, re.MULTILINE) == ["10001"]
    assert "useradd --uid 10001" in CONTAINERFILE
    assert {pod_of(one)["securityContext"]["runAsUser"] for one in PODS} == {10001}


# queue → account
ACCOUNT_OF = {
    "default": "isa-deployer",
    "backups": "isa-backup",
    "proofs": "isa-verify",
    "retention": "isa-retention",
    "restores": "isa-restore",
    "rebuilds": "isa-rebuild",
}
SERVED = {
    "isa-dispatcher": ["default", "backups", "proofs", "retention"],
    "isa-recovery-dispatcher": ["restores", "rebuilds"],
}


def test_every_queue_has_one_pod_template_whose_pod_runs_declared_flows_alone() -> None:
    declared = {one["work_pool"]["work_queue_name"] for one in deployments()}
    assert declared == set(QUEUES) == ACCOUNT_OF.keys()
    found = {}
    for one in RUNS:
        pod = pod_of(one)
        (container,) = pod["containers"]
        *program, queue = container["args"]
        assert program == ["python", "-m", PROGRAM]
        assert one["metadata"]["name"] == f"isa-run-{queue}"
        found[queue] = pod["serviceAccountName"]
    assert found == ACCOUNT_OF


def test_every_queue_is_served_by_one_dispatcher_with_its_own_account() -> None:
    found = {}
    for one in DISPATCHERS:
        pod = pod_of(one)
        (container,) = pod["containers"]
        assert container["args"][:2] == ["isa", "worker"]
        assert container["args"][-2:] == ["--jobs", "--with-healthcheck"]
        found[pod["serviceAccountName"]] = container["args"][2:-2]
    assert found == SERVED


def test_restores_and_rebuilds_wait_until_an_operator_starts_their_dispatcher() -> None:
    replicas = {one["metadata"]["name"]: one["spec"]["replicas"] for one in DISPATCHERS}
    assert replicas == {"isa-dispatcher": 1, "isa-recovery-dispatcher": 0}


def test_a_run_gets_its_id_from_its_pods_label_and_its_pod_is_started_once() -> None:
    for one in RUNS:
        pod = pod_of(one)
        (container,) = pod["containers"]
        source = {"fieldRef": {"fieldPath": f"metadata.labels['{RUN}']"}}
        assert {"name": "PREFECT__FLOW_RUN_ID", "valueFrom": source} in container["env"]
        assert pod["restartPolicy"] == "Never"


def test_a_run_has_more_time_to_end_than_its_cancellation_takes_and_less_than_it_takes_to_count_as_lost() -> (
    None
):
    for one in RUNS:
        grace = pod_of(one)["terminationGracePeriodSeconds"]
        assert LIMIT_SECONDS < grace < LOST_AFTER.total_seconds()


@each(DISPATCHERS)
def test_a_dispatcher_is_ready_while_its_server_answers_and_is_not_restarted_when_it_does_not(
    one: dict[str, Any],
) -> None:
    (container,) = pod_of(one)["containers"]
    port = PREFECT_WORKER_WEBSERVER_PORT.value()
    assert container["readinessProbe"] == {"httpGet": {"path": "/health", "port": port}}
    assert "livenessProbe" not in container


@each(PODS)
def test_a_pod_writes_to_its_own_volumes_alone(one: dict[str, Any]) -> None:
    (container,) = pod_of(one)["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    mounts = {one["mountPath"]: one["name"] for one in container["volumeMounts"]}
    volumes = {one["name"]: one for one in pod_of(one)["volumes"]}
    assert {"/home/isa", "/tmp"} <= mounts.keys()
    assert {*mounts.values()} == volumes.keys()
    for path in ("/home/isa", "/tmp"):
        assert volumes[mounts[path]]["emptyDir"]["sizeLimit"]


@each([*RUNS, STREAM])
def test_every_run_names_its_own_accounts_key_of_the_object_store(one: dict[str, Any]) -> None:
    pod = pod_of(one)
    environ = {one["name"]: one.get("value") for one in pod["containers"][0]["env"]}
    role = pod["serviceAccountName"].removeprefix("isa-")
    named = environ.get("ISA_STORAGE__OBJECT__CREDENTIALS_SECRET", "infotrend-object")
    assert named == getattr(StoreSecrets(), role)


def test_the_stream_of_wal_runs_once_with_its_own_command_probe_and_room() -> None:
    pod = pod_of(STREAM)
    (container,) = pod["containers"]
    assert (STREAM["spec"]["replicas"], STREAM["spec"]["strategy"]) == (1, {"type": "Recreate"})
    assert container["args"][:3] == ["isa", *stream_command()]
    assert container["livenessProbe"]["httpGet"] == {"path": "/health", "port": PORT}
    environ = {one["name"]: one["value"] for one in container["env"]}
    mounts = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
    assert Path(environ[variable("wal.postgresql.spool")]).parent == Path(mounts["spool"])
    (spool,) = (one for one in pod["volumes"] if one["name"] == "spool")
    room = spool["ephemeral"]["volumeClaimTemplate"]["spec"]["resources"]["requests"]["storage"]
    assert int(room.removesuffix("Gi")) << 30 >= PostgresqlWal().spool_bytes + (32 << 20)
    # the Prefect server's password is not its business
    assert container["envFrom"] == [{"configMapRef": {"name": "isa-worker"}}]


def stream_command() -> list[str]:
    context = click.Context(isa)
    group = isa.get_command(context, "wal")
    assert isinstance(group, click.Group) and "stream" in group.commands
    return ["wal", "stream"]


def test_a_dispatchers_policy_knows_the_queues_that_it_serves() -> None:
    text = (PROJECT / "deployments/kubernetes/production/namespace.yaml").read_text()
    (policy,) = (
        one
        for one in yaml.safe_load_all(text)
        if one["kind"] == "ValidatingAdmissionPolicy" and one["metadata"]["name"] == "isa-run"
    )
    (queues,) = policy["spec"]["variables"]
    lists = [json.loads(one) for one in re.findall(r"\[.*?\]", queues["expression"])]
    assert lists == [*SERVED.values()]


def test_no_policy_but_retentions_deletes_backups_and_no_policy_has_a_wildcard_of_rights() -> None:
    for name in set(POLICY_OF.values()):
        text = (PROJECT / f"deployments/object-store/policies/{name}.json").read_text()
        for statement in json.loads(text)["Statement"]:
            assert all("*" not in action for action in statement["Action"])
            deletes = any("Delete" in action for action in statement["Action"])
            own = all(one.endswith("/self-test/*") for one in statement["Resource"])
            assert not deletes or own or name == "retention"


def test_the_image_holds_no_settings_of_the_sandbox() -> None:
    ignored = (PROJECT / ".dockerignore").read_text().split()
    assert "config/environments/sandbox.yaml" in ignored
    assert not {f"config/environments/{name}.yaml" for name in ("production", "staging")} & {
        *ignored
    }
