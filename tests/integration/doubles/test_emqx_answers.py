"""What the EMQX double answers where backups and restores depend on it: nothing lost, and EMQX's refusals."""

from __future__ import annotations

import io
import os
import queue
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from sandbox.doubles.emqx.api import wire
from sandbox.doubles.emqx.broker import Broker
from sandbox.doubles.emqx.state import State

NETWORK = f"127.{100 + os.getpid() % 100}.4"
NODES = {f"emqx-{n}": f"{NETWORK}.{n + 1}" for n in range(3)}
EMPTY = {"emqx-0": f"{NETWORK}.9"}
USERS = "/authentication/password_based:built_in_database/users"
HOST = "emqx-headless.isa.svc.cluster.local"
FIRST, SECOND, THIRD = NODES.values()


class Cluster:
    def __init__(self, nodes: dict[str, str], data: Path) -> None:
        self.processes = [self._start(name, nodes, data) for name in nodes]
        self.headers: dict[str, str] = {}
        try:
            for address in nodes.values():
                until(partial(self._serves, address))
        except BaseException:
            self.end()
            raise

    def __call__(
        self, at: str, method: str, path: str, body: Any = None, **given: Any
    ) -> httpx.Response:
        if "auth" not in given:
            given.setdefault("headers", self.headers)
        url = f"http://{at}:18083/api/v5{path}"
        return httpx.request(method, url, json=body, timeout=30, **given)

    def end(self) -> None:
        for process in self.processes:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def broker_of(self, number: int) -> int:
        """Process of a node's MQTT server."""
        parent = str(self.processes[number].pid)
        found = subprocess.run(["pgrep", "-P", parent], capture_output=True, text=True, check=True)
        return int(found.stdout)

    def _start(self, name: str, nodes: dict[str, str], data: Path) -> subprocess.Popen[bytes]:
        peers = ",".join(f"{n}={a}" for n, a in nodes.items())
        words = ("--name", name, "--data", str(data / name), "--host", HOST, "--peers", peers)
        environ = {
            **os.environ,
            "EMQX_NODE__COOKIE": "cookie",
            "EMQX_DASHBOARD__DEFAULT_USERNAME": "isa",
            "EMQX_DASHBOARD__DEFAULT_PASSWORD": "secret",
            "EMQX_AUTHENTICATION__1__BACKEND": "built_in_database",
        }
        with (data / f"{name}.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "sandbox.doubles.emqx", *words],
                env=environ, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def _serves(self, at: str) -> bool:
        answer = self(at, "POST", "/login", {"username": "isa", "password": "secret"})
        self.headers = {"authorization": f"Bearer {answer.raise_for_status().json()['token']}"}
        return self(at, "POST", "/publish", {"topic": "ready", "payload": ""}).is_success


def until(holds: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            if holds():
                return
        except (httpx.HTTPError, OSError, queue.Empty):
            pass
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.1)


def connect(at: str, user: str, password: str, identity: str = "") -> mqtt.Client:
    """A client that was let in, if need be after the server has taken its new users."""
    outcome: queue.Queue[bool] = queue.Queue()
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=identity)
    client.username_pw_set(user, password)
    client.on_connect = lambda _, __, ___, reason, ____: outcome.put(not reason.is_failure)
    client.connect(at, 1883)
    client.loop_start()
    until(lambda: outcome.get(timeout=10))
    return client


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(NODES, tmp_path_factory.mktemp("emqx"))
    yield cluster
    cluster.end()


def key_of_role(api: Cluster, role: str) -> tuple[str, str]:
    made = api(FIRST, "POST", "/api_key", {"name": f"key-{role}", "role": role}).json()
    return made["api_key"], made["api_secret"]


def test_users_added_on_all_nodes_at_once_are_all_kept(api: Cluster) -> None:
    def add(number: int) -> int:
        user = {"user_id": f"device-{number}", "password": "p"}
        return api(list(NODES.values())[number % 3], "POST", USERS, user).status_code

    with ThreadPoolExecutor(12) as pool:
        assert set(pool.map(add, range(12))) == {201}
    for at in NODES.values():
        names = {user["user_id"] for user in api(at, "GET", USERS).json()["data"]}
        assert {f"device-{number}" for number in range(12)} <= names


