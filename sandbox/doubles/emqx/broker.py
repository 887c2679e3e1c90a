"""The MQTT server of a node: nats-server with an MQTT listener, clustered with those of the other nodes."""

from __future__ import annotations

import json
import queue
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import bcrypt
import httpx
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from sandbox.doubles.emqx.state import State
from sandbox.machine.paths import write_atomic

MQTT_PORT, ROUTE_PORT, MONITOR_PORT = 1883, 4370, 8222
INTERNAL_USER = "$internal"
# A cheap hash on purpose: 200 ms for each user would slow down the sandbox.
BCRYPT_ROUNDS = 4
TIMEOUT_SECONDS = 10.0
# Characters of a topic → characters of the server's subject.
TO_SUBJECT = str.maketrans({"/": ".", "+": "*", "#": ">"})
Message = tuple[str, bytes, int, bool]  # topic, payload, QoS, retain


class Broker:
    """One server.

    Args:
        state: has the users.
        directory: directory for configuration and data.
        anonymous: clients without a user name may connect.
    """

    def __init__(self, state: State, directory: Path, anonymous: bool) -> None:
        self._state = state
        self._directory = directory
        self._anonymous = anonymous
        self._config = directory / "broker.conf"
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    @property
    def address(self) -> str:
        """Its address."""
        return self._state.peers[self._state.name]

    def run(self) -> int:
        """Run the server until it ends."""
        with self._lock:
            self._write()
            program = Path(sys.executable).with_name("nats-server")
            self._process = subprocess.Popen([str(program), "-c", str(self._config)])
        return self._process.wait()

    def reload(self) -> None:
        """Load the current users."""
        with self._lock:
            if self._process is not None and self._write():
                self._process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        """Stop it cleanly."""
        if self._process is not None:
            self._process.terminate()

    def publish(self, messages: Iterable[Message]) -> None:
        """Publish as the broker itself.

        Raises:
            TimeoutError: the server did not accept them in time.
        """
        with Session(self) as session:
            for sent in [session.client.publish(*message) for message in messages]:
                sent.wait_for_publish(TIMEOUT_SECONDS)
                if not sent.is_published():
                    raise TimeoutError("the broker did not take a message in time")
            # messages of QoS 0 on their way are processed first
            session.barrier()

    def retained(self) -> dict[str, tuple[bytes, int]]:
        """Retained messages: topic → payload and QoS.

        Raises:
            TimeoutError: the server did not send them in time.
        """
        found: dict[str, tuple[bytes, int]] = {}

        def receive(_: Any, __: Any, message: mqtt.MQTTMessage) -> None:
            if message.retain:
                found[message.topic] = (bytes(message.payload), message.qos)

        with Session(self, receive) as session:
            session.client.subscribe("#", 2)
            session.barrier()
            session.settle()
        return found

    def monitor(self, pod: str, path: str) -> dict[str, Any]:
        """The monitoring data of a node's server (https://docs.nats.io/running-a-nats-service/nats_admin/monitoring)."""
        url = f"http://{self._state.peers[pod]}:{MONITOR_PORT}/{path}"
        return dict(httpx.get(url, timeout=2.0).raise_for_status().json())

    def _write(self) -> bool:
        state = self._state
        users = [
            {"user": name, "password": user["password_hash"], **_permissions(state.tables, name)}
            for name, user in sorted(state.tables["mqtt_users"].items())
        ]
        # quoted: a password that begins like a number would be parsed as one
        internal = {"user": INTERNAL_USER, "password": f"x{state.tables['internal_password']}"}
        anonymous = [{"user": "$anonymous", "password": "x"}]
        document: dict[str, Any] = {
            "server_name": state.name,
            "host": self.address,
            "port": -1,
            "http": f"{self.address}:{MONITOR_PORT}",
            "jetstream": {"store_dir": str(self._directory / "broker"), "max_file_store": 1 << 30},
            "mqtt": {"host": self.address, "port": MQTT_PORT}
            | ({"no_auth_user": "$anonymous"} if self._anonymous else {}),
            "accounts": {
                "SYS": {"users": [{"user": "$sys", "password": internal["password"]}]},
                "MQTT": {
                    "jetstream": "enabled",
                    "users": [internal, *users, *(anonymous * self._anonymous)],
                },
            },
            "system_account": "SYS",
        }
        if len(state.peers) > 1:  # a single server would wait forever for an election
            document["cluster"] = {
                "name": "emqx",
                "host": self.address,
                "port": ROUTE_PORT,
                "routes": [f"nats://{address}:{ROUTE_PORT}" for address in state.peers.values()],
            }
        text = configuration(document)
        if self._config.exists() and self._config.read_text(encoding="utf-8") == text:
            return False
        write_atomic(self._config, text)
        return True


