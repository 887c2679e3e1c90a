"""The calls of docs/operations/api.md are sent as they stand there, and do what the page says."""

from __future__ import annotations

import json
import subprocess

import pytest

from sandbox.control_room import ControlRoom
from tests.documents import shell_blocks

from ..conftest import Backups
from .control import Run, proven, rebuild

pytestmark = pytest.mark.integration

BLOCKS = [block.script for block in shell_blocks("docs/operations/api.md")]
PAUSED = "# once it is paused; a refused answer is HTTP 200 too, with another status and a reason\n"
ASKED = (
    'until [ "$(api /flow_runs/$RUN | jq -r .state.type)" = PAUSED ]; do sleep 1; done; sleep 1\n'
)


def run(room: ControlRoom, script: str) -> subprocess.CompletedProcess[str]:
    """A script that has nothing but the environment of the room."""
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env=room.environ(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def bash(room: ControlRoom, script: str) -> str:
    """What a script prints that ends well."""
    done = run(room, script)
    assert done.returncode == 0, done.stderr + done.stdout
    assert room.login not in done.stdout + done.stderr
    return done.stdout


def test_the_calls_of_the_page_rebuild_and_deploy(room: ControlRoom, backups: Backups) -> None:
    proven(room, backups, "nats")
    rebuild, deploy = BLOCKS
    assert rebuild.count(PAUSED) == 1
    said = bash(room, rebuild.replace(PAUSED, ASKED) + 'echo; echo "$RUN"')
    rebuilt = Run(room, said.split()[-1]).reaches("COMPLETED", seconds=300)
    assert "approved by Ottilie Engineer (CHG-1815)" in rebuilt["message"]
    api = rebuild.partition("\n")[0]  # it is defined there, "as above" says the other one
    made = json.loads(bash(room, f"{api}\n{deploy.replace('production', 'sandbox')}"))
    assert "unchanged" in Run(room, made["id"]).reaches("COMPLETED")["message"]
    backups.live.await_state("ready")


def test_the_call_fails_where_the_answer_is_refused(room: ControlRoom, backups: Backups) -> None:
    proven(room, backups, "nats")
    (block,) = (block for block in BLOCKS if "/resume" in block)
    api, answer = block.partition("\n")[0], block.partition(PAUSED)[2]
    made = rebuild(room)
    made.asks()
    unclear = run(room, f"RUN={made.id}\n{api}\n{answer.replace('approve', 'perhaps')}")
    assert unclear.returncode != 0
    assert "perhaps" in unclear.stderr
    assert made.state["type"] == "PAUSED"
    nobody = run(room, f"RUN=9d0f0c3e-0000-4000-8000-000000000000\n{api}\n{answer}")
    assert nobody.returncode != 0
    assert bash(room, f"RUN={made.id}\n{api}\n{answer.replace('approve', 'refuse')}") == "ACCEPT\n"
    made.reaches("CANCELLED")
    late = run(room, f"RUN={made.id}\n{api}\n{answer}")
    assert late.returncode != 0
    assert "not paused" in late.stderr
