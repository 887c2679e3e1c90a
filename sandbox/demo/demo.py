"""`make demo`: nine deployed nodes and eight verified backups, through the Prefect API as in production."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from cli.printing.failures import describe
from errors import ConfigurationError, IsaError
from sandbox.cluster import Sandbox
from sandbox.control_room import ControlRoom
from sandbox.demo import drill as disaster
from sandbox.demo.walk import PATIENT, Walk, say, step
from sandbox.machine import prerequisites
from tasks.pages.artifacts import read_report, report_key

NAME = "default"
ISA = str(Path(sys.executable).with_name("isa"))
ACTIVATE = Path(sys.executable).with_name("activate")


def up() -> int:
    """Start everything, deploy, back up and verify. Returns 1 if a step failed, and lists the failed steps."""
    for name, value in PATIENT.items():
        os.environ.setdefault(name, value)
    sandbox = Sandbox(NAME)
    room = ControlRoom(sandbox)
    with step("Check this machine"):
        prerequisites.check(install=True)
    with step("Start the embedded Kubernetes"):
        sandbox.up()
    with step("Start the Prefect server, a worker, and the deployments"):
        room.up()
    began = datetime.now(UTC)
    walk = Walk(_isa(room.environ()), lambda command: last_report(room.http, command, began))
    if walk.deploy() and walk.seed(NAME):
        walk.backup()
        walk.verify()
        walk.show("Backups and their verifications", ("backups",), ("proofs",))
    report = str(sandbox.directory / "report.html")
    walk.show("Report", ("report", "--output", report))
    walk.show("Status", ("status",))
    print(
        f"\nPrefect UI     {room.ui}\n"
        f"its password   in {room.login_file}\n"
        f'in this shell  source {ACTIVATE}; eval "$(isa sandbox env)"\n'
        f"then           isa status, isa plan, isa backups, kubectl get pods -n isa-cloud-production\n"
        f"to stop        make down",
        flush=True,
    )
    if walk.failures:
        say("\n" + "\n".join(walk.summary()))
        say("To repeat the failed steps: make demo (completed steps are skipped)")
    return 1 if walk.failures else 0


def last_report(http: httpx.Client, command: str, since: datetime) -> dict[str, Any]:
    """The report of a command's last run; {} if the server has none since a time."""
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
    """Delete the demo's platform and recover it. Returns 1 if something was not restored."""
    sandbox, room = Sandbox(NAME), ControlRoom(Sandbox(NAME))
    with step("Disaster drill: delete the namespace, all volumes and Secrets, and recover them"):
        result = disaster.run(sandbox, ISA, room.environ())
    width = max(map(len, result.stages))
    for stage, seconds in result.stages.items():
        print(f"  {stage:<{width}}  {seconds:6.1f} s")
    print(f"  {'recovery time':<{width}}  {result.seconds:6.1f} s")
    for row in result.restores:
        print(
            f"  {row['component']:<12} {row['outcome']:<10} {row['seconds']:6.1f} s  {row['reason']}"
        )
    return 0 if all(row["outcome"] == "restored" for row in result.restores) else 1


def down() -> int:
    """Stop everything and delete its data. The built programs stay."""
    sandbox = Sandbox(NAME)
    with step("Stop Prefect"):
        ControlRoom(sandbox).down(purge=True)
    with step("Stop the embedded Kubernetes"):
        sandbox.down(purge=True)
    return 0


def main() -> None:
    """Run the action that the argument names."""
    actions: dict[str, Callable[[], int]] = {"up": up, "down": down, "drill": drill}
    try:
        sys.exit(actions[(sys.argv[1:] or ["up"])[0]]())
    except ConfigurationError as exc:
        print(exc, file=sys.stderr)
        sys.exit(2)
    except IsaError as exc:
        say(
            f"FAILED: {exc}\nRun the same command again to continue. To start from scratch, run make down first."
        )
        sys.exit(1)
    except subprocess.CalledProcessError as exc:
        say(
            f"FAILED: {' '.join(map(str, exc.cmd))} exited with {exc.returncode}: see its output above"
        )
        sys.exit(1)
    except Exception as exc:
        say(f"FAILED: {describe(exc)}")
        sys.exit(1)
