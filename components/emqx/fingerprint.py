"""What the brokers hold: users, rights, rules and the like by the API, retained messages with their contents.

Passwords are not to be had by the API; that they came back shows when a client signs on. Times and states are left
out: they are the node's, not the data's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from archive.manifest import Measure
from components.digest import Digest
from components.emqx.client import USERS, Api, quoted, rows
from components.questions import PROBE
from errors import TemporaryError

READERS = 4
# Beyond that many retained messages their contents are not read one by one: 5 ms each.
CONTENTS = 20_000
ACL = "/authorization/sources/built_in_database/rules"
# item → path, and what of each entry counts; the first is its name
LISTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "users": (USERS, ("user_id", "is_superuser")),
    "rights of users": (f"{ACL}/users", ("username", "rules")),
    "rights of clients": (f"{ACL}/clients", ("clientid", "rules")),
    "rules": ("/rules", ("id", "name", "sql", "actions", "enable", "description")),
    "connectors": ("/connectors", ("name", "type", "enable", "server", "url")),
    "actions": ("/actions", ("name", "type", "enable", "connector", "parameters")),
    "banned": ("/banned", ("who", "as", "reason", "until")),
    "dashboard users": ("/users", ("username", "role", "description")),
    "API keys": ("/api_key", ("name", "api_key", "enable", "desc")),
}
RETAINED = "/mqtt/retainer/messages"


def measure(api: Api) -> list[Measure]:
    """Measure one cluster.

    Args:
        api: of one node; it answers for all.

    Raises:
        TemporaryError: it does not say what a message holds.
        httpx.HTTPError: it does not answer.
    """
    found = [
        _measure(
            item, ({key: row.get(key) for key in keys} for row in _own(rows(api, path))), keys[0]
        )
        for item, (path, keys) in LISTS.items()
    ]
    return [*found, _measure("retained messages", _retained(api))]


def _retained(api: Api) -> Iterator[dict[str, Any]]:
    topics = [(str(row["topic"]), row.get("qos")) for row in rows(api, RETAINED)]
    topics = [(topic, qos) for topic, qos in topics if not topic.startswith(PROBE)]

    def read(entry: tuple[str, Any]) -> dict[str, Any]:
        topic, qos = entry
        payload = _payload(api, topic) if len(topics) <= CONTENTS else ""
        return {"topic": topic, "qos": qos, "payload": payload}

    with ThreadPoolExecutor(READERS, thread_name_prefix="retained") as pool:
        yield from pool.map(read, topics)


def _payload(api: Api, topic: str) -> str:
    answer = api("GET", f"/mqtt/retainer/message/{quoted(topic)}")
    if answer.status_code == 404:  # since it was listed
        return "gone"
    if answer.status_code != 200:  # a node in trouble says nothing of the message: no difference
        raise TemporaryError(f"EMQX, a retained message: HTTP {answer.status_code}", delay=5)
    return str(answer.json().get("payload", ""))


def _own(found: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Without what gates make."""
    return (row for row in found if PROBE not in (row.get("user_id"), row.get("username")))


def _measure(item: str, entries: Iterable[dict[str, Any]], key: str = "") -> Measure:
    found = Digest()
    for entry in entries:
        found.add_document(entry, str(entry[key]) if key else "")
    return found.measure("cluster", item)
