"""The EMQX double: three nodes whose clients hear one another, and an API that keeps what they share."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

NETWORK = f"127.{100 + os.getpid() % 100}.8"
NODES = {f"emqx-{n}": f"{NETWORK}.{n + 1}" for n in range(3)}
USERS = "/authentication/password_based:built_in_database/users"
PATIENCE_SECONDS = 30.0


@dataclass
class Cluster:
    data: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str) -> None:
        module = "sandbox.doubles.emqx"
        peers = ",".join(f"{n}={a}" for n, a in NODES.items())
        data = str(self.data / name)
        argv = [
            sys.executable,
            "-m",
            module,
            "--name",
            name,
            "--data",
            data,
            "--host",
            "test",
            "--peers",
            peers,
        ]
        environ = {
            **os.environ,
            "EMQX_NODE__COOKIE": "cookie",
            "EMQX_DASHBOARD__DEFAULT_USERNAME": "isa",
            "EMQX_DASHBOARD__DEFAULT_PASSWORD": "secret",
            "EMQX_AUTHENTICATION__1__BACKEND": "built_in_database",
        }
        log = (self.data / f"{name}.log").open("wb")
        self.processes[name] = subprocess.Popen(
            argv, env=environ, stdout=log, stderr=log, start_new_session=True
        )

    def kill(self, name: str) -> None:
        process = self.processes.pop(name)
        os.killpg(process.pid, 9)
        process.wait()

    def api(self, node: str, method: str, path: str, **given: Any) -> httpx.Response:
        if "auth" not in given:
            given["headers"] = {"authorization": f"Bearer {self.token(node)}"}
        return httpx.request(
            method, f"http://{NODES[node]}:18083/api/v5{path}", timeout=20, **given
        )

    def answers(self, node: str) -> bool:
        return self.api(node, "GET", "/nodes").status_code == 200

    def token(self, node: str) -> str:
        login = {"username": "isa", "password": "secret"}
        answer = httpx.post(f"http://{NODES[node]}:18083/api/v5/login", json=login, timeout=20)
        return str(answer.raise_for_status().json()["token"])

    def until(self, holds: Callable[[], Any]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                if holds():
                    return
            except (
                httpx.HTTPError,
                OSError,
                queue.Empty,
            ):  # a broker that starts leaves a CONNECT unanswered
                pass
            assert time.monotonic() < deadline, "not in time"
            time.sleep(0.2)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("emqx"))
    try:
        for name in NODES:
            made.start(name)
        for name in NODES:
            made.until(partial(made.answers, name))
        made.until(
            lambda: (
                made.api(
                    "emqx-0", "POST", USERS, json={"user_id": "u", "password": "p"}
                ).status_code
                == 201
            )
        )
        made.until(lambda: connect("emqx-2", "u", "p") is not None)
        yield made
    finally:
        for name in list(made.processes):
            made.kill(name)


def connect(
    node: str, user: str, password: str
) -> tuple[mqtt.Client, queue.Queue[mqtt.MQTTMessage]] | None:
    """A connected client and what it receives; None if it is refused."""
    outcome: queue.Queue[bool] = queue.Queue()
    inbox: queue.Queue[mqtt.MQTTMessage] = queue.Queue()
    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    client.username_pw_set(user, password)
    client.on_connect = lambda c, d, f, reason, p: outcome.put(not reason.is_failure)
    client.on_message = lambda c, d, message: inbox.put(message)
    client.connect(NODES[node], 1883)
    client.loop_start()
    if outcome.get(timeout=10):
        return client, inbox
    client.loop_stop()
    return None


def session(node: str) -> tuple[mqtt.Client, queue.Queue[mqtt.MQTTMessage]]:
    made = connect(node, "u", "p")
    assert made is not None
    return made


def test_a_message_published_on_one_node_is_received_on_another(cluster: Cluster) -> None:
    listener, inbox = session("emqx-1")
    listener.subscribe("a/b", 1)
    time.sleep(0.5)
    sender, _ = session("emqx-2")
    sender.publish("a/b", b"hello", 1).wait_for_publish(5)
    assert inbox.get(timeout=5).payload == b"hello"


def test_a_retained_message_is_kept_for_all_nodes_and_listed_by_the_api(cluster: Cluster) -> None:
    sender, _ = session("emqx-0")
    sender.publish("kept/x", b"42", 1, retain=True).wait_for_publish(5)
    late, inbox = session("emqx-2")

    def subscriber_is_told() -> bool:
        late.subscribe("kept/#", 1)
        return inbox.get(timeout=2).retain

    cluster.until(subscriber_is_told)  # a node learns what another one retains a moment later
    listed = cluster.api("emqx-1", "GET", "/mqtt/retainer/messages").json()["data"]
    assert "kept/x" in [row["topic"] for row in listed]


def test_a_wrong_password_is_refused_by_broker_and_api(cluster: Cluster) -> None:
    assert connect("emqx-0", "u", "wrong") is None
    answer = httpx.post(
        f"http://{NODES['emqx-0']}:18083/api/v5/login", json={"username": "isa", "password": "x"}
    )
    assert (answer.status_code, answer.json()["code"]) == (401, "BAD_USERNAME_OR_PWD")


def test_users_are_known_on_all_nodes_and_stand_once(cluster: Cluster) -> None:
    user = {"user_id": "second", "password": "p2"}
    assert cluster.api("emqx-1", "POST", USERS, json=user).status_code == 201
    assert cluster.api("emqx-2", "POST", USERS, json=user).status_code == 409
    cluster.until(lambda: connect("emqx-0", "second", "p2"))


def test_an_export_brings_all_back_but_with_an_api_key_no_administrators(cluster: Cluster) -> None:
    node = "emqx-0"
    rule = {"id": "r1", "sql": 'SELECT * FROM "t/#"', "actions": []}
    assert cluster.api(node, "POST", "/rules", json=rule).status_code == 201
    cluster.api(node, "POST", "/publish", json={"topic": "kept/y", "payload": "1", "retain": True})
    key = cluster.api(node, "POST", "/api_key", json={"name": "backup"}).json()
    whole = cluster.api(node, "POST", "/data/export").json()["filename"]
    partial = cluster.api(
        node, "POST", "/data/export", auth=(key["api_key"], key["api_secret"])
    ).json()["filename"]
    archive = cluster.api(node, "GET", f"/data/files/{whole}").content
    assert len(archive) > len(cluster.api(node, "GET", f"/data/files/{partial}").content)
    again = cluster.api(node, "POST", "/data/files", files={"filename": (whole, archive)})
    assert (again.status_code, "already exists" in again.text) == (400, True)
    for path in (
        "/rules/r1",
        "/mqtt/retainer/message/kept%2Fy",
        "/api_key/backup",
        f"/data/files/{whole}",
    ):
        assert cluster.api(node, "DELETE", path).status_code == 204
    assert (
        cluster.api(node, "POST", "/data/files", files={"filename": (whole, archive)}).status_code
        == 204
    )
    assert cluster.api(node, "POST", "/data/import", json={"filename": whole}).status_code == 204
    assert cluster.api("emqx-1", "GET", "/rules").json()["data"][0]["id"] == "r1"
    assert cluster.api("emqx-1", "GET", "/mqtt/retainer/message/kept%2Fy").status_code == 200
    assert cluster.api("emqx-1", "GET", "/api_key").json()[0]["name"] == "backup"


def test_a_killed_node_is_shown_stopped_and_comes_back_with_its_users(cluster: Cluster) -> None:
    cluster.kill("emqx-2")

    def states() -> list[str]:
        return [n["node_status"] for n in cluster.api("emqx-0", "GET", "/nodes").json()]

    cluster.until(lambda: states() == ["running", "running", "stopped"])
    cluster.start("emqx-2")
    cluster.until(lambda: states() == ["running"] * 3)
    cluster.until(lambda: connect("emqx-2", "u", "p"))
