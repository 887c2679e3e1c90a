"""`make demo`: from nothing to nine green nodes and eight proven sets, by the Prefect API as production does it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from cli.failures import describe
from errors import ConfigurationError, IsaError
from sandbox import drill as disaster
from sandbox import prerequisites
from sandbox.cluster import Sandbox
from sandbox.control_room import ControlRoom
from sandbox.walk import PATIENT, Walk, say, step
from tasks.artifacts import read_report, report_key

NAME = "default"
ISA = str(Path(sys.executable).with_name("isa"))
ACTIVATE = Path(sys.executable).with_name("activate")


def up() -> int:
    """Bring everything up, deploy, back up and prove; return 1 if a step failed, and say at the end which."""
    for name, value in PATIENT.items():
        os.environ.setdefault(name, value)
    sandbox = Sandbox(NAME)
    room = ControlRoom(sandbox)
    with step("What this machine needs"):
        prerequisites.check(install=True)
    with step("Embedded Kubernetes"):
        sandbox.up()
    with step("Prefect server on PostgreSQL, worker, deployments"):
        room.up()
    began = datetime.now(UTC)
    walk = Walk(_isa(room.environ()), lambda command: last_report(room.http, command, began))
    if walk.deploy() and walk.seed(NAME):
        walk.backup()
        walk.verify()
        walk.show("Backup sets, and what is known of them", ("backups",), ("proofs",))
    report = str(sandbox.directory / "report.html")
    walk.show("Report", ("report", "--output", report))
    walk.show("Status", ("status",))
    print(
        f"\nPrefect UI   {room.ui}   (its password: {room.login_file})\n"
        f'this shell   source {ACTIVATE}; eval "$(isa sandbox env)"\n'
        f"then         isa plan, isa deploy, isa status, kubectl get pods -n isa-cloud-production\n"
        f"the end      make down",
        flush=True,
    )
    if walk.failures:
        say("\n" + "\n".join(walk.words()))
        say("All of it once more: make demo (what is in order is left alone)")
    return 1 if walk.failures else 0


def last_report(http: httpx.Client, command: str, since: datetime) -> dict[str, Any]:
    """What the last run of a command ended with; {} if the server has none since then."""
    try:
        answer = http.get(f"/artifacts/{report_key(f'{command}-sandbox')}/latest")
        artifact = answer.raise_for_status().json()
        if datetime.fromisoformat(artifact["updated"]) < since:
            return {}
        return read_report(str(artifact["data"]))
    except (httpx.HTTPError, ValueError, KeyError):
        return {}


def _isa(environ: Mapping[str, str]) -> Callable[[Sequence[str]], int]:
    def run(arguments: Sequence[str]) -> int:
        return subprocess.run([ISA, *arguments], env=environ, check=False).returncode

    return run


def drill() -> int:
    """Lose the platform of the demo and bring it back; return 1 if something is not what it was."""
    sandbox, room = Sandbox(NAME), ControlRoom(Sandbox(NAME))
    with step("Disaster drill: namespace, volumes and Secrets are lost"):
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
    with step("Prefect down"):
        ControlRoom(sandbox).down(purge=True)
    with step("Embedded Kubernetes down"):
        sandbox.down(purge=True)
    return 0


def main() -> None:
    """Run what the argument names."""
    actions: dict[str, Callable[[], int]] = {"up": up, "down": down, "drill": drill}
    try:
        sys.exit(actions[(sys.argv[1:] or ["up"])[0]]())
    except ConfigurationError as exc:
        print(exc, file=sys.stderr)
        sys.exit(2)
    except IsaError as exc:
        say(
            f"FAILED: {exc}\nOnce more: the same command goes on where it stopped. To begin with nothing: make down"
        )
        sys.exit(1)
    except subprocess.CalledProcessError as exc:
        say(
            f"FAILED: {' '.join(map(str, exc.cmd))} ended with {exc.returncode}: what it printed is above"
        )
        sys.exit(1)
    except Exception as exc:
        say(f"FAILED: {describe(exc)}")
        sys.exit(1)


if __name__ == "__main__":
    main()
