"""The nightly run as production does it: a deployment of the Prefect server, and `isa backup` through its API."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from deployments.sandbox.control_room import ControlRoom

from .conftest import ISA, Backups, until
from .test_sets import PLAINTEXT, _secrets

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def room(backups: Backups) -> Iterator[ControlRoom]:
    made = ControlRoom(backups.sandbox)
    made.up()
    yield made
    made.down(purge=True)
    backups.vault.kube.delete("v1", "Secret", "prefect-database", "isa-cloud-control")


def run(room: ControlRoom, *arguments: str, code: int = 0, command: str = "backup") -> Any:
    done = subprocess.run(
        [ISA, command, *arguments, "--json"],
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


def test_a_proof_is_told_as_a_table_and_by_an_event(room: ControlRoom, backups: Backups) -> None:
    run(room, "redis")
    said = run(room, "redis", command="verify")
    (proof,) = said["proofs"]
    assert (proof["verdict"], proof["level"]) == ("pass", "L4"), said
    found = httpx.post(
        f"{room.api}/artifacts/filter",
        json={"artifacts": {"flow_run_id": {"any_": [said["flow_run"]]}}},
    ).json()
    assert any("restore proven at L4" in str(a["data"]) for a in found if a["type"] == "markdown")

    def told() -> bool:
        wanted = {"filter": {"event": {"name": ["isa-cloud.proof.fresh"]}}}
        events = httpx.post(f"{room.api}/events/filter", json=wanted).json()["events"]
        return any("redis" in e["resource"]["prefect.resource.id"] for e in events)

    until(told, "an event says that redis is fresh")


def test_the_end_of_a_scheduled_backup_starts_the_proof(
    room: ControlRoom, backups: Backups
) -> None:
    run(room, "nats")  # a set without a verdict
    name = "backup-platform/backup-platform"
    found = httpx.get(f"{room.api}/deployments/name/{name}").json()
    body = {
        "parameters": {"environment": "sandbox", "only": ["redis"], "slot": ""},
        "tags": ["auto-scheduled"],  # what Prefect's scheduler gives its runs
        "state": {"type": "SCHEDULED"},
    }
    httpx.post(
        f"{room.api}/deployments/{found['id']}/create_flow_run", json=body
    ).raise_for_status()
    newest = backups.manifest("nats").id

    def proven() -> bool:
        return newest in backups.vault.catalogue(["nats"]).proven

    until(proven, "the proof of the nats set has passed", 180)


def test_a_restore_wants_its_confirmation_and_shows_its_plan(
    room: ControlRoom, backups: Backups
) -> None:
    good = backups.manifest("nats")
    name = "restore-component/restore-component"
    found = httpx.get(f"{room.api}/deployments/name/{name}").json()
    body = {"parameters": {"environment": "sandbox", "backup": good.id, "confirm": "yes"}}
    made = httpx.post(f"{room.api}/deployments/{found['id']}/create_flow_run", json=body).json()

    def state() -> dict[str, Any]:
        answer: dict[str, Any] = httpx.get(f"{room.api}/flow_runs/{made['id']}").json()["state"]
        return answer

    until(lambda: state()["type"] in ("FAILED", "COMPLETED"), "the run has ended", 120)
    assert "not confirmed" in state()["message"]
    said = run(room, good.id, "--into", "live", "--yes", command="restore")
    assert [one["outcome"] for one in said["restores"]] == ["restored"], said
    backups.live.await_state("ready")


def test_prefect_knows_neither_data_nor_secrets(room: ControlRoom, backups: Backups) -> None:
    """Everything that Prefect wrote down, from its own database as the set `platform` has it."""
    run(room, "platform")
    database = backups.fetch(backups.manifest("platform"), "prefect.dump")
    assert b"backup-platform" in database
    for word in (*PLAINTEXT, *_secrets(backups)):
        assert word not in database
