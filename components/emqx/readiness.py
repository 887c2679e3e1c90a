"""EMQX: three brokers that find each other by DNS.

Every node is asked through its management API which nodes it sees, since after a partition each half is content with
itself; then a message is published through one node and received through another, by a user that exists for that
moment only (https://docs.emqx.com/en/emqx/v5.8/admin/api.html). Tried on a double of the API beside real MQTT brokers;
of EMQX itself the documentation and source were read.
"""

from __future__ import annotations

import queue
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from components.access import Access, Endpoint
from components.base import Report, Role, Workload
from components.emqx.client import API_PORT, MQTT_PORT, STATEFULSET, USERS, sign_on
from components.questions import PROBE, Round, ask_members, words
from config.models import Settings

TOPIC = f"{PROBE}/gate"


def workloads(settings: Settings) -> tuple[Workload, ...]:
    """What must run for this component, as Kubernetes sees it."""
    return (Workload("StatefulSet", STATEFULSET, settings.components.emqx.members),)


def ask(access: Access) -> Report:
    """Ask for nodes that all see one another, no way in without a password, and a message that travels."""
    wanted = access.settings.components.emqx.members
    nodes = access.endpoints(STATEFULSET, wanted, API_PORT)
    questions = Round()
    answers = ask_members(nodes, lambda node: _nodes(access, node))
    questions.checks.append(answers.check("nodes answer"))
    if not answers.good:
        questions.note("nodes run", False, "no node answers")
        return Report(tuple(questions.checks))
    running = {
        name: sorted(n for n, state in seen.items() if state == "running")
        for name, seen in answers.good.items()
    }
    stopped = {
        f"{name} of {member}'s view": state
        for member, seen in answers.good.items()
        for name, state in seen.items()
        if state != "running"
    }
    most = max(running.values(), key=len)
    hint = words(stopped) or f"{len(most)} of {wanted} nodes"
    questions.note("nodes run", len(most) >= wanted and not stopped, hint, critical=False)
    views = {member: ", ".join(seen) for member, seen in running.items() if seen != most}
    hint = f"{words(views)}: the cluster is split; restart the smaller half" if views else ""
    questions.note("one cluster", not views, hint, critical=False)
    clients = [access.endpoint(name, MQTT_PORT) for name in sorted(answers.good)]
    apis = [node for node in nodes if node.member in answers.good]
    with questions.check("message published and received on another node") as answer:
        answer.settle(True, _transaction(access, apis[0], clients[0], clients[-1]))
    with questions.check("no way in without a password", critical=False) as answer:
        refused = not _comes_in(access, clients[0])
        answer.settle(
            refused, "" if refused else "no authenticator is configured: everybody may publish"
        )
    roles = tuple(Role(node.member, "core") for node in apis)
    return Report(tuple(questions.checks), roles)


def _transaction(access: Access, api: Endpoint, first: Endpoint, last: Endpoint) -> str:
    """Receive through one node what is published through another."""
    token = secrets.token_hex(8)
    topic = f"{TOPIC}/{token}"
    inbox: queue.Queue[bytes] = queue.Queue()
    with _user(access, api) as login, _session(access, first, login) as receiver:
        subscribed: queue.Queue[bool] = queue.Queue()
        receiver.on_subscribe = lambda *_: subscribed.put(True)
        receiver.on_message = lambda _, __, message: inbox.put(bytes(message.payload))
        receiver.subscribe(topic, 1)
        _within(access, subscribed, f"{first.member} did not acknowledge the subscription")
        with _session(access, last, login) as sender:
            # a subscription reaches the other nodes a moment after its acknowledgement
            for _ in range(max(1, round(access.timeout_seconds / 0.5))):
                sender.publish(topic, token, 1)
                try:
                    found = inbox.get(timeout=0.5)
                    break
                except queue.Empty:
                    continue
            else:
                raise TimeoutError(f"{first.member} did not receive what {last.member} published")
    if found != token.encode():
        raise RuntimeError(f"{first.member} received another message than was published")
    return f"published through {last.member}, received through {first.member}"


@contextmanager
def _user(access: Access, api: Endpoint) -> Iterator[tuple[str, str]]:
    """A user for one round; one that an earlier round left is replaced."""
    name, password = PROBE, secrets.token_hex(16)
    call = sign_on(access, api)
    call("DELETE", f"{USERS}/{name}")
    made = call("POST", USERS, {"user_id": name, "password": password})
    if made.status_code != 404:  # without an authenticator there are no users, and none is needed
        made.raise_for_status()
    try:
        yield name, password
    finally:
        call("DELETE", f"{USERS}/{name}")


@contextmanager
def _session(access: Access, node: Endpoint, login: tuple[str, str]) -> Iterator[mqtt.Client]:
    outcome: queue.Queue[ReasonCode] = queue.Queue()
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=f"{PROBE}-{secrets.token_hex(4)}")
    client.username_pw_set(*login)
    client.on_connect = lambda _, __, ___, reason, ____: outcome.put(reason)
    client.connect_timeout = access.timeout_seconds
    client.connect(node.host, node.port)
    client.loop_start()
    try:
        reason = _within(access, outcome, f"{node.member} did not answer the CONNECT")
        if reason.is_failure:
            raise PermissionError(f"{node.member} refused the connection: {reason}")
        yield client
    finally:
        client.disconnect()
        client.loop_stop()


def _comes_in(access: Access, node: Endpoint) -> bool:
    outcome: queue.Queue[bool] = queue.Queue()
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=f"{PROBE}-{secrets.token_hex(4)}")
    client.on_connect = lambda _, __, ___, reason, ____: outcome.put(not reason.is_failure)
    client.on_disconnect = lambda *_: outcome.put(False)
    client.connect_timeout = access.timeout_seconds
    client.connect(node.host, node.port)
    client.loop_start()
    try:
        return bool(_within(access, outcome, f"{node.member} did not answer the CONNECT"))
    finally:
        client.disconnect()
        client.loop_stop()


def _within(access: Access, outcome: queue.Queue[Any], otherwise: str) -> Any:
    try:
        return outcome.get(timeout=access.timeout_seconds)
    except queue.Empty:
        raise TimeoutError(
            f"{otherwise} within {access.timeout_seconds:.0f} s: timed out"
        ) from None


def _nodes(access: Access, node: Endpoint) -> dict[str, str]:
    """Pod name → state of its node, as one node sees it."""
    seen = sign_on(access, node)("GET", "/nodes").raise_for_status().json()
    return {_pod(entry["node"]): str(entry["node_status"]) for entry in seen}


def _pod(node: str) -> str:
    """`emqx@emqx-0.emqx-headless…` → `emqx-0`."""
    return node.partition("@")[2].partition(".")[0]