def test_a_user_added_on_all_nodes_at_once_is_made_once(api: Cluster) -> None:
    def add(at: str) -> int:
        return api(at, "POST", USERS, {"user_id": "once", "password": "p"}).status_code

    with ThreadPoolExecutor(3) as pool:
        assert sorted(pool.map(add, NODES.values())) == [201, 409, 409]


def test_no_retained_message_is_left_out_when_a_broker_is_slow(api: Cluster) -> None:
    messages = [
        {"topic": f"slow/{n}", "payload": "x", "qos": n % 3, "retain": True} for n in range(60)
    ]
    assert api(SECOND, "POST", "/publish/bulk", messages).status_code == 200

    def kept() -> Counter[int]:
        rows = api(THIRD, "GET", "/mqtt/retainer/messages?limit=1000").json()["data"]
        return Counter(row["qos"] for row in rows if row["topic"].startswith("slow/"))

    whole = Counter({0: 20, 1: 20, 2: 20})
    until(lambda: kept() == whole)
    broker = api.broker_of(2)
    os.kill(broker, signal.SIGSTOP)
    threading.Timer(0.8, os.kill, (broker, signal.SIGCONT)).start()
    assert kept() == whole


def test_an_export_fills_an_empty_cluster_and_leaves_what_is_there(
    api: Cluster, tmp_path: Path
) -> None:
    api(FIRST, "POST", USERS, {"user_id": "restored", "password": "as before"})
    api(FIRST, "POST", "/users", {"username": "second", "password": "long-enough-1"})
    api(FIRST, "POST", "/rules", {"id": "r", "sql": 'SELECT * FROM "t/#"'})
    api(FIRST, "POST", "/connectors", {"type": "http", "name": "c", "url": "http://x"})
    access = [{"topic": "t/#", "permission": "allow", "action": "publish"}]
    rules = "/authorization/sources/built_in_database/rules"
    rights = [{"username": "restored", "rules": access}]
    assert api(FIRST, "POST", f"{rules}/users", rights).status_code == 404
    source = {"type": "built_in_database"}
    assert api(FIRST, "POST", "/authorization/sources", source).status_code == 204
    assert api(FIRST, "POST", f"{rules}/users", rights).status_code == 204
    kept = {"topic": "kept/é", "payload": "AAE=", "payload_encoding": "base64", "qos": 2, "retain": True}  # fmt: skip
    assert api(FIRST, "POST", "/publish", kept).status_code == 200
    name = api(FIRST, "POST", "/data/export").json()["filename"]
    content = api(FIRST, "GET", f"/data/files/{name}").content

    empty = Cluster(EMPTY, tmp_path)
    try:
        at = EMPTY["emqx-0"]
        empty(at, "POST", USERS, {"user_id": "was there", "password": "p"})
        upload = empty(at, "POST", "/data/files", files={"filename": (name, content)})
        assert upload.status_code == 204, upload.text
        assert empty(at, "POST", "/data/import", {"filename": name}).status_code == 204
        client = connect(at, "restored", "as before")
        client.disconnect()
        client.loop_stop()
        assert empty(at, "GET", f"{USERS}/was%20there").status_code == 200
        assert empty(at, "GET", "/rules/r").json()["sql"] == 'SELECT * FROM "t/#"'
        assert empty(at, "GET", "/connectors/http:c").json()["url"] == "http://x"
        assert empty(at, "GET", f"{rules}/users/restored").json()["rules"] == access
        message = empty(at, "GET", "/mqtt/retainer/message/kept%2F%C3%A9").json()
        assert (message["payload"], message["qos"]) == ("AAE=", 2)
        login = {"username": "second", "password": "long-enough-1"}
        assert empty(at, "POST", "/login", login).status_code == 200
    finally:
        empty.end()


