"""The deploy as people run it: through the API of a real Prefect server, by a real worker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from cluster.records import read_records
from deployments.sandbox.cluster import Sandbox
from deployments.sandbox.control_room import ControlRoom

NAMESPACE = "isa-cloud-production"
ISA = str(Path(sys.executable).with_name("isa"))
NODES = 9


@pytest.fixture(scope="module")
def room(sandbox: Sandbox) -> Iterator[ControlRoom]:
    control_room = ControlRoom(sandbox)
    control_room.up()
    yield control_room
    control_room.down(purge=True)


@pytest.fixture
def fresh(sandbox: Sandbox) -> None:
    """Remove the releases that an earlier test left; volumes and Secrets may stay."""
    helm, environ = str(sandbox.binary("helm")), sandbox.environ()
    for name in read_records(sandbox.kube(), NAMESPACE):
        subprocess.run(
            [helm, "uninstall", name, "-n", NAMESPACE], env=environ, check=True, capture_output=True
        )


@pytest.fixture
def slow_pods(sandbox: Sandbox, fresh: None) -> Iterator[None]:
    """Pods that take so long that helm is certainly still waiting for them."""
    sandbox.set_ready_delay(60, 61)
    yield
    sandbox.set_ready_delay(0.3, 1)


def isa(room: ControlRoom, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ISA, *arguments],
        env=room.environ(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def start(room: ControlRoom, **body: Any) -> str:
    """Create a run as README's curl does."""
    deployment = room.http.get("/deployments/name/deploy-platform/deploy-platform").json()["id"]
    answer = room.http.post(f"/deployments/{deployment}/create_flow_run", json=body)
    assert answer.status_code in (200, 201), answer.text
    return str(answer.json()["id"])


def run_of(room: ControlRoom, run: str) -> dict[str, Any]:
    found: dict[str, Any] = room.http.get(f"/flow_runs/{run}").json()
    return found


def until(what: str, condition: Callable[[], Any], seconds: float = 120) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError(f"{what}: not within {seconds} s")


def state(room: ControlRoom, run: str, *names: str) -> dict[str, Any]:
    """Wait until a run is in one of the states."""
    return dict(
        until(
            f"run {'/'.join(names)}", lambda: (r := run_of(room, run))["state_name"] in names and r
        )
    )


def helms(sandbox: Sandbox) -> list[int]:
    """Helm processes that work on this sandbox."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if command[0].endswith(b"/helm") and str(sandbox.kubeconfig).encode() in command:
            found.append(int(process.name))
    return found


def pending(sandbox: Sandbox) -> list[str]:
    records = read_records(sandbox.kube(), NAMESPACE)
    return [name for name, history in records.items() if history[-1].pending]


@contextmanager
def away(room: ControlRoom, part: str, seconds: float) -> Iterator[None]:
    """One of the control room's parts is gone for a while; it is back at the end."""
    gone = time.monotonic()
    room.daemon(part).stop(number=signal.SIGINT)
    yield
    time.sleep(max(0.0, seconds - (time.monotonic() - gone)))  # an outage is made of time
    room.serve()


def make_ready(sandbox: Sandbox) -> None:
    """Let pods that wait be ready soon: new ones do not wait."""
    sandbox.set_ready_delay(0.3, 1)
    for pod in sandbox.kube().list("v1", "Pod", NAMESPACE):
        sandbox.kube().delete("v1", "Pod", pod["metadata"]["name"], NAMESPACE)


def artifacts(room: ControlRoom, run: str) -> dict[str, list[Any]]:
    """What a run left, by key."""
    filters = {"artifacts": {"flow_run_id": {"any_": [run]}}}
    found: dict[str, list[Any]] = {}
    for one in room.http.post("/artifacts/filter", json=filters).json():
        found.setdefault(one["key"], []).append(one["data"])
    return found


def task_states(room: ControlRoom, run: str) -> dict[str, str]:
    found = room.http.post("/task_runs/filter", json={"flow_runs": {"id": {"any_": [run]}}}).json()
    return {task["name"]: task["state_type"] for task in found}


