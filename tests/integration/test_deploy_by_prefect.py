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
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.blocks.notifications import CustomWebhookNotificationBlock, SlackWebhook
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from pydantic import SecretStr

from cluster.helm.records import read_records
from sandbox.cluster import Sandbox
from sandbox.control_room import ControlRoom
from tasks.server import automations
from tests.contract import checked

from .receivers import PASSWORD, Receivers, receiving

NAMESPACE = "isa-cloud-production"
ISA = str(Path(sys.executable).with_name("isa"))
NODES = 9


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
    """Create a run as docs/operations/api.md does."""
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
    """Helm processes that work on this sandbox: each has a kubeconfig of its own, with the server."""
    server = f"127.0.0.1:{sandbox.addresses.apiserver}"
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_text(encoding="utf-8").split("\0")
            if not command[0].endswith("/helm") or "--kubeconfig" not in command:
                continue
            kubeconfig = Path(command[command.index("--kubeconfig") + 1])
            if server in kubeconfig.read_text(encoding="utf-8"):
                found.append(int(process.name))
        except OSError:  # it has ended
            continue
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


def loggers(room: ControlRoom, run: str) -> set[str]:
    """Whose lines the log of a run has."""
    names: list[str] = []
    page = [run]
    while page:
        body = {"logs": {"flow_run_id": {"any_": [run]}}, "limit": 200, "offset": len(names)}
        page = [line["name"] for line in room.http.post("/logs/filter", json=body).json()]
        names += page
    return set(names)


def task_states(room: ControlRoom, run: str) -> dict[str, str]:
    found = room.http.post("/task_runs/filter", json={"flow_runs": {"id": {"any_": [run]}}}).json()
    return {task["name"]: task["state_type"] for task in found}


def test_the_command_starts_a_run_and_tells_what_became_of_every_node(
    room: ControlRoom, fresh: None
) -> None:
    done = isa(room, "deploy", "--json")
    assert done.returncode == 0, done.stderr
    report = checked(["deploy"], done.stdout)  # as with --local
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
        "deploy-sandbox-report",
        "plan-sandbox",
        "status-sandbox",
        "timeline-sandbox",
    }
    tasks = room.http.post(
        "/task_runs/filter", json={"flow_runs": {"id": {"any_": [report["flow_run"]]}}}
    ).json()
    assert {task["name"] for task in tasks} == {node["name"] for node in report["nodes"]}
    # what our modules log in threads too, whose context does not know the run
    assert "operations.health.gate" in loggers(room, report["flow_run"])


def test_the_same_idempotency_key_is_the_same_run(room: ControlRoom) -> None:
    first = start(room, idempotency_key="one-deploy")
    assert start(room, idempotency_key="one-deploy") == first
    state(room, first, "Completed")


def test_a_parameter_that_no_flow_has_is_refused(room: ControlRoom) -> None:
    found = room.http.get("/deployments/name/deploy-platform/deploy-platform").json()
    body = {"parameters": {"environment": "sandbox", "onyl": ["nats"]}}
    answer = room.http.post(f"/deployments/{found['id']}/create_flow_run", json=body)
    assert answer.status_code == 409
    assert "onyl" in answer.text


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
        (
            "deploy-sandbox",
            "deploy-sandbox-report",
            "plan-sandbox",
            "status-sandbox",
            "timeline-sandbox",
        ),
        1,
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


# ---------------------------------------------------------------------- what follows, and who is told
BLOCKS = (
    "slack-webhook/on-call",
    "slack-webhook/mail",
    "custom-webhook/pager",
    "slack-webhook/refuses",
)
TOLD = ["/on-call", "/pager", "on-call@example.com"]