def test_an_archive_is_listed_everywhere_and_read_by_the_name_of_its_node(api: Cluster) -> None:
    made = api(SECOND, "POST", "/data/export").json()
    name, node = made["filename"], made["node"]
    assert node == f"emqx@emqx-1.{HOST}"
    assert api(FIRST, "GET", "/data/files").json()["data"][0]["filename"] == name
    path = f"/data/files/{name}"
    assert api(FIRST, "GET", path).status_code == 404
    assert len(api(FIRST, "GET", f"{path}?node={node}").content) == made["size"]
    unknown = api(FIRST, "GET", f"{path}?node=emqx@elsewhere")
    assert (unknown.status_code, unknown.json()["code"]) == (400, "BAD_REQUEST")
    assert api(FIRST, "DELETE", f"{path}?node={node}").status_code == 204
    assert api(SECOND, "GET", path).status_code == 404


def archive(name: str, meta: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as made:
        entry = tarfile.TarInfo(f"{name}/META.hocon")
        entry.size = len(meta)
        made.addfile(entry, io.BytesIO(meta.encode()))
    return packed.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.tar.gz", b"no archive", "bad backup archive"),
        ("a.zip", archive("a", 'version = "5.8.1"\nedition = "ce"\n'), "must have .tar.gz"),
        ("renamed.tar.gz", archive("a", 'version = "5.8.1"\nedition = "ce"\n'), "<backup name>"),
        ("a.tar.gz", archive("a", ""), "missing META.hocon"),
        ("a.tar.gz", archive("a", 'version = "5.9.0"\nedition = "ce"\n'), "is newer than"),
        ("a.tar.gz", archive("a", 'version = "5.8.1"\nedition = "ee"\n'), "Enterprise"),
    ],
    ids=["garbage", "other-suffix", "renamed", "empty", "newer", "enterprise"],
)
def test_an_upload_that_is_no_export_of_this_version_is_refused(
    api: Cluster, name: str, content: bytes, said: str
) -> None:
    answer = api(FIRST, "POST", "/data/files", files={"filename": (name, content)})
    assert answer.status_code == 400
    assert said in answer.json()["message"]
    assert api(FIRST, "GET", f"/data/files/{name}").status_code != 200


def test_a_missing_archive_is_not_imported(api: Cluster) -> None:
    answer = api(FIRST, "POST", "/data/import", {"filename": "no.tar.gz"})
    assert (answer.status_code, answer.json()["message"]) == (400, "backup file not found")


def test_api_keys_may_do_what_their_role_may_and_never_touch_users_or_keys(api: Cluster) -> None:
    whole, viewer, publisher = (
        key_of_role(api, role) for role in ("administrator", "viewer", "publisher")
    )
    for path in ("/users", "/api_key"):
        answer = api(FIRST, "GET", path, auth=whole)
        assert (answer.status_code, answer.json()["code"]) == (401, "API_KEY_NOT_ALLOW")
    message = {"topic": "t", "payload": "x"}
    asked = [("GET", "/nodes", None), ("POST", "/publish", message), ("POST", "/data/export", {})]

    def statuses(key: tuple[str, str]) -> list[int]:
        return [
            api(FIRST, method, path, body, auth=key).status_code for method, path, body in asked
        ]

    assert statuses(whole) == [200, 200, 200]
    assert statuses(viewer) == [200, 403, 403]
    assert statuses(publisher) == [403, 200, 403]
    wrong = api(FIRST, "GET", "/nodes", auth=(whole[0], "wrong"))
    assert (wrong.status_code, wrong.json()["code"]) == (401, "BAD_API_KEY_OR_SECRET")


def test_an_api_key_does_not_import_administrators(api: Cluster) -> None:
    made = api(FIRST, "POST", "/api_key", {"name": "importer"}).json()
    key = (made["api_key"], made["api_secret"])
    whole = {"filename": api(FIRST, "POST", "/data/export").json()["filename"]}
    assert api(FIRST, "POST", "/data/import", whole, auth=key).status_code == 403
    time.sleep(0.002)  # names have milliseconds
    part = {"filename": api(FIRST, "POST", "/data/export", auth=key).json()["filename"]}
    assert api(FIRST, "POST", "/data/import", part, auth=key).status_code == 204


