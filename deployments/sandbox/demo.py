"""`make demo`: from nothing to nine green nodes and eight proven sets, by the Prefect API as production does it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from deployments.sandbox import drill as disaster
from deployments.sandbox import prerequisites
from deployments.sandbox.cluster import Sandbox
from deployments.sandbox.control_room import ControlRoom
from errors import ConfigurationError, IsaError

NAME = "default"
ISA = str(Path(sys.executable).with_name("isa"))
ACTIVATE = Path(sys.executable).with_name("activate")


def up() -> int:
    """Bring everything up and deploy; return the exit code of the last step that failed."""
    sandbox = Sandbox(NAME)
    room = ControlRoom(sandbox)
    with _step("What this machine needs"):
        prerequisites.check(install=True)
    with _step("Embedded Kubernetes"):
        sandbox.up()
    with _step("Prefect server on PostgreSQL, worker, deployments"):
        room.up()
    environ = room.environ()
    with _step("Deploy through the Prefect API"):
        deployed = subprocess.run([ISA, "deploy"], env=environ, check=False).returncode
    if deployed == 0:
        with _step("Sample data"):
            subprocess.run([ISA, "sandbox", "seed", "--name", NAME], env=environ, check=True)
        with _step("Backup of everything, through the Prefect API"):
            deployed = subprocess.run([ISA, "backup"], env=environ, check=False).returncode
        with _step("Proof of every set, through the Prefect API"):
            proven = subprocess.run([ISA, "verify"], env=environ, check=False).returncode
            deployed = deployed or proven
        with _step("Backup sets, and what is known of them"):
            subprocess.run([ISA, "backups"], env=environ, check=False)
            subprocess.run([ISA, "proofs"], env=environ, check=False)
    report = sandbox.directory / "report.html"
    with _step("Report"):
        subprocess.run([ISA, "report", "--output", report], env=environ, check=False)
    with _step("Status"):
        subprocess.run([ISA, "status"], env=environ, check=False)
    print(
        f"\nPrefect UI   {room.ui}   (its password: {room.login_file})\n"
        f'this shell   source {ACTIVATE}; eval "$(isa sandbox env)"\n'
        f"then         isa plan, isa deploy, isa status, kubectl get pods -n isa-cloud-production\n"
        f"the end      make down"
    )
    return deployed


def drill() -> int:
    """Lose the platform of the demo and bring it back; return 1 if something is not what it was."""
    sandbox, room = Sandbox(NAME), ControlRoom(Sandbox(NAME))
    with _step("Disaster drill: namespace, volumes and Secrets are lost"):
        done = disaster.run(sandbox, ISA, room.environ())
    width = max(map(len, done.stages))
    for stage, seconds in done.stages.items():
        print(f"  {stage:<{width}}  {seconds:6.1f} s")
    print(f"  {'recovery time':<{width}}  {done.seconds:6.1f} s")
    for one in done.restores:
        print(
            f"  {one['component']:<12} {one['outcome']:<10} {one['seconds']:6.1f} s  {one['reason']}"
        )
    return 0 if all(one["outcome"] == "restored" for one in done.restores) else 1


def down() -> int:
    """End everything and forget it; the build cache stays."""
    sandbox = Sandbox(NAME)
    with _step("Prefect down"):
        ControlRoom(sandbox).down(purge=True)
    with _step("Embedded Kubernetes down"):
        sandbox.down(purge=True)
    return 0


@contextmanager
def _step(title: str) -> Iterator[None]:
    print(f"\n== {title}", file=sys.stderr, flush=True)
    started = time.monotonic()
    yield
    print(f"== {title}: {time.monotonic() - started:.1f} s", file=sys.stderr, flush=True)


def main() -> None:
    """Run what the argument names."""
    actions: dict[str, Callable[[], int]] = {"up": up, "down": down, "drill": drill}
    try:
        sys.exit(actions[(sys.argv[1:] or ["up"])[0]]())
    except ConfigurationError as exc:
        print(exc, file=sys.stderr)
        sys.exit(2)
    except IsaError as exc:
        print(exc, file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
