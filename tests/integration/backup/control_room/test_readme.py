"""What the README tells people to send is sent, as it stands there, and does what it says there."""

from __future__ import annotations

import json
import re
import subprocess

import pytest

from deployments.sandbox.control_room import PROJECT, ControlRoom

from ..conftest import Backups
from .control import Run, proven

pytestmark = pytest.mark.integration

BLOCKS = re.findall(r"^```sh\n(.*?)^```", (PROJECT / "README.md").read_text(), re.M | re.S)
PAUSED = "# once it is paused:\n"
ASKED = (
    'until [ "$(api /flow_runs/$RUN | jq -r .state.type)" = PAUSED ]; do sleep 1; done; sleep 1\n'
)


def bash(room: ControlRoom, script: str) -> str:
    """What a script says that has nothing but the environment of the room."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env=room.environ(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert room.login not in done.stdout + done.stderr
    return done.stdout


def test_the_calls_of_the_readme_rebuild_and_deploy(room: ControlRoom, backups: Backups) -> None:
    proven(room, backups, "nats")
    rebuild, deploy = (block for block in BLOCKS if "api /deployments" in block)
    assert rebuild.count(PAUSED) == 1
    said = bash(room, rebuild.replace(PAUSED, ASKED) + 'echo; echo "$RUN"')
    rebuilt = Run(room, said.split()[-1]).reaches("COMPLETED", seconds=300)
    assert "approved by Ada Lovelace (CHG-1815)" in rebuilt["message"]
    api = rebuild.partition("\n")[0]  # it is defined there, "as above" says the other one
    made = json.loads(bash(room, f"{api}\n{deploy.replace('production', 'sandbox')}"))
    assert "unchanged" in Run(room, made["id"]).reaches("COMPLETED")["message"]
    backups.live.await_state("ready")
