"""The embedded cluster itself: repaired by the next `up`, several side by side, nothing left behind."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from errors import PermanentError
from sandbox.cluster import Sandbox
from sandbox.control_plane import START_ORDER
from sandbox.machine.paths import state_dir
from sandbox.machine.processes import start_time
from sandbox.nodes.simulated import NodeSize

ISA = str(Path(sys.executable).with_name("isa"))


@pytest.fixture(scope="module")
def own() -> Iterator[Sandbox]:
    """A sandbox that these tests may break."""
    made = Sandbox(f"broken-{os.getpid()}")
    made.up(NodeSize(count=3), ready_delay=(0.1, 0.2), engines=False)
    yield made
    made.down(purge=True)


def until(what: str, condition: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"{what}: not within {seconds} s")


def storage_class(name: str, reclaim: str) -> dict[str, Any]:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name},
        "provisioner": "block.csi.sandbox.local",
        "reclaimPolicy": reclaim,
        "volumeBindingMode": "WaitForFirstConsumer",
    }


def pod(
    name: str, claim: str | None = None, annotations: dict[str, str] | None = None
) -> dict[str, Any]:
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}] if claim else []
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "annotations": annotations or {}},
        "spec": {
            "containers": [{"name": "c", "image": "sandbox.local/none:1"}],
            "volumes": volumes,
            "serviceAccountName": "default",
            "automountServiceAccountToken": False,
        },
    }


def ready(sandbox: Sandbox, name: str) -> bool:
    found = sandbox.kube().get("v1", "Pod", name, "default") or {}
    conditions = found.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def test_up_again_changes_nothing(own: Sandbox) -> None:
    before = own.pids()
    assert own.up()["up"] is True
    assert own.pids() == before


@pytest.mark.parametrize("part", [*START_ORDER, "object-store"])
def test_whatever_part_was_killed_the_next_up_repairs_it(own: Sandbox, part: str) -> None:
    own.kube().apply({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kept", "namespace": "default"},
    })  # fmt: skip
    os.kill(own.pids()[part], signal.SIGKILL)
    until(f"{part} is gone", lambda: part not in own.pids())
    assert own.up()["up"] is True
    assert own.kube().get("v1", "ConfigMap", "kept", "default") is not None


def test_a_pod_runs_before_it_is_ready_and_has_an_address_of_its_sandbox(own: Sandbox) -> None:
    own.kube().create(pod("plain"))
    until("ready", lambda: ready(own, "plain"))
    status = (own.kube().get("v1", "Pod", "plain", "default") or {})["status"]
    assert status["podIP"].startswith(f"127.{own.addresses.number}.")


def test_a_pod_that_shall_never_be_ready_is_not(own: Sandbox) -> None:
    own.kube().create(pod("never", annotations={"isa-cloud.io/never-ready": "true"}))
    own.kube().create(pod("other"))
    until("the other is ready", lambda: ready(own, "other"))
    time.sleep(0.5)
    assert not ready(own, "never")


def bound_volume(sandbox: Sandbox, name: str, reclaim: str) -> str:
    """Name of the volume that a pod's claim of a new class got."""
    kube = sandbox.kube()
    kube.apply(storage_class(name, reclaim))
    kube.create(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": name,
                "resources": {"requests": {"storage": "1Gi"}},
            },
        }
    )
    kube.create(pod(name, claim=name))
    until("ready", lambda: ready(sandbox, name))
    claim = kube.get("v1", "PersistentVolumeClaim", name, "default") or {}
    assert claim["status"]["phase"] == "Bound"
    return str(claim["spec"]["volumeName"])


def delete_pod_and_claim(sandbox: Sandbox, name: str) -> None:
    sandbox.kube().delete("v1", "Pod", name, "default")
    sandbox.kube().delete("v1", "PersistentVolumeClaim", name, "default")


def test_a_volume_of_a_class_that_retains_outlives_its_claim(own: Sandbox) -> None:
    volume = bound_volume(own, "kept", "Retain")
    found = own.kube().get("v1", "PersistentVolume", volume) or {}
    assert found["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    delete_pod_and_claim(own, "kept")

    def released() -> bool:
        found = own.kube().get("v1", "PersistentVolume", volume) or {}
        return bool(found["status"]["phase"] == "Released")

    until("the volume is released and kept", released)


def test_a_volume_of_a_class_that_deletes_goes_with_its_claim(own: Sandbox) -> None:
    volume = bound_volume(own, "scratch", "Delete")
    found = own.kube().get("v1", "PersistentVolume", volume) or {}
    assert found["spec"]["persistentVolumeReclaimPolicy"] == "Delete"
    delete_pod_and_claim(own, "scratch")
    until("the volume is gone", lambda: own.kube().get("v1", "PersistentVolume", volume) is None)


def test_many_claims_at_once_are_all_bound(own: Sandbox) -> None:
    names = [f"many-{number}" for number in range(12)]
    kube = own.kube()
    kube.apply(storage_class("many", "Delete"))
    for name in names:
        kube.create(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": name, "namespace": "default"},
                "spec": {
                    "accessModes": ["ReadWriteOnce"],
                    "storageClassName": "many",
                    "resources": {"requests": {"storage": "1Gi"}},
                },
            }
        )
        kube.create(pod(name, claim=name))
    until("all ready", lambda: all(ready(own, name) for name in names))
    claims = [kube.get("v1", "PersistentVolumeClaim", name, "default") or {} for name in names]
    assert {claim["status"]["phase"] for claim in claims} == {"Bound"}
    assert len({claim["spec"]["volumeName"] for claim in claims}) == len(names)
    volumes = [kube.get("v1", "PersistentVolume", c["spec"]["volumeName"]) or {} for c in claims]
    assert {v["spec"]["persistentVolumeReclaimPolicy"] for v in volumes} == {"Delete"}
    for name in names:
        delete_pod_and_claim(own, name)


