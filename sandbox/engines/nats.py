"""NATS with JetStream: three nats-server processes with the chart's own configuration, names replaced by addresses."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from sandbox.agent.pod import NotStartable, Pod
from sandbox.engines.base import Engine, Launch
from sandbox.machine.paths import write_atomic

CONTAINER = "nats"


def prepare(pod: Pod) -> Launch:
    """Write the configuration; passwords stay variables and come by the environment."""
    container = next(c for c in pod.containers if c["name"] == CONTAINER)
    at, store = pod.address, pod.volume("nats-js")
    text = pod.resolve(pod.files("config")["nats.conf"])
    for pattern, value in (
        (r'"http_port": (\d+)', rf'"http": "{at}:\1", "host": "{at}"'),
        (r'"cluster": \{', f'"cluster": {{"host": "{at}",'),
        (r'"store_dir": "[^"]*"', f'"store_dir": "{store}"'),
        (r'"pid_file": "[^"]*"', f'"pid_file": "{pod.home}/nats.pid"'),
    ):
        text, count = re.subn(pattern, value, text)
        if count != 1:
            raise NotStartable("CreateContainerConfigError", f"nats.conf has no single {pattern}")
    file = pod.home / "nats.conf"
    write_atomic(file, text)
    program = Path(sys.executable).with_name("nats-server")
    return Launch((str(program), "--config", str(file)), pod.environment(container))


ENGINE = Engine(CONTAINER, real=True, prepare=prepare)
