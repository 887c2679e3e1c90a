"""Gate and sets of EMQX against brokers of the double: rules that refuse, rounds at once, time that passes."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from archive.backup.manifest import Measure
from components.access import Endpoint
from components.base import Check
from components.emqx import restore
from components.emqx.client import USERS, Api, sign_on
from components.emqx.exports.export import read_export, rewritten
from components.emqx.fingerprint import (
    MESSAGES,
    NEWEST,
    counts,
    listed,
    measure,
    measure_lists,
    measure_messages,
)
from components.emqx.readiness import ask
from operations.verify.comparison import compare

from ..listening import called

NETWORK = f"127.{100 + os.getpid() % 100}.6"
NODES = {f"emqx-{n}": f"{NETWORK}.{n + 1}" for n in range(2)}
PATIENCE_SECONDS = 60.0
ROUNDS, AT_ONCE = 12, 3


@pytest.fixture(scope="module")
def access(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The way into two brokers, which tell of themselves every second."""
    data = tmp_path_factory.mktemp("emqx")
    processes = [_start(name, data) for name in NODES]

    def endpoint(pod: str, port: int) -> Endpoint:
        return Endpoint(pod, NODES[pod], port, NODES[pod], "node")

    with httpx.Client(timeout=20) as http:
        found: Any = SimpleNamespace(
            http=http,
            timeout_seconds=10.0,
            settings=SimpleNamespace(components=SimpleNamespace(emqx=SimpleNamespace(members=2))),
            endpoint=endpoint,
            endpoints=lambda _, __, port: [endpoint(pod, port) for pod in NODES],
            secret=lambda *_: "secret-of-isa",
        )
        try:
            until(lambda: all(check.ok for check in ask(found).checks))
            yield found
        finally:
            for process in processes:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@pytest.fixture
def api(access: Any) -> Api:
    return sign_on(access, access.endpoint("emqx-0", 18083))


def _start(name: str, data: Path) -> subprocess.Popen[bytes]:
    peers = ",".join(f"{n}={a}" for n, a in NODES.items())
    words = ("--name", name, "--data", str(data / name), "--host", "test", "--peers", peers)
    environ = {
        **os.environ,
        "EMQX_NODE__COOKIE": "cookie",
        "EMQX_DASHBOARD__DEFAULT_USERNAME": "isa",
        "EMQX_DASHBOARD__DEFAULT_PASSWORD": "secret-of-isa",
        "EMQX_AUTHENTICATION__1__BACKEND": "built_in_database",
        "EMQX_SYS_TOPICS__SYS_MSG_INTERVAL": "1s",
    }
    argv = [sys.executable, "-m", "sandbox.doubles.emqx", *words]
    with (data / f"{name}.log").open("wb") as log:
        return subprocess.Popen(argv, env=environ, stdout=log, stderr=log, start_new_session=True)


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.2)


def message(access: Any) -> Check:
    """What a gate says of a message that travels."""
    return next(check for check in ask(access).checks if check.name.startswith("message"))


# ---------------------------------------------------------------------- the gate
def test_rounds_at_the_same_time_are_all_green_and_leave_nothing(access: Any, api: Api) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        reports = list(pool.map(lambda _: ask(access), range(ROUNDS)))
    assert [c for report in reports for c in report.checks if not c.ok or c.unknown] == []
    users = api("GET", USERS).json()["data"]
    assert not [user for user in users if user["user_id"].startswith("isa-cloud-probe")]


def test_a_user_that_a_killed_round_left_is_removed_and_that_of_a_round_that_goes_on_stays(
    access: Any, api: Api
) -> None:
    now = int(time.time())
    old, fresh = f"isa-cloud-probe-{now - 7200:x}-ab", f"isa-cloud-probe-{now:x}-cd"
    for name in (old, fresh):
        api("POST", USERS, {"user_id": name, "password": "p"}).raise_for_status()
    assert message(access).ok
    assert api("GET", f"{USERS}/{old}").status_code == 404
    assert api("DELETE", f"{USERS}/{fresh}").status_code == 204


@pytest.mark.parametrize("deny_action", ["ignore", "disconnect"])
def test_a_broker_that_denies_what_no_rule_allows_is_unknown_and_not_down(
    access: Any, api: Api, deny_action: str
) -> None:
    hardened = {"no_match": "deny", "deny_action": deny_action}
    api("PUT", "/authorization/settings", hardened).raise_for_status()
    try:
        until(lambda: message(access).unknown)
        found = message(access)
        assert (found.ok, found.unknown) == (True, True)
        assert "authorization refuses" in found.hint
    finally:
        api("PUT", "/authorization/settings", {"no_match": "allow"}).raise_for_status()
    until(lambda: message(access).ok and not message(access).unknown)


