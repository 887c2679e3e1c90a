"""Prefect's server in the cluster has the settings that the sandbox's server is tested with."""

from __future__ import annotations

from typing import Any

import yaml

from config.loading import ROOT
from config.sections.backups import BackupSettings
from sandbox.control_room import LEASES

MANIFESTS = list(yaml.safe_load_all((ROOT / "deployments/prefect/server.yaml").read_text()))
WORKERS = list(yaml.safe_load_all((ROOT / "deployments/worker/worker.yaml").read_text()))


def container_of(kind: str) -> dict[str, Any]:
    (found,) = (one for one in MANIFESTS if one["kind"] == kind)
    (container,) = found["spec"]["template"]["spec"]["containers"]
    return dict(container)


def environ_of(kind: str) -> dict[str, Any]:
    return {one["name"]: one.get("value", one) for one in container_of(kind)["env"]}


def test_a_restart_of_the_server_takes_no_run_its_place() -> None:
    environ = environ_of("Deployment")
    assert environ["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"] == LEASES
    mounts = {one["mountPath"]: one["name"] for one in container_of("Deployment")["volumeMounts"]}
    (server,) = (one for one in MANIFESTS if one["kind"] == "Deployment")
    volumes = {one["name"]: one for one in server["spec"]["template"]["spec"]["volumes"]}
    claim = volumes[mounts[environ["PREFECT_HOME"]]]["persistentVolumeClaim"]
    assert claim == {"claimName": "prefect-server"}
    (unlock,) = server["spec"]["template"]["spec"]["initContainers"]
    assert unlock["command"][-1] == f"{environ['PREFECT_HOME']}/concurrency_leases/expirations.lock"


def test_the_database_is_the_one_that_the_platforms_backup_reads() -> None:
    source = environ_of("Deployment")["PREFECT_API_DATABASE_CONNECTION_URL"]["valueFrom"]
    default = BackupSettings.model_fields["prefect_database_secret"].default
    assert source == {"secretKeyRef": {"name": default, "key": "url"}}
    (service,) = (
        one["metadata"]["name"]
        for one in MANIFESTS
        if one["kind"] == "Service" and one["spec"]["ports"][0]["port"] == 5432
    )
    text = (ROOT / "deployments/prefect/README.md").read_text()
    assert f"prefect:$password@{service}:5432/prefect" in text


def test_server_and_workers_have_one_image() -> None:
    (worker,) = {
        one.get("spec", one)["template"]["spec"]["containers"][0]["image"] for one in WORKERS
    }
    assert container_of("Deployment")["image"] == worker


def test_the_password_of_the_api_is_the_workers() -> None:
    source = environ_of("Deployment")["PREFECT_SERVER_API_AUTH_STRING"]["valueFrom"]
    assert source == {"secretKeyRef": {"name": "isa-worker", "key": "PREFECT_API_AUTH_STRING"}}
    run = WORKERS[-1]["template"]["spec"]["containers"][0]
    assert {"secretRef": {"name": "isa-worker", "optional": True}} in run["envFrom"]
