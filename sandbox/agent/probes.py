"""Runs a pod's readiness probes, more often than a kubelet would."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

import httpx

from sandbox.agent.pod import Pod
from sandbox.engines.base import Engine

# The charts' periods are 5-30 s and their initial delays 5-10 s; waiting for them would only slow down the sandbox.
# Ready pods are probed less often, because probes are most of the cost of an idle sandbox.
PERIOD_SECONDS = 0.5
READY_PERIOD_SECONDS = 2.0
TIMEOUT_SECONDS = 5.0
# One client for all probes: creating one takes 20 ms. Kubelets do not check certificates either.
HTTP = httpx.Client(verify=False)


def period(container: Mapping[str, Any], ready: bool) -> float:
    """Seconds between two probes of a container."""
    most = READY_PERIOD_SECONDS if ready else PERIOD_SECONDS
    return min(float(container.get("readinessProbe", {}).get("periodSeconds", 10)), most)


def threshold(container: Mapping[str, Any]) -> int:
    """Number of failed probes in a row after which a ready container becomes unready; at most three."""
    return min(int(container.get("readinessProbe", {}).get("failureThreshold", 3)), 3)


def ask(pod: Pod, container: Mapping[str, Any], engine: Engine) -> str:
    """Probe a container.

    Returns:
        "" if it is ready; otherwise the problem in the words of a kubelet's event.
    """
    probe = container.get("readinessProbe")
    if probe is None:  # without a probe a running container is ready
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