def configuration(document: dict[str, Any]) -> str:
    """A document in the server's syntax: it supports some of JSON's escapes, and `\\xNN` for the others.

    See nats-server, conf/lex.go: lexStringEscape. Without this the server does not start if a user name has an umlaut.
    """
    text = json.dumps(document, indent=1, ensure_ascii=False)
    return re.sub(r"\\(?:u00(..)|(.))", _escape, text)


def _escape(found: re.Match[str]) -> str:
    if found[1]:
        return f"\\x{found[1]}"
    return {"b": "\\x08", "f": "\\x0c"}.get(found[2], found[0])


def _permissions(tables: dict[str, Any], user: str) -> dict[str, Any]:
    """The permissions of a user if unmatched requests are denied. Rules apply if the built-in source is configured."""
    authorization = tables["authorization"]
    if authorization.get("no_match") != "deny":
        return {}
    sources = [source["type"] for source in authorization.get("sources", [])]
    rules = tables["acl"].get(f"users:{user}", {}).get("rules", [])
    rules = rules if "built_in_database" in sources else []
    found = {}
    for action in ("publish", "subscribe"):
        topics = [
            rule["topic"]
            for rule in rules
            if rule["permission"] == "allow" and rule["action"] in (action, "all")
        ]
        allowed = [one.translate(TO_SUBJECT) for one in topics]
        found[action] = {"allow": allowed} if allowed else {"deny": [">"]}
    return {"permissions": found}


class Session:
    """A short connection of the broker's own user."""

    def __init__(
        self, broker: Broker, receive: Callable[[Any, Any, mqtt.MQTTMessage], None] | None = None
    ) -> None:
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2)
        self.client.username_pw_set(INTERNAL_USER, f"x{broker._state.tables['internal_password']}")
        self.client.on_message = receive
        self.client.on_connect = lambda _, __, ___, reason, ____: self._let_in.put(reason)
        self.client.on_subscribe = lambda _, __, number, *___: self._acknowledged.put(number)
        self._let_in: queue.Queue[Any] = queue.Queue()
        self._acknowledged: queue.Queue[int] = queue.Queue()
        self._address = broker.address

    def __enter__(self) -> Session:
        self.client.connect(self._address, MQTT_PORT)
        self.client.loop_start()
        deadline, said = time.monotonic() + TIMEOUT_SECONDS, "the broker did not answer in time"
        while (left := deadline - time.monotonic()) > 0:
            try:
                reason = self._let_in.get(timeout=left)
            except queue.Empty:
                break
            if not reason.is_failure:
                return self
            # during a reload the server has no users for some milliseconds; paho retries after 1 s
            said = f"the broker refuses its own user: {reason}"
        self.__exit__()
        raise TimeoutError(said)

    def __exit__(self, *_: object) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def barrier(self) -> None:
        """Wait until the server has answered everything that was sent. It answers in order.

        Raises:
            TimeoutError: it did not answer in time.
        """
        _, wanted = self.client.subscribe(f"barrier/{secrets.token_hex(8)}")
        try:
            while self._acknowledged.get(timeout=TIMEOUT_SECONDS) != wanted:
                pass
        except queue.Empty:
            raise TimeoutError("the broker did not answer in time") from None

    def settle(self) -> None:
        """Wait until received messages of QoS 2 are delivered: the server completes their handshakes later.

        Raises:
            TimeoutError: they were not delivered in time.
        """
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            with self.client._in_message_mutex:  # held while a message is delivered
                if not self.client._in_messages:
                    return
            time.sleep(0.01)
        raise TimeoutError("the broker did not hand over its messages in time")


def password_hash(password: str) -> str:
    """A password hash for the broker."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(BCRYPT_ROUNDS, b"2a")).decode()


def is_password(password: str, hashed: str) -> bool:
    """Whether a password matches a hash."""
    return bcrypt.checkpw(password.encode(), hashed.encode())