def test_a_token_ends_with_its_sign_out_on_every_node(api: Cluster) -> None:
    login = {"username": "isa", "password": "secret"}
    token = api(FIRST, "POST", "/login", login).json()["token"]
    headers = {"authorization": f"Bearer {token}"}
    assert api(SECOND, "GET", "/nodes", headers=headers).status_code == 200
    other = api(FIRST, "POST", "/logout", {"username": "another"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (401, "WRONG_TOKEN_OR_USERNAME")
    assert api(FIRST, "POST", "/logout", {"username": "isa"}, headers=headers).status_code == 204
    answer = api(SECOND, "GET", "/nodes", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "BAD_TOKEN")
    assert api(FIRST, "GET", "/nodes").status_code == 200, "the other token stays"


def test_a_token_ends_with_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = State("emqx-0", EMPTY, tmp_path / "state.json", "cookie", lambda: None)
    state.tables["dashboard_users"]["isa"] = {}
    node = wire.Node(state, Broker(state, tmp_path, False), tmp_path, HOST, "cookie", False)
    assert node.signed(node.sign("isa"))[0] == "isa"
    monkeypatch.setattr(wire, "TOKEN_SECONDS", -1)
    with pytest.raises(wire.Refused) as refused:
        node.signed(node.sign("isa"))
    assert refused.value.code == "TOKEN_TIME_OUT"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", USERS, {"user_id": "no password"}, 400, "BAD_REQUEST"),
        ("POST", USERS, ["no object"], 400, "BAD_REQUEST"),
        ("POST", "/publish", {"topic": "a/#", "payload": ""}, 400, "BAD_REQUEST"),
        ("POST", "/publish", {"topic": "a", "payload": "", "qos": "x"}, 400, "BAD_REQUEST"),
        ("GET", "/data/files?page=0", None, 400, "BAD_REQUEST"),
        ("POST", "/users", {"username": "u", "password": "short"}, 400, "BAD_REQUEST"),
        ("DELETE", "/users/isa", None, 400, "NOT_ALLOWED"),
        ("DELETE", "/users/nobody", None, 404, "USER_NOT_FOUND"),
        ("GET", "/nodes/emqx@nowhere", None, 404, "NOT_FOUND"),
        ("GET", "/nowhere", None, 404, "NOT_FOUND"),
        ("DELETE", "/nodes", None, 405, "METHOD_NOT_ALLOWED"),
        ("DELETE", "/mqtt/retainer/message/none", None, 404, "NOT_FOUND"),
        ("DELETE", "/banned/username/none", None, 404, "NOT_FOUND"),
    ],
)
def test_bad_requests_are_answered_in_emqx_words(
    api: Cluster, method: str, path: str, body: Any, status: int, code: str
) -> None:
    answer = api(FIRST, method, path, body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_clients_and_their_subscriptions_are_seen_from_every_node(api: Cluster) -> None:
    user = {"user_id": "seen", "password": "p"}
    assert api(THIRD, "POST", USERS, user).status_code == 201
    client = connect(THIRD, "seen", "p", "watcher")
    client.subscribe("plant/+/oven/#", 1)
    try:
        path = "/clients/watcher/subscriptions"
        until(lambda: api(FIRST, "GET", path).json() != [])
        row = {"topic": "plant/+/oven/#", "clientid": "watcher", "node": f"emqx@emqx-2.{HOST}"}
        assert api(FIRST, "GET", path).json() == [row]
        assert api(FIRST, "GET", "/clients/watcher").json()["username"] == "seen"
    finally:
        client.disconnect()
        client.loop_stop()


def test_a_row_of_each_kind_is_made_once_shown_and_dropped(api: Cluster) -> None:
    made = [
        ("/rules", {"id": "once", "sql": "SELECT 1"}, "/rules/once"),
        ("/actions", {"type": "http", "name": "once"}, "/actions/http:once"),
        ("/bridges", {"type": "mqtt", "name": "once"}, "/bridges/mqtt:once"),
        ("/banned", {"as": "clientid", "who": "once"}, "/banned/clientid/once"),
    ]
    for path, body, row in made:
        assert api(FIRST, "POST", path, body).is_success, path
        assert api(SECOND, "POST", path, body).status_code == 400, path
        shown = api(THIRD, "GET", path).json()
        rows = shown["data"] if isinstance(shown, dict) else shown
        assert [r for r in rows if body.items() <= r.items()], path
        assert api(SECOND, "DELETE", row).status_code == 204, path
        assert api(SECOND, "DELETE", row).status_code == 404, path
