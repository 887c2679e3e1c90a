"""What the brokers hold: users, rights, rules and the like by the API, retained messages as the export has them.

Passwords are not to be had by the API; that they came back shows when a client signs on. Times and states are left
out: they are the node's, not the data's. So is what EMQX itself retains below `$SYS/` (apps/emqx/src/emqx_sys.erl), on
each node a minute after its start. What goes at its own time is counted by itself: bans with an end, API keys with an
expiry, and messages with one, which only the export tells from others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx

from archive.manifest import Manifest, Measure
from components.digest import Digest, expiring, hash_of
from components.emqx.client import USERS, Api, rows
from components.emqx.export import Retained, content_of, garbled, is_garbled
from components.questions import PROBE
from config.urls import path_part
from errors import TemporaryError

UNIT = "cluster"
READERS = 4
# Beyond that many retained messages their contents are not read one by one: 5 ms each.
CONTENTS = 20_000
ACL = "/authorization/sources/built_in_database/rules"
RETAINED = "/mqtt/retainer/messages"
MESSAGES = "retained messages"
GARBLED = f"{MESSAGES} whose topic is not UTF-8"
FOREVER = ("infinity", "", None)
# What the API shows of connectors, actions and sources beside their settings (format_resource/2 and
# format_connector_info/1 in emqx_connector_api.erl, format_bridge_info/4 in emqx_bridge_v2_api.erl, v5.8.9).
STATES = frozenset(
    {
        "status", "status_reason", "error", "node", "node_status", "created_at", "last_modified_at",
        "rules", "actions", "sources",
    }
)  # fmt: skip
Row = Mapping[str, Any]
Restored = Callable[[str, Row], Row]


def only(*keys: str) -> Callable[[Row], Any]:
    """Of a row these fields."""
    return lambda row: {key: row.get(key) for key in keys}


def settings(row: Row) -> Any:
    """Of a connector, an action or a source what it is set to."""
    return {key: _without_files(value) for key, value in row.items() if key not in STATES}


def _without_files(value: Any) -> Any:
    """Without the paths of certificates, which lie below each node's data directory."""
    if isinstance(value, dict):
        return {k: bool(v) if k.endswith("file") else _without_files(v) for k, v in value.items()}
    return [_without_files(one) for one in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class List:
    """A list of the API.

    Attributes:
        path: where it is.
        name: field that tells its rows apart.
        counts: what of a row counts.
        end: field that says when a row goes, "" where none does.
    """

    path: str
    name: str
    counts: Callable[[Row], Any]
    end: str = ""


LISTS = {
    "users": List(USERS, "user_id", only("user_id", "is_superuser")),
    "rights of users": List(f"{ACL}/users", "username", only("username", "rules")),
    "rights of clients": List(f"{ACL}/clients", "clientid", only("clientid", "rules")),
    "rights of all": List(f"{ACL}/all", "", only("rules")),
    "rules": List("/rules", "id", only("id", "name", "sql", "actions", "enable", "description")),
    "connectors": List("/connectors", "name", settings),
    "actions": List("/actions", "name", settings),
    "sources": List("/sources", "name", settings),
    "bridges": List("/bridges", "name", only("name", "type", "enable")),
    "banned": List("/banned", "who", only("who", "as", "reason", "until"), "until"),
    "dashboard users": List("/users", "username", only("username", "role", "description")),
    "API keys": List(
        "/api_key", "name", only("name", "api_key", "enable", "desc", "role"), "expired_at"
    ),
}
# As sets of the first version were measured; retained messages are then read from the API as well.
FIRST_LISTS = {
    **{item: LISTS[item] for item in ("users", "rights of users", "rights of clients", "rules")},
    "connectors": List("/connectors", "name", only("name", "type", "enable", "server", "url")),
    "actions": List("/actions", "name", only("name", "type", "enable", "connector", "parameters")),
    "banned": List("/banned", "who", only("who", "as", "reason", "until")),
    "dashboard users": LISTS["dashboard users"],
    "API keys": List("/api_key", "name", only("name", "api_key", "enable", "desc")),
}
VERSION = "fingerprint"  # its place in a manifest's topology; sets of version 1 have none
NEWEST = 2


@dataclass(frozen=True)
class Lists:
    """The API's lists, measured.

    Attributes:
        measures: of those that it gave.
        refused: item → why it did not give that one.
    """

    measures: list[Measure] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


def measure_lists(
    api: Api, lists: Mapping[str, List] = LISTS, restored: Restored = lambda item, row: row
) -> Lists:
    """Measure all but retained messages.

    Args:
        api: of one node; it answers for all.
        lists: item → where it is.
        restored: gives the row that a backup has for one of a scratch broker, by the list's item.

    Raises:
        httpx.HTTPError: it does not answer.
    """
    found = Lists()
    for item, one in lists.items():
        try:
            found.measures.extend(_list(api, item, one, restored))
        except httpx.HTTPStatusError as exc:
            if exc.response.status_code == 401 or exc.response.status_code >= 500:
                raise
            found.refused[item] = f"HTTP {exc.response.status_code} {exc.response.text[:200]}"
    return found


def measure(
    api: Api,
    manifest: Manifest,
    messages: Retained | None,
    restored: Restored = lambda item, row: row,
) -> list[Measure]:
    """Measure a cluster, to compare it with a backup.

    Args:
        api: of one node; it answers for all.
        manifest: of the backup.
        messages: retained ones of its export, if they can be read.
        restored: as of `measure_lists`.

    Raises:
        TemporaryError: it does not say what a message holds.
        httpx.HTTPError: it does not answer.
    """
    version = int(manifest.topology.get(VERSION, 1))
    measured = {measure.item: measure for measure in manifest.fingerprint}
    if version == 1:
        found = measure_lists(api, FIRST_LISTS, restored).measures
        return [*found, _messages(api, listed(api), contents=True)]
    lists = measure_lists(api, restored=restored).measures
    found = [one for one in lists if one.item in measured]
    if MESSAGES not in measured:
        return found
    gone = messages.expiring if messages else frozenset()
    topics = listed(api)
    found_garbled = []
    if (
        GARBLED in measured
    ):  # a topic that has the replacement character by right is ordinary in other backups
        names = {garbled(topic) for topic in topics if is_garbled(topic)}
        topics = {topic: qos for topic, qos in topics.items() if not is_garbled(topic)}
        found_garbled = [Measure(unit=UNIT, item=GARBLED, count=len(names), origin="source")]
    lasting = {topic: qos for topic, qos in topics.items() if topic not in gone}
    contents = bool(measured[MESSAGES].digest) and measured[MESSAGES].count <= CONTENTS
    return [
        *found,
        _messages(api, lasting, contents=contents),
        expiring(UNIT, f"{MESSAGES} that expire", len(topics) - len(lasting)),
        *found_garbled,
    ]


def measure_messages(messages: Retained) -> list[Measure]:
    """Measure the retained messages of an export."""
    contents = len(messages.lasting) <= CONTENTS
    found = Digest()
    for message in messages.lasting.values():
        bare = content_of(message.topic, message.qos)
        found.add(message.hashed if contents else hash_of(bare))
    return [
        found.measure(UNIT, MESSAGES, "artefact"),
        expiring(UNIT, f"{MESSAGES} that expire", len(messages.expiring)),
        *_garbled(messages.garbled),
    ]


def _garbled(topics: Mapping[str, bool]) -> Iterator[Measure]:
    """The number of topics that are not UTF-8; up to as many, where some of them expire."""
    lasting = sum(topics.values())
    if topics:
        until = len(topics) if lasting < len(topics) else None
        yield Measure(unit=UNIT, item=GARBLED, count=lasting, until=until, origin="artefact")


def listed(api: Api) -> dict[str, Any]:
    """Retained topics of clients, with their QoS."""
    found = {str(row["topic"]): row.get("qos") for row in rows(api, RETAINED)}
    return {topic: qos for topic, qos in found.items() if counts(topic)}


def counts(topic: str) -> bool:
    """Whether a retained message is the clients': not of EMQX itself, nor of a gate."""
    return not topic.startswith(("$SYS/", PROBE))


def _messages(api: Api, topics: Mapping[str, Any], *, contents: bool) -> Measure:
    def read(entry: tuple[str, Any]) -> dict[str, Any]:
        topic, qos = entry
        shown = contents and len(topics) <= CONTENTS
        return content_of(topic, qos, _payload(api, topic) if shown else "")

    found = Digest()
    with ThreadPoolExecutor(READERS, thread_name_prefix="retained") as pool:
        for document in pool.map(read, topics.items()):
            found.add_document(document)
    return found.measure(UNIT, MESSAGES)


def _payload(api: Api, topic: str) -> str:
    answer = api("GET", f"/mqtt/retainer/message/{path_part(topic)}")
    if answer.status_code == 404:  # since it was listed
        return "gone"
    if answer.status_code != 200:  # a node in trouble says nothing of the message: no difference
        raise TemporaryError(f"EMQX, a retained message: HTTP {answer.status_code}", delay=5)
    return str(answer.json().get("payload", ""))


def _list(api: Api, item: str, one: List, restored: Restored) -> Iterator[Measure]:
    lasting, gone = Digest(), 0
    for row in _own(rows(api, one.path)):
        if one.end and row.get(one.end) not in FOREVER:
            gone += 1
        else:
            lasting.add_document(
                one.counts(restored(item, row)), str(row[one.name]) if one.name else ""
            )
    yield lasting.measure(UNIT, item)
    if one.end:
        yield expiring(UNIT, f"{item} that expire", gone)


def _own(found: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Without what gates and proofs make, and without rights of all that allow and deny nothing."""
    for row in found:
        name = row.get("user_id") or row.get("username") or ""
        if not str(name).startswith(PROBE) and row != {"rules": []}:
            yield row
