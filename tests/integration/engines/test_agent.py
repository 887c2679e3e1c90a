"""What the sandbox's kubelet owes its pods: restarts that show, adoption, order, data that stay and data that go."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

import redis

from cluster.credentials import read_secret
from sandbox.machine import processes

from .live import Live

POD = "redis-cluster-5"


def eventually(holds: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := holds()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.2)
    return value


def restarts(live: Live, name: str) -> int:
    return sum(int(c["restartCount"]) for c in live.pod(name)["status"]["containerStatuses"])


def kubectl(live: Live, *words: str) -> str:
    argv = [str(live.sandbox.binary("kubectl")), "-n", live.namespace, *words]
    return subprocess.run(
        argv, env=live.sandbox.environ(), check=True, capture_output=True, text=True, timeout=90
    ).stdout


def is_ready(live: Live, name: str) -> bool:
    conditions = live.pod(name)["status"].get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def keys(live: Live, name: str) -> int:
    secret = read_secret(live.environment.kube, live.namespace, "redis-auth") or {}
    with redis.Redis(live.address(name), password=secret["redis-password"]) as client:
        return int(client.dbsize())


def test_a_process_that_dies_is_restarted_and_the_restart_shows(live: Live) -> None:
    live.ask("redis")
    before = restarts(live, POD)
    for pid in live.pids(POD):
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: restarts(live, POD) == before + 1)
    eventually(lambda: is_ready(live, POD))
    shown = kubectl(live, "get", "pod", POD, "--no-headers")
    assert f" {before + 1} " in shown, shown


def test_an_agent_that_is_killed_leaves_the_engines_running_and_the_next_adopts_them(
    live: Live,
) -> None:
    before, pids = restarts(live, POD), live.pids(POD)
    live.sandbox.stop_agent(signal.SIGKILL)
    assert live.pids(POD) == pids
    live.sandbox.start_agent()
    time.sleep(3)
    assert live.pids(POD) == pids
    assert restarts(live, POD) == before


def test_a_deleted_pod_comes_back_with_its_data_and_address(live: Live) -> None:
    live.ask("redis")
    kubectl(live, "wait", "--for=condition=Ready", f"pod/{POD}", "--timeout=60s")
    old, address, pids = live.pod(POD)["metadata"]["uid"], live.address(POD), live.pids(POD)
    volume = _volume(live, f"redis-data-{POD}")
    kubectl(live, "delete", "pod", POD)
    eventually(lambda: _exists(live, POD) and live.pod(POD)["metadata"]["uid"] != old)
    eventually(lambda: is_ready(live, POD))
    assert not any(processes.start_time(pid) for pid in pids)
    assert live.address(POD) == address
    assert _volume(live, f"redis-data-{POD}") == volume
    assert (live.sandbox.engines / "volumes" / volume / "nodes.conf").exists()


def test_what_an_engine_prints_is_read_by_kubectl_logs(live: Live) -> None:
    assert "Valkey" in kubectl(live, "logs", POD, "-c", "redis-cluster")


def test_a_drained_node_s_member_moves_with_its_data(live: Live) -> None:
    live.ask("nats")
    node = live.pod("nats-2")["spec"]["nodeName"]
    kubectl(live, "cordon", node)
    try:
        kubectl(live, "delete", "pod", "nats-2")
        eventually(lambda: _exists(live, "nats-2") and is_ready(live, "nats-2"))
        assert live.pod("nats-2")["spec"]["nodeName"] != node
    finally:
        kubectl(live, "uncordon", node)


def test_a_volume_that_is_deleted_takes_its_data_along(live: Live) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "scratch", "namespace": live.namespace},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "infotrend-block",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    kube = live.environment.kube
    kube.create(claim)
    kube.create(_pod_with(live.namespace, "scratch"))
    volume = eventually(lambda: _volume(live, "scratch"))
    directory = live.sandbox.engines / "volumes" / volume
    eventually(directory.exists)
    kube.delete("v1", "Pod", "scratch", live.namespace)
    kube.delete("v1", "PersistentVolumeClaim", "scratch", live.namespace)
    eventually(lambda: _released(live, volume))
    assert directory.exists(), "the class retains volumes: the data wait for a person"
    kube.delete("v1", "PersistentVolume", volume)
    eventually(lambda: not directory.exists())


def test_a_pod_that_refers_to_a_missing_secret_says_so_instead_of_running(live: Live) -> None:
    pod = _pod_with(live.namespace, None)
    pod["spec"]["containers"][0]["env"] = [
        {"name": "X", "valueFrom": {"secretKeyRef": {"name": "nowhere", "key": "x"}}}
    ]
    live.environment.kube.create(pod)
    try:
        eventually(lambda: "CreateContainerConfigError" in kubectl(live, "get", "pod", "scratch"))
    finally:
        live.environment.kube.delete("v1", "Pod", "scratch", live.namespace)


def _pod_with(namespace: str, claim: str | None) -> dict[str, Any]:
    small = {"cpu": "10m", "memory": "16Mi"}
    pod: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "scratch", "namespace": namespace},
        "spec": {
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    "name": "idle",
                    "image": "idle:1",
                    "resources": {"requests": small, "limits": small},
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                    },
                }
            ],
        },
    }
    if claim:
        pod["spec"]["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]
    return pod


def _exists(live: Live, name: str) -> bool:
    return live.environment.kube.get("v1", "Pod", name, live.namespace) is not None


def _volume(live: Live, claim: str) -> str:
    found = live.environment.kube.get("v1", "PersistentVolumeClaim", claim, live.namespace) or {}
    bound = found.get("status", {}).get("phase") == "Bound"
    return str(found["spec"]["volumeName"]) if bound else ""


def _released(live: Live, volume: str) -> bool:
    found = live.environment.kube.get("v1", "PersistentVolume", volume) or {}
    return bool(found.get("status", {}).get("phase") == "Released")
