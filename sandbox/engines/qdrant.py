"""Qdrant: three peers of the double, with the keys of the Secret."""

from __future__ import annotations

import sys

from sandbox.agent.pod import Pod
from sandbox.engines.base import Engine, Launch

CONTAINER = "qdrant"


def prepare(pod: Pod) -> Launch:
    """Start a peer on the claim's directory."""
    container = next(c for c in pod.containers if c["name"] == CONTAINER)
    peers = ",".join(f"{name}={address}" for name, address in pod.peers.items())
    module = "sandbox.doubles.qdrant"
    data = pod.volume("qdrant-storage")
    argv = (sys.executable, "-m", module, "--name", pod.name, "--data", str(data), "--peers", peers)
    return Launch(argv, pod.environment(container))


ENGINE = Engine(CONTAINER, real=False, prepare=prepare)
