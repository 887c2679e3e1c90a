"""EMQX: three nodes of the double, each with a real MQTT broker."""

from __future__ import annotations

import sys

from sandbox.agent.pod import Pod
from sandbox.engines.base import Engine, Launch

CONTAINER = "emqx"


def prepare(pod: Pod) -> Launch:
    """Start a node on the claim's directory."""
    container = next(c for c in pod.containers if c["name"] == CONTAINER)
    environ = pod.environment(container)
    peers = ",".join(f"{name}={address}" for name, address in pod.peers.items())
    host = environ["EMQX_HOST"].partition(".")[2]
    data = str(pod.volume("emqx-data"))
    module = "sandbox.doubles.emqx"
    words = ("--name", pod.name, "--data", data, "--host", host, "--peers", peers)
    return Launch((sys.executable, "-m", module, *words), environ)


ENGINE = Engine(CONTAINER, real=False, prepare=prepare)
