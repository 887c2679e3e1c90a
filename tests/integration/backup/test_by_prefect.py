"""The nightly run as production does it: a deployment of the Prefect server, and `isa backup` through its API."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from deployments.sandbox.control_room import ControlRoom

from .conftest import ISA, Backups
from .test_sets import PLAINTEXT, _secrets

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def room(backups: Backups) -> Iterator[ControlRoom]:
    made = ControlRoom(backups.sandbox)
    made.up()
    yield made
    made.down(purge=True)
    backups.vault.kube.delete("v1", "Secret", "prefect-database", "isa-cloud-control")


def run(room: ControlRoom, *arguments: str, code: int = 0) -> Any:
    done = subprocess.run(
        [ISA, "backup", *arguments, "--json"],
        env=room.environ(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_a_run_makes_the_sets_and_tells_of_them(room: ControlRoom, backups: Backups) -> None:
    said = run(room, "redis", "platform")
    assert {b["component"]: b["outcome"] for b in said["backups"]} == {
        "redis": "complete",
        "platform": "complete",  # with Prefect's own database, the run's own records in it
    }
    manifest = backups.manifest("platform")
    assert manifest.topology["prefect_database"] == "PostgreSQL"
    found = httpx.post(
        f"{room.api}/artifacts/filter",
        json={"artifacts": {"flow_run_id": {"any_": [said["flow_run"]]}}},
    ).json()
    rows = json.loads(next(a["data"] for a in found if a["type"] == "table"))
    assert {row["name"]: row["outcome"] for row in rows} == {
        "redis": "complete",
        "platform": "complete",
    }
    assert all(row["bytes_read"] for row in rows)


def test_the_night_is_made_once_whoever_asks(room: ControlRoom, backups: Backups) -> None:
    first = run(room, "nats", "--slot", "2026-01-31")
    again = run(room, "nats", "--slot", "2026-01-31")
    assert first["flow_run"] == again["flow_run"]  # by the key of the run
    locally = backups.isa("backup", "nats", "--local", "--slot", "2026-01-31")
    assert [b["outcome"] for b in locally["backups"]] == ["exists"]  # and by the catalogue
    assert locally["backups"][0]["id"] == first["backups"][0]["id"]


def test_one_that_fails_stops_no_other_and_the_state_says_so(
    room: ControlRoom, backups: Backups
) -> None:
    backups.live.kill("emqx-0", "emqx-1", "emqx-2")
    try:
        said = run(room, "redis", "emqx", code=1)
    finally:
        backups.live.heal()
    assert {b["component"]: b["outcome"] for b in said["backups"]} == {
        "redis": "complete",
        "emqx": "failed",
    }
    assert said["state"] == "failed"
    assert "EMQX" in said["message"]
    backups.live.await_state("ready")


def test_prefect_knows_neither_data_nor_secrets(room: ControlRoom, backups: Backups) -> None:
    """Everything that Prefect wrote down, from its own database as the set `platform` has it."""
    run(room, "platform")
    database = backups.fetch(backups.manifest("platform"), "prefect.dump")
    assert b"backup-platform" in database
    for word in (*PLAINTEXT, *_secrets(backups)):
        assert word not in database
