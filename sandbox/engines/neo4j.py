"""Neo4j Community: one member, since only Enterprise clusters."""

from __future__ import annotations

from sandbox.agent.pod import Pod
from sandbox.engines.base import Engine, Launch
from sandbox.machine import neo4j_programs as programs

CONTAINER = "neo4j"


def prepare(pod: Pod) -> Launch:
    """Write the configuration, and set the Secret's password if the data has none yet."""
    data = pod.volume("data") / "data"
    data.mkdir(exist_ok=True)
    programs.write_config(pod.home, data, pod.address)
    if not (data / "dbms").exists():
        _, _, password = pod.file("neo4j-auth", "NEO4J_AUTH").partition("/")
        programs.set_initial_password(pod.home, password)
    return Launch(programs.server_argv(pod.home))


ENGINE = Engine(CONTAINER, real=True, prepare=prepare, grace=20)


def prepare_admin(pod: Pod) -> Launch:
    """A pod on a stopped member's volume, in which `neo4j-admin` is run."""
    programs.write_config(pod.home, pod.volume("data") / "data", pod.address)
    programs.write_admin(pod.home / "bin", pod.home)
    return Launch(("sleep", "infinity"))


ADMIN = Engine("neo4j-admin", real=True, prepare=prepare_admin, grace=2)
