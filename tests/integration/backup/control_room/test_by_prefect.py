"""The nightly run as production does it: a deployment of the Prefect server, and `isa backup` through its API."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from components import SETS
from config.loading import ROOT
from redaction import MASK
from sandbox.control_room import ControlRoom
from tests.contract import checked

from ...accounts import identity_of, log_in
from ..conftest import ISA, Backups, until
from ..test_sets import PLAINTEXT, _secrets
from .control import CANCEL_SECONDS, find_deployment, rebuild, run, start

pytestmark = pytest.mark.integration


def test_a_run_makes_the_sets_and_tells_of_them(room: ControlRoom, backups: Backups) -> None:
    said = run(room, "redis", "platform")
    assert {b["component"]: b["outcome"] for b in said["backups"]} == {
        "redis": "complete",
        "platform": "complete",  # with Prefect's own database, the run's own records in it
    }
    manifest = backups.manifest("platform")
    assert manifest.topology["prefect_database"] == "PostgreSQL"
    found = room.http.post(
        "/artifacts/filter",
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


@pytest.fixture(scope="module")
def proven(room: ControlRoom) -> Any:
    """What `isa verify` says of a set of redis that was just made."""
    run(room, "redis")
    return run(room, "redis", command="verify")


def artifacts(room: ControlRoom, flow_run: str) -> dict[str, str]:
    """What a run left in Markdown, by key."""
    wanted = {"artifacts": {"flow_run_id": {"any_": [flow_run]}}}
    found = room.http.post("/artifacts/filter", json=wanted).json()
    return {one["key"]: str(one["data"]) for one in found if one["type"] == "markdown"}


def test_a_proof_is_told_as_a_table_and_by_an_event(room: ControlRoom, proven: Any) -> None:
    (proof,) = proven["proofs"]
    assert (proof["verdict"], proof["level"]) == ("pass", "L4"), proven
    found = artifacts(room, proven["flow_run"])
    assert "restore verified (L4)" in found["proofs-sandbox"]
    assert "**redis**: restore verified on" in found["history-sandbox"]
    assert found["history-sandbox"].count("](data:image/svg+xml;base64,") == 1 + len(SETS)

    def told() -> bool:
        wanted = {"filter": {"event": {"name": ["isa-cloud.proof.fresh"]}}}
        events = room.http.post("/events/filter", json=wanted).json()["events"]
        return any("redis" in e["resource"]["prefect.resource.id"] for e in events)

    until(told, "an event says that redis is fresh")


def test_the_report_has_everything_in_one_page_and_no_secret(
    room: ControlRoom, backups: Backups, proven: Any
) -> None:
    deploy = run(room, "--only", "namespace", command="deploy")
    assert artifacts(room, deploy["flow_run"])["timeline-sandbox"].count("](data:image/svg") == 2
    file = ROOT / "build" / "report.html"  # to be looked at afterwards
    file.parent.mkdir(exist_ok=True)
    said = run(room, "--output", str(file), command="report")
    page = file.read_text()
    assert said["unasked"] == []
    components = {one["component"]: one for one in said["components"]}
    assert list(components) == list(SETS)
    assert all(f"<b>{name}</b>" in page for name in SETS)
    redis = components["redis"]
    assert (redis["state"], redis["proofs"][-1]["level"]) == ("fresh", "L4")
    assert redis["headline"].startswith("restore verified on ") and redis["headline"] in page
    assert all(one["bytes_stored"] and one["seconds"] for one in redis["backups"])
    newest = {node["name"]: node for node in said["deploys"][0]["nodes"]}
    assert newest["namespace"]["began"] >= newest["storage-classes"]["began"]
    assert newest["redis"]["outcome"] == "not-attempted"
    assert said["status"]["ready"] and {check["name"] for check in said["checks"]} >= {"releases"}
    for word in (*PLAINTEXT, *_secrets(backups)):
        assert word not in page.encode() and word not in json.dumps(said).encode()
    assert not re.findall(r'(?:src|href)="(?!#)|@import|url\((?!#)|<script', page)


def test_the_end_of_a_scheduled_backup_starts_the_proof(
    room: ControlRoom, backups: Backups
) -> None:
    run(room, "nats")  # a set without a verdict
    found = find_deployment(room, "backup-nightly")
    body = {
        "parameters": {"environment": "sandbox", "only": ["redis"], "slot": ""},
        "tags": ["auto-scheduled"],  # what Prefect's scheduler gives its runs
        "state": {"type": "SCHEDULED"},
    }
    room.http.post(f"/deployments/{found['id']}/create_flow_run", json=body).raise_for_status()
    newest = backups.manifest("nats").id

    def proven() -> bool:
        return newest in backups.environment.catalogue(["nats"]).proven

    until(proven, "the proof of the nats set has passed", 180)


def test_a_restore_wants_its_confirmation_and_shows_its_plan(
    room: ControlRoom, backups: Backups
) -> None:
    good = backups.manifest("nats")
    unsure = start(room, "restore-component", backup=good.id, confirm="yes")
    assert "not confirmed" in unsure.reaches("FAILED")["message"]
    said = run(room, good.id, "--yes", command="restore")
    assert [one["outcome"] for one in said["restores"]] == ["restored"], said
    assert "replace" in said["restores"][0]["stages"]  # the run's own report: no table has that
    backups.live.await_state("ready")


# ---------------------------------------------------------------------- rebuilds
def test_a_rebuild_goes_by_the_api_with_one_approval(room: ControlRoom, backups: Backups) -> None:
    run(room, "nats")
    assert run(room, "nats", command="verify")["proofs"][0]["verdict"] == "pass"
    made = rebuild(room, "CHG-1")
    assert rebuild(room, "CHG-1").id == made.id  # the same call sent twice is one run
    made.asks()
    before = backups.live.pod("nats-0")["metadata"]["uid"]
    assert made.answer(decision="perhaps") == "REJECT"
    assert made.answer(name="") == "REJECT"
    assert made.state["type"] == "PAUSED"
    assert backups.live.pod("nats-0")["metadata"]["uid"] == before
    assert made.answer() == "ACCEPT"
    made.reaches("RUNNING", "COMPLETED")
    assert made.answer() != "ACCEPT"  # an answer counts once
    said = made.reaches("COMPLETED", seconds=300)
    assert "approved by Ottilie Engineer (CHG-1815)" in said["message"]
    assert backups.live.pod("nats-0")["metadata"]["uid"] != before
    names = made.tasks
    for step in ("backup", "proof", "uninstall", "volumes", "install", "restore"):
        assert names[step] == "COMPLETED", names
    backups.live.await_state("ready")


@pytest.mark.parametrize(
    ("deployment", "parameters"),
    [
        ("rebuild-component", {"component": "mysql"}),
        ("rebuild-component", {"component": "nats", "volumes": "burn"}),
        ("verify-restores", {"which": "some"}),
        ("backup-component", {"only": "redis"}),
        ("retention", {"apply": "perhaps"}),
        ("doctor", {"fix": "perhaps"}),
    ],
)
def test_what_no_form_offers_makes_no_run(
    deployment: str, parameters: dict[str, Any], room: ControlRoom
) -> None:
    found = find_deployment(room, deployment)
    body = {"parameters": {"environment": "sandbox", **parameters}}
    made = room.http.post(f"/deployments/{found['id']}/create_flow_run", json=body)
    assert made.status_code in (409, 422), made.text


def test_a_refused_or_cancelled_rebuild_changes_nothing(
    room: ControlRoom, backups: Backups
) -> None:
    before = backups.live.pod("nats-0")["metadata"]["uid"]
    refused = rebuild(room, "CHG-2")
    refused.asks()
    assert refused.answer(decision="refuse") == "ACCEPT"
    assert "refused by Ottilie Engineer" in refused.reaches("CANCELLED")["message"]
    cancelled = rebuild(room, "CHG-3")
    cancelled.asks()
    assert cancelled.cancel() < CANCEL_SECONDS
    assert cancelled.answer() != "ACCEPT"  # late
    assert backups.live.pod("nats-0")["metadata"]["uid"] == before


def test_the_command_line_approves_and_follows(room: ControlRoom, backups: Backups) -> None:
    words = ("nats", "--volumes", "keep", "--approver", "Ada", "--ticket", "CHG-4")
    said = run(room, *words, command="rebuild")
    assert [step["name"] for step in said["steps"]] == ["backup", "proof", "uninstall", "install"]
    assert {step["outcome"] for step in said["steps"]} == {"done"}
    assert said["rebuild"]  # the run's own report: no table has that
    backups.live.await_state("ready")


# ---------------------------------------------------------------------- the work pool
def test_setup_limits_the_runs_of_the_pool_and_does_not_wake_one_that_somebody_paused(
    room: ControlRoom,
) -> None:
    pool = "/work_pools/isa-platform"
    room.http.patch(pool, json={"is_paused": True}).raise_for_status()
    try:
        for runs in ({"ISA_POOL__RUNS": "7"}, {}):
            environ = {**room.environ(), **runs}
            subprocess.run([ISA, "setup"], env=environ, check=True, timeout=120)
            found = room.http.get(pool).json()
            assert (found["concurrency_limit"], found["is_paused"]) == (7, True)
    finally:
        back = {"is_paused": False, "concurrency_limit": None}
        room.http.patch(pool, json=back).raise_for_status()


# ---------------------------------------------------------------------- the doctor
def doctor(room: ControlRoom, *arguments: str, **environ: str) -> dict[str, dict[str, Any]]:
    """Its checks by name."""
    done = subprocess.run(
        [ISA, "doctor", *arguments, "--json"],
        env={**room.environ(), **environ},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return {check["name"]: check for check in checked(["doctor"], done.stdout)["checks"]}


def test_the_doctor_finds_a_working_control_room_well(
    room: ControlRoom, backups: Backups, tmp_path: Path
) -> None:
    account = log_in(backups.sandbox, tmp_path, "isa-deployer")  # its worker runs it every hour
    assert account.kubeconfig is not None
    found = doctor(room, **identity_of(account.kubeconfig))
    names = [
        "Prefect server", "workers of isa-platform", "queue backups", "queue rebuilds", "runs", "long runs",
        "automations", "versions", "releases", "rebuilds", "scratch engines", "object store",
        "object locks", "leftovers",
        "job template of isa-platform", "limits of isa-platform", "declaration of doctor",
        "clock against Kubernetes", "clock against Prefect",
        *(f"schedule of {name}" for name in ("backup-nightly", "verify-restores", "retention", "doctor")),
    ]  # fmt: skip
    assert {name: found[name]["hint"] for name in names if not found[name]["ok"]} == {}
    assert any(name.startswith("certificate of") for name in found)


def test_the_doctor_finds_what_is_broken_and_fixes_what_is_safe(
    room: ControlRoom, backups: Backups
) -> None:
    present = room.http.post("/automations/filter", json={}).json()
    room.http.delete(f"/automations/{present[0]['id']}").raise_for_status()
    deployment = find_deployment(room, "backup-nightly")
    room.http.post(f"/deployments/{deployment['id']}/pause_deployment").raise_for_status()
    kube, where = backups.environment.kube, backups.environment.settings.kubernetes.verify_namespace
    orphan = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "proof-redis-orphan",
            "namespace": where,
            "labels": {"isa-cloud.io/scratch": "redis"},
        },
        "spec": {
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 10001,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "engine",
                    "image": "example/never:1",
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                    },
                }
            ],
        },
    }
    kube.create(orphan)
    found = doctor(room)
    bad = {name for name, check in found.items() if not check["ok"]}
    assert {"automations", "scratch engines", "declaration of backup-nightly"} <= bad
    assert not found["declaration of backup-nightly"]["critical"]
    after = doctor(room, "--fix")
    assert after["automations"]["hint"].startswith("fixed: created")
    assert after["scratch engines"]["hint"] == "fixed: removed proof-redis-orphan"
    assert not after["declaration of backup-nightly"][
        "ok"
    ]  # somebody may have paused it on purpose
    room.http.post(f"/deployments/{deployment['id']}/resume_deployment").raise_for_status()

    def well() -> bool:
        again = doctor(room)
        checks = ("automations", "scratch engines", "declaration of backup-nightly")
        return all(again[name]["ok"] for name in checks)

    until(well, "the doctor is content", 90)


WORD = "Wort-4711-geheim"


@contextmanager
def unquoted(backups: Backups) -> Iterator[None]:
    """The Secret with Prefect's database has a password with a slash, which a URL takes for a port and repeats."""
    kube, where = (
        backups.environment.kube,
        backups.environment.settings.kubernetes.control_namespace,
    )
    secret = kube.get("v1", "Secret", "prefect-database", where)
    assert secret is not None
    url = f"postgresql://prefect:{WORD}/und@127.0.0.1/prefect"
    kube.patch(secret, {"stringData": {"url": url}})
    yield
    kube.patch(secret, {"data": secret["data"]})


def test_prefect_knows_neither_data_nor_secrets(room: ControlRoom, backups: Backups) -> None:
    """Everything that Prefect wrote down, from its own database as the set `platform` has it."""
    with unquoted(backups):
        said = run(room, "platform", code=1)
    assert f"as '{MASK}'" in said["message"], said  # the error itself is told
    filters = {"logs": {"flow_run_id": {"any_": [said["flow_run"]]}}}
    logs = room.http.post("/logs/filter", json=filters).json()
    assert any(MASK in line["message"] for line in logs)
    run(room, "platform")
    database = backups.fetch(backups.manifest("platform"), "prefect.dump")
    assert b"backup-platform" in database and MASK.encode() in database
    password = room.login.partition(":")[2]
    printed = room.daemon("prefect-worker").log.read_bytes()
    for word in (WORD.encode(), password.encode(), *PLAINTEXT, *_secrets(backups)):
        assert word not in database
        assert word not in printed