def test_a_job_completes(own: Sandbox) -> None:
    template = pod("any")["spec"]
    own.kube().create(
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "once", "namespace": "default"},
            "spec": {"template": {"spec": {**template, "restartPolicy": "Never"}}},
        }
    )

    def succeeded() -> bool:
        status = (own.kube().get("batch/v1", "Job", "once", "default") or {}).get("status", {})
        return any(
            c["type"] == "Complete" and c["status"] == "True" for c in status.get("conditions", [])
        )

    until("complete", succeeded)
    pods = own.kube().list("v1", "Pod", "default")
    mine = [p for p in pods if p["metadata"].get("labels", {}).get("job-name") == "once"]
    assert [p["status"]["phase"] for p in mine] == ["Succeeded"]


def test_two_sandboxes_run_side_by_side(own: Sandbox, sandbox: Sandbox) -> None:
    assert own.addresses.number != sandbox.addresses.number
    assert not set(own.addresses.ports()) & set(sandbox.addresses.ports())
    assert len(own.kube().list("v1", "Node")) == 3
    assert len(sandbox.kube().list("v1", "Node")) == 8


def test_nodes_are_added_and_stand_in_three_zones(own: Sandbox) -> None:
    own.up(NodeSize(count=4))
    nodes = own.kube().list("v1", "Node")
    assert len(nodes) == 4
    assert {node["metadata"]["labels"]["topology.kubernetes.io/zone"] for node in nodes} == {
        "zone-1", "zone-2", "zone-3",
    }  # fmt: skip


def test_asking_about_a_sandbox_that_never_was_makes_none() -> None:
    name = f"never-{os.getpid()}"
    done = subprocess.run(
        [ISA, "sandbox", "status", "--name", name, "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert json.loads(done.stdout)["up"] is False
    assert not (state_dir() / name).exists()


@pytest.fixture
def small() -> Iterator[Sandbox]:
    """A name for a sandbox that a test brings up and down itself."""
    made = Sandbox(f"small-{os.getpid()}")
    yield made
    made.down(purge=True)


def test_down_leaves_nothing_running_and_purge_leaves_nothing_at_all(small: Sandbox) -> None:
    small.up(NodeSize(count=1), engines=False)
    pids = small.pids()
    small.down()
    assert small.pids() == {}
    assert not any(start_time(pid) for pid in pids.values())
    assert small.up()["up"] is True, "down without purge keeps the data"
    small.down(purge=True)
    assert not small.directory.exists()


def test_down_ends_also_what_nothing_remembers(small: Sandbox) -> None:
    small.up(NodeSize(count=1), engines=False)
    pids = small.pids()
    shutil.rmtree(small.directory)
    assert small.pids() == {}
    small.down()
    assert not any(start_time(pid) for pid in pids.values())


def test_a_port_that_somebody_else_has_is_named(small: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", small.addresses.kwok)):
        with pytest.raises(PermanentError, match=f"port {small.addresses.kwok} .* kwok"):
            small.up(NodeSize(count=1), engines=False)
        assert small.pids() == {}, "nothing is started before all ports are known to be free"


def test_the_object_store_keeps_every_version_for_as_long_as_it_is_told(own: Sandbox) -> None:
    import boto3

    store = own.status()["object_store"]
    client = boto3.client(
        "s3",
        endpoint_url=store["endpoint"],
        region_name="us-east-1",
        aws_access_key_id=store["access_key"],
        aws_secret_access_key=store["secret_key"],
    )
    assert client.get_bucket_versioning(Bucket=store["bucket"])["Status"] == "Enabled"
    lock = client.get_object_lock_configuration(Bucket=store["bucket"])
    assert lock["ObjectLockConfiguration"]["ObjectLockEnabled"] == "Enabled"


def test_the_object_stores_credentials_are_where_the_product_reads_them(own: Sandbox) -> None:
    secret = own.kube().get("v1", "Secret", "infotrend-object", "isa-cloud-control") or {}
    found = {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}
    store = own.status()["object_store"]
    assert found == {"access-key": store["access_key"], "secret-key": store["secret_key"]}
