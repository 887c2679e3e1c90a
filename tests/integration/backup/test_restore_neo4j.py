"""Restores into the live Neo4j, which is stopped for them: users stay, and what was killed is brought to its end."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.losses import LOSSES

from .conftest import Restorer
from .control_room.moments import neo4j_whole, statefulset

pytestmark = pytest.mark.integration


@pytest.mark.soak  # it is stopped three times; the lost platform's test has it brought back too
def test_neo4j_comes_back_with_its_users_as_they_are(restorer: Restorer) -> None:
    good = restorer.take("neo4j")
    with restorer.backups.access() as access:
        LOSSES["neo4j"][1](access)
    (done,) = restorer.isa(good.id)["restores"]
    assert done["outcome"] == "restored", done


# Dies in the midst of a load, as by kill -9: its member is stopped then, and its database half overwritten.
KILLED = """
import os, signal, sys, time
from components.neo4j.editions import offline
real = offline.exec_stream
def half(*words, stdin=None, **more):
    def pieces():
        first = next(stdin)
        yield first[: len(first) // 2]
        time.sleep(8)  # until it has overwritten what was there
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*words, stdin=stdin and pieces(), **more)
offline.exec_stream = half
sys.argv = ["isa", "restore", sys.argv[1], "--local", "--yes"]
from cli.main import main
main()
"""


def test_a_neo4j_restore_that_is_killed_while_it_loads_is_done_again(restorer: Restorer) -> None:
    good = restorer.backups.manifest("neo4j")
    with restorer.backups.access() as access:
        LOSSES["neo4j"][1](access)  # something that the set does not have
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, good.id],
        env={**restorer.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        check=False,
        timeout=200,
    )
    assert killed.returncode == -signal.SIGKILL
    assert statefulset(restorer.backups)["spec"]["replicas"] == 0
    first = restorer.backups.manifest("neo4j").id
    assert first > good.id  # its safety backup
    (done,) = restorer.isa(good.id)["restores"]
    assert done["outcome"] == "restored", done
    assert first in (
        done["safety_backup"],
        *(word for text in done["kept"] for word in text.split()),
    )
    restorer.ready("neo4j")
    assert neo4j_whole(restorer.backups)