@pytest.fixture
def receivers(room: ControlRoom, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receivers]:
    """Who is told by the server through blocks of three kinds, and one whose receiver refuses."""
    monkeypatch.setenv("ISA_NOTIFY__BLOCKS", json.dumps(BLOCKS))
    signed_in = {PREFECT_API_URL: room.api, PREFECT_API_AUTH_STRING: room.login}
    with receiving() as made, temporary_settings(signed_in):
        mail = f"mailto://isa:{PASSWORD}@{made.mail}?from=isa@example.com&to=on-call@example.com"
        SlackWebhook(url=SecretStr(f"json://{made.web}/on-call")).save("on-call", overwrite=True)
        SlackWebhook(url=SecretStr(f"{mail}&mode=insecure")).save("mail", overwrite=True)
        SlackWebhook(url=SecretStr(f"json://{made.web}/refuse")).save("refuses", overwrite=True)
        body = {"subject": "{{subject}}", "body": "{{body}}"}
        CustomWebhookNotificationBlock(
            name="pager", url=f"http://{made.web}/pager", json_data=body, headers={}, cookies={}
        ).save("pager", overwrite=True)
        automations.compare(BLOCKS).settle()
        yield made
        automations.compare(()).settle()


def test_a_failed_deploy_is_told_once_to_everybody(room: ControlRoom, receivers: Receivers) -> None:
    run = start(room, parameters={"environment": "nowhere"})
    state(room, run, "Failed")
    subject = "Deploy of nowhere failed"
    until("all are told", lambda: receivers.told(subject) == TOLD)
    assert receivers.told("To do: isa status") == TOLD
    assert receivers.told(f"{room.ui}/runs/flow-run/{run}") == TOLD
    said = isa(room, "notify", "--json")
    *arrived, refused = checked(["notify"], said.stdout)["sent"]
    assert [(one["block"], one["arrived"]) for one in arrived] == [(b, True) for b in BLOCKS[:3]]
    assert (refused["block"], refused["arrived"]) == (BLOCKS[3], False)
    assert "404" in refused["reason"]
    assert said.returncode == 1
    # these came behind it on the same way: a second message of the run would be there by now
    assert receivers.told("Test message of sandbox") == TOLD
    assert receivers.told(subject) == TOLD


def test_automations_that_somebody_changed_are_put_right_and_none_is_made_twice(
    room: ControlRoom, receivers: Receivers
) -> None:
    def found(name: str) -> list[dict[str, Any]]:
        everything = room.http.post("/automations/filter", json={}).json()
        return [one for one in everything if one["name"] == name]

    (silent,), (crash,) = found("isa-crash-silent-runs"), found("isa-notify-crash")
    content = {k: silent[k] for k in ("name", "description", "trigger", "actions")}
    room.http.post("/automations/", json=content).raise_for_status()  # as by hand, once more
    (chain,) = found("isa-doctor-after-deploy")
    room.http.delete(f"/automations/{chain['id']}").raise_for_status()
    other = {**crash, "description": "other words"}
    body = {k: other[k] for k in ("name", "description", "trigger", "actions", "enabled")}
    room.http.put(f"/automations/{crash['id']}", json=body).raise_for_status()
    (change,) = found("isa-notify-change")
    room.http.patch(f"/automations/{change['id']}", json={"enabled": False}).raise_for_status()
    difference = automations.compare(BLOCKS)
    assert str(difference) == (
        "missing: isa-doctor-after-deploy; different: isa-notify-crash; "
        "surplus: isa-crash-silent-runs"
    )
    assert difference.off == ("isa-notify-change",)
    difference.settle()
    after = automations.compare(BLOCKS)
    assert not after, str(after)
    assert after.off == ("isa-notify-change",)  # somebody may have done it on purpose
    assert len(found("isa-crash-silent-runs")) == 1


def test_the_end_of_a_deploy_has_the_gates_asked_again(room: ControlRoom) -> None:
    doctor = room.http.get("/deployments/name/doctor/doctor").json()["id"]
    deploy = start(room, parameters={"environment": "nowhere"})
    ended = state(room, deploy, "Failed")["end_time"]

    def chained() -> bool:
        wanted = {"deployments": {"id": {"any_": [doctor]}}}
        runs = room.http.post("/flow_runs/filter", json=wanted).json()
        made = [r for r in runs if (r["created_by"] or {}).get("type") == "AUTOMATION"]
        planned = [datetime.fromisoformat(r["expected_start_time"]) for r in made]
        return any(one > datetime.fromisoformat(ended) + timedelta(minutes=4) for one in planned)

    until("a run of the doctor is planned", chained)
