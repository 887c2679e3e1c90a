"""Starts a runner for each pod that the scheduler has bound, and removes the data of deleted volumes."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator

import urllib3
from kubernetes import client, config
from kubernetes import watch as kubernetes_watch

from cluster.kube import Manifest
from errors import IsaError
from sandbox.agent.pod import Host
from sandbox.agent.runner import Runner

# A watch does not report pods that were deleted before it began, so pods are listed before each watch.
WATCH_SECONDS = 60
RETRY_SECONDS = 0.5
VOLUMES_SECONDS = 2.0
POD = {"apiVersion": "v1", "kind": "Pod"}  # the items of a list lack these fields


def watch(host: Host) -> None:
    """Run pods forever."""
    threading.Thread(target=_keep_volumes, args=(host,), name="volumes", daemon=True).start()
    runners: dict[str, Runner] = {}
    while True:
        try:
            _look(host, runners)
            for kind, pod in _events(host):
                if kind == "DELETED":
                    _vanish(pod["metadata"]["uid"], runners)
                else:
                    _take(host, pod, runners)
        except (IsaError, client.ApiException, urllib3.exceptions.HTTPError, ValueError) as exc:
            print(exc, flush=True)  # engines keep running without the API server
            time.sleep(RETRY_SECONDS)


def _events(host: Host) -> Iterator[tuple[str, Manifest]]:
    api = config.new_client_from_config(str(host.kubeconfig), host.context)
    with api:
        stream = kubernetes_watch.Watch().stream(
            client.CoreV1Api(api).list_pod_for_all_namespaces, timeout_seconds=WATCH_SECONDS
        )
        for event in stream:
            yield event["type"], event["raw_object"]


def _look(host: Host, runners: dict[str, Runner]) -> None:
    pods = {pod["metadata"]["uid"]: POD | pod for pod in host.kube.list("v1", "Pod")}
    for pod in pods.values():
        _take(host, pod, runners)
    for uid in [uid for uid in runners if uid not in pods]:
        _vanish(uid, runners)


def _take(host: Host, pod: Manifest, runners: dict[str, Runner]) -> None:
    uid = pod["metadata"]["uid"]
    if uid in runners:
        runners[uid].update(pod)
    elif pod["spec"].get("nodeName"):
        runners[uid] = Runner(pod, host)
        runners[uid].start()


def _vanish(uid: str, runners: dict[str, Runner]) -> None:
    if uid in runners:
        runners.pop(uid).vanish()


def _keep_volumes(host: Host) -> None:
    while True:
        try:
            _remove_volumes(host)
        except IsaError as exc:
            print(exc, flush=True)
        time.sleep(VOLUMES_SECONDS)


def _remove_volumes(host: Host) -> None:
    root = host.directory / "volumes"
    # directories are listed first, so that a directory of a new volume is never removed
    directories = list(root.iterdir()) if root.exists() else []
    names = {volume["metadata"]["name"] for volume in host.kube.list("v1", "PersistentVolume")}
    for directory in directories:
        if directory.name not in names:
            shutil.rmtree(directory, ignore_errors=True)