def test_the_command_starts_a_run_and_tells_what_became_of_every_node(
    room: ControlRoom, fresh: None
) -> None:
    done = isa(room, "deploy", "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert report["state"] == "completed"
    assert [node["outcome"] for node in report["nodes"]].count("installed") >= NODES - 2
    assert all(
        node["outcome"] in ("installed", "upgraded", "unchanged") for node in report["nodes"]
    )
    found = run_of(room, report["flow_run"])
    assert found["state_name"] == "Completed"
    filters = {"artifacts": {"flow_run_id": {"any_": [report["flow_run"]]}}}
    artifacts = room.http.post("/artifacts/filter", json=filters).json()
    assert {artifact["key"] for artifact in artifacts} == {
        "deploy-sandbox",
        "plan-sandbox",
        "status-sandbox",
        "timeline-sandbox",
    }
    tasks = room.http.post(
        "/task_runs/filter", json={"flow_runs": {"id": {"any_": [report["flow_run"]]}}}
    ).json()
    assert {task["name"] for task in tasks} == {node["name"] for node in report["nodes"]}


def test_the_same_idempotency_key_is_the_same_run(room: ControlRoom) -> None:
    first = start(room, idempotency_key="one-deploy")
    assert start(room, idempotency_key="one-deploy") == first
    state(room, first, "Completed")


def test_a_cancelled_deploy_leaves_no_helm_and_no_stuck_release(
    room: ControlRoom, sandbox: Sandbox, slow_pods: None
) -> None:
    run = start(room)
    until("helm runs", lambda: helms(sandbox))
    asked = time.monotonic()
    room.http.post(f"/flow_runs/{run}/set_state", json={"state": {"type": "CANCELLING"}})
    state(room, run, "Cancelled")
    assert time.monotonic() - asked < 30
    until("helm ended", lambda: not helms(sandbox), 10)
    assert pending(sandbox) == []
    sandbox.set_ready_delay(0.3, 1)
    again = isa(room, "deploy", "--json")
    assert again.returncode == 0, again.stdout + again.stderr


def test_a_second_deploy_is_refused_while_one_runs(
    room: ControlRoom, sandbox: Sandbox, slow_pods: None
) -> None:
    first = start(room)
    until("helm runs", lambda: helms(sandbox))
    second = start(room)
    state(room, second, "Cancelled")
    local = isa(room, "deploy", "--local")
    assert local.returncode == 1
    assert "is held by" in local.stderr and "flow run" in local.stderr
    room.http.post(f"/flow_runs/{first}/set_state", json={"state": {"type": "CANCELLING"}})
    state(room, first, "Cancelled")


def test_a_killed_run_leaves_no_helm_behind_and_the_next_one_takes_over(
    room: ControlRoom, sandbox: Sandbox, slow_pods: None
) -> None:
    run = start(room)
    until("helm runs", lambda: helms(sandbox))
    worker = room.daemon("prefect-worker").pid
    children = subprocess.run(
        ["pgrep", "-P", str(worker)], capture_output=True, text=True, check=True
    ).stdout
    for pid in children.split():
        os.kill(int(pid), signal.SIGKILL)
    until("helm ended with its parent", lambda: not helms(sandbox), 15)
    state(room, run, "Crashed", "Failed")
    sandbox.set_ready_delay(0.3, 1)
    again = isa(room, "deploy", "--json")
    assert again.returncode == 0, again.stdout + again.stderr
    assert pending(sandbox) == []


def test_the_server_answers_nobody_without_the_password(room: ControlRoom) -> None:
    path = "/deployments/name/deploy-platform/deploy-platform"
    for auth in (None, ("isa", "wrong")):
        assert httpx.get(f"{room.api}{path}", auth=auth).status_code == 401
        made = httpx.post(f"{room.api}/flow_runs/filter", json={}, auth=auth)
        assert made.status_code == 401
    assert room.http.get(path).status_code == 200


def test_a_deploy_goes_on_without_the_server_and_then_without_its_database(
    room: ControlRoom, sandbox: Sandbox, fresh: None
) -> None:
    sandbox.set_ready_delay(900, 901)
    followed = subprocess.Popen(
        [ISA, "deploy", "--only", "redis", "--json"],
        env=room.environ(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        (helm,) = until("helm waits for the pods", lambda: helms(sandbox))
        with away(room, "prefect-server", 30):
            pass
        assert helms(sandbox) == [helm]  # it has noticed nothing
        with away(room, "prefect-database", 20):
            make_ready(sandbox)
        said, words = followed.communicate(timeout=300)
    finally:
        followed.kill()
        sandbox.set_ready_delay(0.3, 1)
    report = json.loads(said or "{}")
    assert followed.returncode == 0, said + words
    run = run_of(room, report["flow_run"])
    assert (run["state_name"], run["run_count"]) == ("Completed", 1), run["state"]
    assert {node["name"]: node["outcome"] for node in report["nodes"]}["redis"] == "installed"
    left = artifacts(room, report["flow_run"])
    assert {key: len(data) for key, data in left.items()} == dict.fromkeys(
        ("deploy-sandbox", "plan-sandbox", "status-sandbox"), 1
    )
    rows = {row["name"]: row["outcome"] for row in json.loads(left["deploy-sandbox"][0])}
    assert rows == {node["name"]: node["outcome"] for node in report["nodes"]}
    (history,) = read_records(sandbox.kube(), NAMESPACE).values()
    assert len(history) == 1  # nothing was done twice
    done = {name for name, outcome in rows.items() if outcome in ("installed", "unchanged")}
    until(
        "the server knows how each task ended",
        lambda: task_states(room, report["flow_run"]) == dict.fromkeys(done, "COMPLETED"),
    )


def test_after_an_outage_a_running_deploy_has_its_place_and_can_be_cancelled(
    room: ControlRoom, sandbox: Sandbox, slow_pods: None
) -> None:
    """Prefect ends a run that has lost its place when it next asks for it, which is minutes later."""
    sandbox.set_ready_delay(900, 901)
    run = start(room, parameters={"environment": "sandbox", "only": ["redis"]})
    until("helm runs", lambda: helms(sandbox))
    lease = run_of(room, run)["state"]["state_details"]["deployment_concurrency_lease_id"]
    with away(room, "prefect-server", 45):  # by then the worker listens for no cancel any more
        pass
    kept = room.http.post(f"/v2/concurrency_limits/leases/{lease}/renew", json={})
    assert kept.status_code == 204, kept.text
    asked = time.monotonic()
    room.http.post(f"/flow_runs/{run}/set_state", json={"state": {"type": "CANCELLING"}})
    state(room, run, "Cancelled")
    assert time.monotonic() - asked < 45  # it looks every 10 s, and believes what it sees twice
    until("helm ended", lambda: not helms(sandbox), 10)
    assert pending(sandbox) == []
    sandbox.set_ready_delay(0.3, 1)
    again = isa(room, "deploy", "--only", "redis", "--json")
    assert again.returncode == 0, again.stdout + again.stderr  # and free again
