"""The gate of EMQX: three brokers that find each other by DNS.

The management API of every node reports the nodes that it sees: after a partition each half reports itself as healthy.
The probe publishes a message through one node and receives it through another, with a user created for this round
(https://docs.emqx.com/en/emqx/v5.8/admin/api.html).

Tested with a double of the API and real MQTT brokers, written from EMQX's documentation and source.
"""

from __future__ import annotations

import queue
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from components.access import Access, Endpoint
from components.base import Report, Role, Workload
from components.emqx.client import API_PORT, MQTT_PORT, STATEFULSET, USERS, Api, sign_on
from components.questions import PROBE, Round, ask_members, words
from config.models import Settings

TOPIC = f"{PROBE}/gate"
LEFT_SECONDS = 3600  # a round takes seconds, so an older user was left by a killed round
REFUSED_SECONDS = 2.0  # a subscription refused for this long is refused by a rule


def workloads(settings: Settings) -> tuple[Workload, ...]:
    """The workloads of this component in Kubernetes."""
    return (Workload("StatefulSet", STATEFULSET, settings.components.emqx.members),)


def ask(access: Access) -> Report:
    """Check that all nodes see one another, that a password is required, and a message through two nodes."""
    members = access.settings.components.emqx.members
    nodes = access.endpoints(STATEFULSET, members, API_PORT)
    questions = Round()
    answers = ask_members(nodes, lambda node: _nodes(access, node))
    questions.checks.append(answers.check("nodes answer"))
    if not answers.good:
        questions.note("nodes run", False, "no node answers")
        return Report(tuple(questions.checks))
    running = {
        name: sorted(n for n, state in view.items() if state == "running")
        for name, view in answers.good.items()
    }
    stopped = {
        f"{name} of {member}'s view": state
        for member, view in answers.good.items()
        for name, state in view.items()
        if state != "running"
    }
    largest = max(running.values(), key=len)
    hint = words(stopped) or f"{len(largest)} of {members} nodes"
    questions.note("nodes run", len(largest) >= members and not stopped, hint, critical=False)
    views = {member: ", ".join(view) for member, view in running.items() if view != largest}
    hint = f"{words(views)}: the cluster is split; restart the smaller part" if views else ""
    questions.note("one cluster", not views, hint, critical=False)
    clients = [access.endpoint(name, MQTT_PORT) for name in sorted(answers.good)]
    apis = [node for node in nodes if node.member in answers.good]
    with questions.check("message published and received on another node") as answer:
        try:
            answer.settle(True, _transaction(access, apis, clients[0], clients[-1]))
        except RulesForbid as exc:
            answer.unknown(str(exc))
    with questions.check("no way in without a password", critical=False) as answer:
        refused = not _comes_in(access, clients[0])
        answer.settle(
            refused, "" if refused else "no authenticator is configured: anyone can publish"
        )
    roles = tuple(Role(node.member, "core") for node in apis)
    return Report(tuple(questions.checks), roles)


class RulesForbid(Exception):
    """EMQX's own rules refuse the probe. This does not mean that EMQX is broken."""


def _transaction(
    access: Access, apis: Sequence[Endpoint], receiving_node: Endpoint, sending_node: Endpoint
) -> str:
    """Publish a message through one node and receive it through another.

    Raises:
        RulesForbid: EMQX's own rules refuse it.
        TimeoutError, RuntimeError: the message does not arrive, or another one does.
    """
    token = secrets.token_hex(8)
    topic = f"{TOPIC}/{token}"
    inbox: queue.Queue[bytes] = queue.Queue()
    call = sign_on(access, apis[0])
    with _user(call, token) as login, session(access, receiving_node, login) as receiver:
        receiver.on_message = lambda _, __, message: inbox.put(bytes(message.payload))
        _subscribe(access, call, receiving_node, receiver, topic)
        with session(access, sending_node, login) as sender:
            payload = _received(access, inbox, lambda: sender.publish(topic, token, 1))
        if payload is None:
            # EMQX may drop a client's publication silently; publications by the API need no authorization
            message = {"topic": topic, "payload": token, "qos": 1}
            sending_api = sign_on(
                access, next(node for node in apis if node.member == sending_node.member)
            )
            payload = _received(access, inbox, lambda: sending_api("POST", "/publish", message))
            if payload is not None:
                raise RulesForbid(
                    f"authorization refuses publications to {topic} (no_match, sources)"
                )
    if payload is None:
        raise TimeoutError(
            f"{receiving_node.member} did not receive what {sending_node.member} published"
        )
    if payload != token.encode():
        raise RuntimeError(f"{receiving_node.member} received another message than was published")
    return f"published through {sending_node.member}, received through {receiving_node.member}"


