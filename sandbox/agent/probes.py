"""Asks a pod's own readiness probe, quicker than a kubelet would: two cores run one sandbox, not a fleet."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

import httpx

from sandbox.agent.pod import Pod
from sandbox.engines.base import Engine

# The charts' periods are 5-30 s and their initial delays 5-10 s; here nothing is gained by waiting for either. Of a
# pod that is ready the probes are most of what an idle sandbox costs.
PERIOD_SECONDS = 0.5
READY_PERIOD_SECONDS = 2.0
TIMEOUT_SECONDS = 5.0
# One client: making one takes 20 ms of a core. Kubelets do not check certificates either.
HTTP = httpx.Client(verify=False)


def period(container: Mapping[str, Any], ready: bool) -> float:
    """Seconds between two probes of a container."""
    most = READY_PERIOD_SECONDS if ready else PERIOD_SECONDS
    return min(float(container.get("readinessProbe", {}).get("periodSeconds", 10)), most)


def threshold(container: Mapping[str, Any]) -> int:
    """Probes in a row that must fail before a ready container is unready; three at most, not the charts' six."""
    return min(int(container.get("readinessProbe", {}).get("failureThreshold", 3)), 3)


def ask(pod: Pod, container: Mapping[str, Any], engine: Engine) -> str:
    """Ask whether a container is ready.

    Returns:
        "" or what is wrong, as a kubelet's event would say it.
    """
    probe = container.get("readinessProbe")
    if probe is None:  # a kubelet calls it ready when it runs
        return ""
    timeout = min(float(probe.get("timeoutSeconds", 1)), TIMEOUT_SECONDS)
    if "httpGet" in probe:
        return _http(pod, container, probe["httpGet"], timeout)
    if "tcpSocket" in probe:
        return _tcp(pod.address, _port(container, probe["tcpSocket"]["port"]), timeout)
    return engine.probe(pod)


def _http(pod: Pod, container: Mapping[str, Any], action: Mapping[str, Any], timeout: float) -> str:
    port = _port(container, action["port"])
    scheme = action.get("scheme", "HTTP").lower()
    url = f"{scheme}://{pod.address}:{port}{action.get('path', '/')}"
    try:
        answer = HTTP.get(url, timeout=timeout)
    except httpx.HTTPError as exc:
        return f"Readiness probe failed: Get {url}: {exc or type(exc).__name__}"
    if 200 <= answer.status_code < 400:
        return ""
    return f"Readiness probe failed: HTTP probe failed with statuscode: {answer.status_code}"


def _tcp(address: str, port: int, timeout: float) -> str:
    try:
        with socket.create_connection((address, port), timeout):
            return ""
    except OSError as exc:
        return f"Readiness probe failed: dial tcp {address}:{port}: {exc}"


def _port(container: Mapping[str, Any], port: int | str) -> int:
    if isinstance(port, int):
        return port
    named = {p.get("name"): p["containerPort"] for p in container.get("ports", [])}
    return int(named.get(port) or port)
