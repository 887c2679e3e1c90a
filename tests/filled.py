"""A sandbox with real engines, deployed and filled, for the bench and the soak."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from config.loading import load
from operations.environment.environment import Environment
from sandbox.cluster import Sandbox
from sandbox.site import keys
from tests.bench.deploy import ISA


@dataclass(frozen=True)
class Filled:
    """The platform with sample data.

    Attributes:
        sandbox: below it.
        environment: as the product opens it.
        identity: age private key of the verify pool.
    """

    sandbox: Sandbox
    environment: Environment
    identity: str


@contextmanager
def filled(name: str) -> Iterator[Filled]:
    """Bring a platform up, and forget it afterwards."""
    sandbox = Sandbox(f"{name}-{os.getpid()}")
    try:
        sandbox.up(engines=True)
        environ = sandbox.environ()
        os.environ["PATH"] = environ["PATH"]
        for command in (("deploy", "--local"), ("sandbox", "seed", "--name", sandbox.name)):
            subprocess.run([ISA, *command], env=environ, check=True, capture_output=True)
        identity = keys.identity_file(sandbox.directory, "verify").read_text().splitlines()[-1]
        environment = Environment(load("sandbox", environ=sandbox.settings_environ())).open_store()
        yield Filled(sandbox, environment, identity)
    finally:
        sandbox.down(purge=True)