# ---------------------------------------------------------------------- sets
def test_what_brokers_retain_of_themselves_and_what_expires_is_no_difference(
    access: Any, api: Api
) -> None:
    until(lambda: "$SYS/brokers" in api("GET", "/mqtt/retainer/messages").text)
    for topic, seconds in (("stays", 0), ("passes", 4)):
        body = {"topic": topic, "payload": topic, "qos": 1, "retain": True}
        body["properties"] = {"message_expiry_interval": seconds}
        api("POST", "/publish", body).raise_for_status()
    until(lambda: {"stays", "passes"} <= listed(api).keys())
    made = api("POST", "/data/export").json()
    content = api("GET", f"/data/files/{made['filename']}?node={made['node']}").content
    export = read_export(io.BytesIO(content), made["filename"], counts, all_expire=False)
    assert export.retained is not None
    assert (set(export.retained.lasting), export.retained.expiring) == (
        {"stays"},
        frozenset({"passes"}),
    )
    fingerprint = [*measure_lists(api).measures, *measure_messages(export.retained)]
    until(lambda: "passes" not in listed(api))
    assert differences(api, fingerprint, export.retained) == ()
    api("DELETE", "/mqtt/retainer/message/stays").raise_for_status()
    until(lambda: "stays" not in listed(api))
    (lost,) = differences(api, fingerprint, export.retained)
    assert lost.item == MESSAGES


def differences(api: Api, fingerprint: list[Measure], messages: Any) -> Any:
    manifest: Any = SimpleNamespace(topology={"fingerprint": NEWEST}, fingerprint=fingerprint)
    return compare(fingerprint, {"": measure(api, manifest, messages)})


def test_a_scratch_broker_gets_all_definitions_and_calls_nobody(
    access: Any, api: Api, listener: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the double and EMQX do it, a connector that is on dials as soon as it is imported."""
    there = f"127.0.0.1:{listener.getsockname()[1]}"
    connector = {"type": "mqtt", "name": "plant", "server": there, "enable": True}
    ingress = {"type": "mqtt", "name": "in", "connector": "plant", "enable": True}
    rule = {"id": "r", "sql": 'SELECT * FROM "t"', "actions": ["mqtt:out"]}
    for path, body in (("/connectors", connector), ("/sources", ingress), ("/rules", rule)):
        api("POST", path, body).raise_for_status()
    made = api("POST", "/data/export").json()
    content = api("GET", f"/data/files/{made['filename']}?node={made['node']}").content
    fingerprint = measure_lists(api).measures
    reader: Any = SimpleNamespace(
        manifest=SimpleNamespace(topology={"fingerprint": NEWEST}, fingerprint=fingerprint),
        names=lambda _: [made["filename"]],
        save=lambda _, file: (file.write_bytes(content), file)[1],
    )
    backup = SimpleNamespace(spool=tmp_path, stall_seconds=30.0)
    way: Any = SimpleNamespace(**vars(access) | {"settings": SimpleNamespace(backup=backup)})
    monkeypatch.setattr(restore, "sign_on", lambda *_: api)
    at = {"": access.endpoint("emqx-0", 18083)}

    restore.load(way, at, reader)
    assert not called(listener)
    assert [row["enable"] for row in api("GET", "/connectors").json()] == [False]
    assert compare(fingerprint, restore.measure(way, at, reader)) == ()

    with restore.saved_exports(
        way, reader
    ) as files:  # as a live restore does it: it is the tenant's own
        restore.import_export(way, api, rewritten(files[0]))
    assert called(listener)
    for path in ("/sources/mqtt:in", "/connectors/mqtt:plant", "/rules/r"):
        assert api("DELETE", path).is_success


def test_an_external_store_refuses_the_list_as_emqx_does(api: Api) -> None:
    external = {"backend": {"type": "built_in_database", "enable": False}}
    api("PUT", "/mqtt/retainer", external).raise_for_status()
    try:
        answer = api("GET", "/mqtt/retainer/messages")
        assert (answer.status_code, "built in database" in answer.text) == (400, True)
    finally:
        api("PUT", "/mqtt/retainer", {"backend": {"enable": True}}).raise_for_status()
    assert api("GET", "/mqtt/retainer/messages").status_code == 200
