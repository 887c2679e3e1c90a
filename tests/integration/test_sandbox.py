"""The embedded cluster itself: repaired by the next `up`, several side by side, nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deployments.sandbox.cluster import NodeSize, Sandbox
from deployments.sandbox.control_plane import START_ORDER
from deployments.sandbox.paths import state_dir
from deployments.sandbox.processes import start_time

ISA = str(Path(sys.executable).with_name("isa"))


@pytest.fixture(scope="module")
def own() -> Iterator[Sandbox]:
    """A sandbox that these tests may break."""
    made = Sandbox(f"broken-{os.getpid()}")
    made.up(NodeSize(count=3), ready_delay=(0.1, 0.2))
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


def storage_class(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name},
        "provisioner": "block.csi.sandbox.local",
        "reclaimPolicy": "Retain",
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


def test_a_claim_is_bound_to_a_volume_that_outlives_it(own: Sandbox) -> None:
    kube, name = own.kube(), "kept"
    kube.apply(storage_class(name))
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
    until("ready", lambda: ready(own, name))
    claim = kube.get("v1", "PersistentVolumeClaim", name, "default") or {}
    volume = claim["spec"]["volumeName"]
    kube.delete("v1", "Pod", name, "default")
    kube.delete("v1", "PersistentVolumeClaim", name, "default")

    def released() -> bool:
        found = kube.get("v1", "PersistentVolume", volume) or {}
        return bool(found["status"]["phase"] == "Released")

    until("the volume is released and kept", released)


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


def test_down_leaves_nothing_running_and_purge_leaves_nothing_at_all() -> None:
    made = Sandbox(f"gone-{os.getpid()}")
    made.up(NodeSize(count=1))
    pids = made.pids()
    made.down()
    assert made.pids() == {}
    assert not any(start_time(pid) for pid in pids.values())
    assert made.up()["up"] is True, "down without purge keeps the data"
    made.down(purge=True)
    assert not made.directory.exists()