def _subscribe(
    access: Access, call: Api, node: Endpoint, receiver: mqtt.Client, topic: str
) -> None:
    """Subscribe, and wait for the acknowledgement.

    A subscription that authorization refuses is acknowledged as a failure. If `authorization.deny_action` is
    `disconnect`, the connection is closed instead (do_check_sub_authzs/2 in apps/emqx/src/emqx_channel.erl).

    Raises:
        RulesForbid: authorization refuses the subscription.
        TimeoutError: there is no answer.
    """
    acknowledgements: queue.Queue[bool | None] = queue.Queue()
    receiver.on_subscribe = lambda _, __, ___, codes, ____: acknowledgements.put(
        not any(code.is_failure for code in codes)
    )
    receiver.on_disconnect = lambda *_: acknowledgements.put(None)
    granted: bool | None = False
    deadline = time.monotonic() + REFUSED_SECONDS
    while not granted and time.monotonic() < deadline:
        # QoS 0: the broker stores nothing, and a lost message is published again
        if receiver.subscribe(topic, 0)[0] == mqtt.MQTT_ERR_SUCCESS:
            failure = f"{node.member} did not acknowledge the subscription"
            granted = _within(access, acknowledgements, failure)
        if not granted:  # the failure may be temporary; the client reconnects by itself
            time.sleep(0.5)
    receiver.on_disconnect = None
    if granted is None and _deny_action(call) != "disconnect":
        raise ConnectionError(f"{node.member} closed the connection at the subscription")
    if not granted:
        raise RulesForbid(f"authorization refuses subscriptions to {topic} (no_match, sources)")


def _deny_action(call: Api) -> str:
    answer = call("GET", "/authorization/settings")
    return str(answer.json().get("deny_action", "ignore")) if answer.is_success else "ignore"


def _received(
    access: Access, inbox: queue.Queue[bytes], publish: Callable[[], object]
) -> bytes | None:
    """Publish until a message arrives: other nodes learn of a subscription shortly after its acknowledgement."""
    for _ in range(max(1, round(access.timeout_seconds / 0.5))):
        publish()
        try:
            return inbox.get(timeout=0.5)
        except queue.Empty:
            continue
    return None


@contextmanager
def _user(call: Api, token: str) -> Iterator[tuple[str, str]]:
    """A user for one round. Users of killed rounds are removed, by the time in their names.

    Raises:
        RulesForbid: EMQX's own database does not authenticate clients, so no user can be created.
    """
    now = int(time.time())
    name, password = f"{PROBE}-{now:x}-{token}", secrets.token_hex(16)
    response = call("POST", USERS, {"user_id": name, "password": password})
    authenticators = response.status_code == 404 and _authenticators(call)
    if authenticators:
        raise RulesForbid(
            f"clients are identified by {authenticators} only: no user can be created for a check"
        )
    if (
        response.status_code != 404
    ):  # without an authenticator there are no users, and none is needed
        response.raise_for_status()
    try:
        yield name, password
    finally:
        call("DELETE", f"{USERS}/{name}")
        if response.status_code != 404:
            _remove_left(call, now)


def _authenticators(call: Api) -> str:
    answer = call("GET", "/authentication")
    authenticators = answer.json() if answer.is_success else []
    return ", ".join(
        str(authenticator.get("id", ""))
        for authenticator in authenticators
        if authenticator.get("enable", True)
    )


def _remove_left(call: Api, now: int) -> None:
    """Remove users of rounds that were killed more than an hour ago."""
    answer = call("GET", f"{USERS}?like_user_id={PROBE}&limit=100")
    for row in answer.json().get("data", []) if answer.is_success else []:
        name = str(row["user_id"])
        match = re.fullmatch(rf"{PROBE}(?:-([0-9a-f]+)-[0-9a-f]+)?", name)
        if match and now - int(match[1] or "0", 16) > LEFT_SECONDS:
            call("DELETE", f"{USERS}/{name}")


@contextmanager
def session(access: Access, node: Endpoint, login: tuple[str, str]) -> Iterator[mqtt.Client]:
    """A client that is connected to one node.

    Args:
        access: the time limit.
        node: the node.
        login: user and password.

    Raises:
        PermissionError: the node refuses the client.
        TimeoutError: there is no answer.
    """
    outcome: queue.Queue[ReasonCode] = queue.Queue()
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=f"{PROBE}-{secrets.token_hex(4)}")
    client.username_pw_set(*login)
    client.on_connect = lambda _, __, ___, reason, ____: outcome.put(reason)
    client.connect_timeout = access.timeout_seconds
    client.connect(node.host, node.port)
    client.loop_start()
    try:
        _let_in(access, node, outcome)
        yield client
    finally:
        client.disconnect()
        client.loop_stop()


def _let_in(access: Access, node: Endpoint, outcome: queue.Queue[ReasonCode]) -> None:
    """Wait until the node accepts the client. The client retries every second: a node learns of a new user late.

    Raises:
        PermissionError: the node refuses the client until the time limit.
        TimeoutError: there is no answer.
    """
    deadline = time.monotonic() + access.timeout_seconds
    reason = _within(access, outcome, f"{node.member} did not answer the CONNECT")
    while reason.is_failure:
        try:
            reason = outcome.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise PermissionError(f"{node.member} refused the connection: {reason}") from None


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
    """Pod name → state of its node, as reported by one node."""
    entries = sign_on(access, node)("GET", "/nodes").raise_for_status().json()
    return {_pod(entry["node"]): str(entry["node_status"]) for entry in entries}


def _pod(node: str) -> str:
    """`emqx@emqx-0.emqx-headless…` → `emqx-0`."""
    return node.partition("@")[2].partition(".")[0]
