"""The MQTT server of a node: nats-server with an MQTT listener, clustered with those of the other nodes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bcrypt
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from deployments.sandbox.doubles.emqx.state import State
from deployments.sandbox.paths import write_atomic

MQTT_PORT, ROUTE_PORT = 1883, 4370
INTERNAL_USER = "$internal"
# Cheap on purpose: the sandbox's users are not worth 200 ms of a core each.
BCRYPT_ROUNDS = 4


class Broker:
    """One server.

    Args:
        state: has the users.
        directory: for configuration and data.
        anonymous: whether clients without a name may come in.
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
        """Where it listens."""
        return self._state.peers[self._state.name]

    def run(self) -> int:
        """Run until it ends."""
        with self._lock:
            self._write()
            program = Path(sys.executable).with_name("nats-server")
            self._process = subprocess.Popen([str(program), "-c", str(self._config)])
        return self._process.wait()

    def reload(self) -> None:
        """Take the users as they are now."""
        with self._lock:
            if self._process is not None and self._write():
                self._process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        """End it in order."""
        if self._process is not None:
            self._process.terminate()

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        """Publish as the broker itself."""
        with Session(self) as client:
            client.publish(topic, payload, qos, retain).wait_for_publish(5)

    def retained(self) -> dict[str, tuple[bytes, int]]:
        """Retained messages: topic → payload and QoS."""
        found: dict[str, tuple[bytes, int]] = {}
        seen = time.monotonic()

        def receive(_: Any, __: Any, message: mqtt.MQTTMessage) -> None:
            nonlocal seen
            seen = time.monotonic()
            if message.retain:
                found[message.topic] = (bytes(message.payload), message.qos)

        with Session(self, receive) as client:
            client.subscribe("#", 2)
            while (
                time.monotonic() - seen < 0.4
            ):  # they come at once, and nothing says that all have
                time.sleep(0.05)
        return found

    def _write(self) -> bool:
        state = self._state
        users = [
            {"user": name, "password": user["password_hash"]}
            for name, user in sorted(state.tables["mqtt_users"].items())
        ]
        # a password that begins like a number would be read as one
        internal = {"user": INTERNAL_USER, "password": f"x{state.tables['internal_password']}"}
        anonymous = [{"user": "$anonymous", "password": "x"}]
        document: dict[str, Any] = {
            "server_name": state.name,
            "host": self.address,
            "port": -1,
            "jetstream": {"store_dir": str(self._directory / "broker"), "max_file_store": 1 << 30},
            "mqtt": {"host": self.address, "port": MQTT_PORT}
            | ({"no_auth_user": "$anonymous"} if self._anonymous else {}),
            "cluster": {
                "name": "emqx",
                "host": self.address,
                "port": ROUTE_PORT,
                "routes": [f"nats://{address}:{ROUTE_PORT}" for address in state.peers.values()],
            },
            "accounts": {
                "SYS": {"users": [{"user": "$sys", "password": internal["password"]}]},
                "MQTT": {
                    "jetstream": "enabled",
                    "users": [internal, *users, *(anonymous * self._anonymous)],
                },
            },
            "system_account": "SYS",
        }
        text = json.dumps(document, indent=1)
        if self._config.exists() and self._config.read_text() == text:
            return False
        write_atomic(self._config, text)
        return True


class Session:
    """A short connection of the broker's own user."""

    def __init__(
        self, broker: Broker, receive: Callable[[Any, Any, mqtt.MQTTMessage], None] | None = None
    ) -> None:
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2)
        self._client.username_pw_set(INTERNAL_USER, f"x{broker._state.tables['internal_password']}")
        self._client.on_message = receive
        self._address = broker.address

    def __enter__(self) -> mqtt.Client:
        self._client.connect(self._address, MQTT_PORT)
        self._client.loop_start()
        return self._client

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def password_hash(password: str) -> str:
    """A hash that the broker checks."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(BCRYPT_ROUNDS, b"2a")).decode()


def is_password(password: str, hashed: str) -> bool:
    """Whether a password has that hash."""
    return bcrypt.checkpw(password.encode(), hashed.encode())
