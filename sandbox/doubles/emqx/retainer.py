"""Retained messages, in addition to those of the MQTT server: expiries, EMQX's `$SYS` topics, and settings.

Sources, v5.8.9: apps/emqx_retainer/src (emqx_retainer.erl: get_expiry_time/1, enabled_backend_config/1;
emqx_retainer_mnesia.erl: page_read/5, tables_to_backup/0) and apps/emqx/src/emqx_sys.erl: a node retains three topics
each time that `sys_topics.sys_msg_interval` has passed, first after its start.
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from sandbox.doubles.emqx.broker import Broker, Message
from sandbox.doubles.emqx.state import State

SYSTEM = "$SYS/"
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
DEFAULTS: dict[str, Any] = {
    "enable": True,
    "msg_expiry_interval": "0s",
    "msg_expiry_interval_override": "disabled",
    "allow_never_expire": True,
    "backend": {"type": "built_in_database", "storage_type": "ram", "enable": True},
    "external_backends": {},
}


@dataclass(frozen=True)
class Kept:
    """A retained message.

    Attributes:
        payload: its bytes.
        qos: its quality of service.
        expiry: when it expires, in ms since 1970; 0 for never.
    """

    payload: bytes
    qos: int
    expiry: int = 0


class Retainer:
    """The retained messages of all nodes, as one node sees them.

    Args:
        state: shared tables.
        broker: keeps the clients' messages.
        name: name of this node.
        clock: seconds since 1970.
    """

    def __init__(
        self, state: State, broker: Broker, name: str, clock: Callable[[], float] = time.time
    ) -> None:
        self._state, self._broker, self._name, self._clock = state, broker, name, clock

    @property
    def config(self) -> dict[str, Any]:
        """All settings."""
        return {**DEFAULTS, **self._state.tables["retainer"]}

    def configure(self, given: dict[str, Any]) -> None:
        """Change settings at run time."""
        self._state.change(lambda tables: tables["retainer"].update(given))

    @property
    def built_in(self) -> bool:
        """Whether messages are kept in EMQX's own database."""
        return bool(self.config["backend"].get("enable", True))

    @property
    def enabled(self) -> bool:
        """Whether messages are retained at all."""
        return bool(self.config["enable"])

    def all(self) -> dict[str, Kept]:
        """Topic → message, without expired ones."""
        expiries, now = self._state.tables["expiry"], self._clock() * 1000
        found = {
            topic: Kept(payload, qos, int(expiries.get(topic, 0)))
            for topic, (payload, qos) in self._broker.retained().items()
        }
        for topic, payload in self._state.tables["sys"].items():
            found[topic] = Kept(base64.b64decode(payload), 0)
        return {t: one for t, one in found.items() if not one.expiry or one.expiry > now}

    def publish(self, messages: Iterable[tuple[Message, int]]) -> None:
        """Publish messages, each with its expiry in seconds (0 for none)."""
        given = list(messages)
        deadlines = {
            topic: int((self._clock() + seconds) * 1000) if seconds else 0
            for (topic, _, _, retain), seconds in given
            if retain
        }
        self._broker.publish([message for message, _ in given])
        self._remember(deadlines)

    def restore(self, messages: dict[str, Kept]) -> None:
        """Import messages of an export over the existing ones."""
        system = {
            topic: base64.b64encode(kept.payload).decode()
            for topic, kept in messages.items()
            if topic.startswith(SYSTEM)
        }
        others = {t: k for t, k in messages.items() if t not in system}
        if others:
            self._broker.publish([(t, k.payload, k.qos, True) for t, k in others.items()])
        self._remember({topic: kept.expiry for topic, kept in others.items()})
        if system:
            self._state.change(lambda tables: tables["sys"].update(system))

    def tell_of_itself(self) -> None:
        """Retain the node's own messages."""
        running = [name for name in sorted(self._state.peers) if name not in self._state.away]
        said = {
            f"{SYSTEM}brokers": ",".join(running),
            f"{SYSTEM}brokers/{self._name}/version": "5.8.9",
            f"{SYSTEM}brokers/{self._name}/sysdescr": "EMQX",
        }
        rows = {topic: base64.b64encode(text.encode()).decode() for topic, text in said.items()}
        self._state.change(lambda tables: tables["sys"].update(rows))

    def _remember(self, deadlines: dict[str, int]) -> None:
        known = self._state.tables["expiry"]
        if not any(deadlines.values()) and not deadlines.keys() & known.keys():
            return

        def edit(tables: dict[str, Any]) -> None:
            for topic, deadline in deadlines.items():
                tables["expiry"].pop(topic, None)
                if deadline:
                    tables["expiry"][topic] = deadline

        self._state.change(edit)


def seconds(text: str) -> float:
    """Seconds of a duration in EMQX's syntax: `1m`, `500ms`."""
    found = re.fullmatch(r"(\d+)(ms|s|m|h)", text)
    if found is None:
        raise ValueError(f"no duration: {text!r}")
    return int(found[1]) * UNITS[found[2]]
