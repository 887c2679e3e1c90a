"""EMQX: three brokers that find each other by DNS.

Every node is asked through its management API which nodes it sees, since after a partition each half is content with
itself; then a message is published through one node and received through another, by a user that exists for that
moment only (https://docs.emqx.com/en/emqx/v5.8/admin/api.html). Tried on a double of the API beside real MQTT brokers;
of EMQX itself the documentation and source were read.
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
LEFT_SECONDS = 3600  # a round takes seconds
REFUSED_SECONDS = 2.0  # what is refused for so long is refused by rules


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
    """EMQX' own rules refuse what a check does: that says nothing of its health."""


def _transaction(access: Access, apis: Sequence[Endpoint], first: Endpoint, last: Endpoint) -> str:
    """Receive through one node what is published through another.

    Raises:
        RulesForbid: EMQX' own rules refuse it.
        TimeoutError, RuntimeError: it does not arrive, or as something else.
    """
    token = secrets.token_hex(8)
    topic = f"{TOPIC}/{token}"
    inbox: queue.Queue[bytes] = queue.Queue()
    call = sign_on(access, apis[0])
    with _user(call, token) as login, session(access, first, login) as receiver:
        receiver.on_message = lambda _, __, message: inbox.put(bytes(message.payload))
        _subscribe(access, call, first, receiver, topic)
        with session(access, last, login) as sender:
            found = _received(access, inbox, lambda: sender.publish(topic, token, 1))
        if found is None:
            # a client's publication may be refused without a word; the API's is not subject to authorization
            message = {"topic": topic, "payload": token, "qos": 1}
            there = sign_on(access, next(node for node in apis if node.member == last.member))
            found = _received(access, inbox, lambda: there("POST", "/publish", message))
            if found is not None:
                raise RulesForbid(
                    f"authorization refuses publications to {topic} (no_match, sources)"
                )
    if found is None:
        raise TimeoutError(f"{first.member} did not receive what {last.member} published")
    if found != token.encode():
        raise RuntimeError(f"{first.member} received another message than was published")
    return f"published through {last.member}, received through {first.member}"


def _subscribe(
    access: Access, call: Api, node: Endpoint, receiver: mqtt.Client, topic: str
) -> None:
    """Subscribe, and wait for the acknowledgement.

    A subscription that authorization refuses is acknowledged as a failure, or ends the connection where
    `authorization.deny_action` is disconnect (do_check_sub_authzs/2 in apps/emqx/src/emqx_channel.erl).

    Raises:
        RulesForbid: authorization refuses it.
        TimeoutError: there is no answer.
    """
    answered: queue.Queue[bool | None] = queue.Queue()
    receiver.on_subscribe = lambda _, __, ___, codes, ____: answered.put(
        not any(code.is_failure for code in codes)
    )
    receiver.on_disconnect = lambda *_: answered.put(None)
    granted: bool | None = False
    deadline = time.monotonic() + REFUSED_SECONDS
    while not granted and time.monotonic() < deadline:
        # QoS 0: nothing has to be stored for us, and a message that is lost is published again
        if receiver.subscribe(topic, 0)[0] == mqtt.MQTT_ERR_SUCCESS:
            said = f"{node.member} did not acknowledge the subscription"
            granted = _within(access, answered, said)
        if (
            not granted
        ):  # it may be the node's trouble of a moment; the client connects again by itself
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
    """Publish until a message comes: a subscription reaches the other nodes a moment after its acknowledgement."""
    for _ in range(max(1, round(access.timeout_seconds / 0.5))):
        publish()
        try:
            return inbox.get(timeout=0.5)
        except queue.Empty:
            continue
    return None


@contextmanager
def _user(call: Api, token: str) -> Iterator[tuple[str, str]]:
    """A user for one round; those that killed rounds left are removed, by the hour in their names.

    Raises:
        RulesForbid: clients are not known by EMQX' own database, so that none can be made.
    """
    now = int(time.time())
    name, password = f"{PROBE}-{now:x}-{token}", secrets.token_hex(16)
    made = call("POST", USERS, {"user_id": name, "password": password})
    others = made.status_code == 404 and _authenticators(call)
    if others:
        raise RulesForbid(
            f"clients are identified by {others} only: no user can be created for a check"
        )
    if made.status_code != 404:  # without an authenticator there are no users, and none is needed
        made.raise_for_status()
    try:
        yield name, password
    finally:
        call("DELETE", f"{USERS}/{name}")
        if made.status_code != 404:
            _remove_left(call, now)


def _authenticators(call: Api) -> str:
    answer = call("GET", "/authentication")
    found = answer.json() if answer.is_success else []
    return ", ".join(str(one.get("id", "")) for one in found if one.get("enable", True))


def _remove_left(call: Api, now: int) -> None:
    """Remove users that rounds left which were killed more than an hour ago."""
    answer = call("GET", f"{USERS}?like_user_id={PROBE}&limit=100")
    for row in answer.json().get("data", []) if answer.is_success else []:
        name = str(row["user_id"])
        made = re.fullmatch(rf"{PROBE}(?:-([0-9a-f]+)-[0-9a-f]+)?", name)
        if made and now - int(made[1] or "0", 16) > LEFT_SECONDS:
            call("DELETE", f"{USERS}/{name}")


@contextmanager
def session(access: Access, node: Endpoint, login: tuple[str, str]) -> Iterator[mqtt.Client]:
    """A client that is let in by one node.

    Args:
        access: the way in.
        node: which one.
        login: user and password.

    Raises:
        PermissionError: it is refused.
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
    """Wait until the client is let in, which tries again each second: a node learns of a user a moment after another.

    Raises:
        PermissionError: it is refused to the end.
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
    """Pod name → state of its node, as one node sees it."""
    seen = sign_on(access, node)("GET", "/nodes").raise_for_status().json()
    return {_pod(entry["node"]): str(entry["node_status"]) for entry in seen}


def _pod(node: str) -> str:
    """`emqx@emqx-0.emqx-headless…` → `emqx-0`."""
    return node.partition("@")[2].partition(".")[0]
