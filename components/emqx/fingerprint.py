"""The fingerprint of EMQX: users, rights, rules and so on from the API, retained messages from the export.

Left out:

- Passwords: the API does not return them.
- Times and states: they belong to a node, not to the data.
- Messages below `$SYS/`: each node creates them a minute after its start (apps/emqx/src/emqx_sys.erl).

Items that expire are counted separately: bans, API keys and messages. Only the export says which messages expire.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx

from archive.backup.manifest import Manifest, Measure
from components.digest import Digest, expiring, hash_of
from components.emqx.client import USERS, Api, rows
from components.emqx.exports.export import Retained, content_of, garbled, is_garbled
from components.questions import PROBE
from config.text.urls import path_part
from errors import TemporaryError

UNIT = "cluster"
READERS = 4
# With more retained messages than this their contents are not read: each needs a request of 5 ms.
CONTENTS = 20_000
ACL = "/authorization/sources/built_in_database/rules"
RETAINED = "/mqtt/retainer/messages"
MESSAGES = "retained messages"
GARBLED = f"{MESSAGES} whose topic is not UTF-8"
FOREVER = ("infinity", "", None)
# Fields of connectors, actions and sources in the API that are not settings (format_resource/2 and
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
    """A function that returns these fields of a row."""
    return lambda row: {key: row.get(key) for key in keys}


def settings(row: Row) -> Any:
    """The settings of a connector, an action or a source."""
    return {key: _without_files(value) for key, value in row.items() if key not in STATES}


def _without_files(value: Any) -> Any:
    """A value without paths of certificates: they depend on the node's data directory."""
    if isinstance(value, dict):
        return {k: bool(v) if k.endswith("file") else _without_files(v) for k, v in value.items()}
    return [_without_files(item) for item in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class List:
    """A list of the API.

    Attributes:
        path: its path in the API.
        name: field that identifies a row.
        counts: returns the fields of a row that are compared.
        end: field with the expiry of a row; "" if rows do not expire.
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
# The lists that backups of version 1 measured. Their retained messages were read from the API.
FIRST_LISTS = {
    **{item: LISTS[item] for item in ("users", "rights of users", "rights of clients", "rules")},
    "connectors": List("/connectors", "name", only("name", "type", "enable", "server", "url")),
    "actions": List("/actions", "name", only("name", "type", "enable", "connector", "parameters")),
    "banned": List("/banned", "who", only("who", "as", "reason", "until")),
    "dashboard users": LISTS["dashboard users"],
    "API keys": List("/api_key", "name", only("name", "api_key", "enable", "desc")),
}
VERSION = "fingerprint"  # key in a manifest's topology; backups of version 1 lack it
NEWEST = 2


@dataclass(frozen=True)
class Lists:
    """The API's lists, measured.

    Attributes:
        measures: measures of the lists that EMQX returned.
        refused: item → why EMQX refused its list.
    """

    measures: list[Measure] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


def measure_lists(
    api: Api, lists: Mapping[str, List] = LISTS, restored: Restored = lambda item, row: row
) -> Lists:
    """Measure everything but retained messages.

    Args:
        api: the API of one node; it answers for the cluster.
        lists: item → its list.
        restored: turns a row of a scratch broker into the row that the backup has; called with item and row.

    Raises:
        httpx.HTTPError: EMQX does not answer.
    """
    result = Lists()
    for item, listing in lists.items():
        try:
            result.measures.extend(_list(api, item, listing, restored))
        except httpx.HTTPStatusError as exc:
            if exc.response.status_code == 401 or exc.response.status_code >= 500:
                raise
            result.refused[item] = f"HTTP {exc.response.status_code} {exc.response.text[:200]}"
    return result


def measure(
    api: Api,
    manifest: Manifest,
    messages: Retained | None,
    restored: Restored = lambda item, row: row,
) -> list[Measure]:
    """Measure a cluster, to compare it with a backup.

    Args:
        api: the API of one node; it answers for the cluster.
        manifest: the backup's manifest.
        messages: retained messages of the backup's export; None if they cannot be read.
        restored: see `measure_lists`.

    Raises:
        TemporaryError: EMQX does not return a message's content.
        httpx.HTTPError: EMQX does not answer.
    """
    version = int(manifest.topology.get(VERSION, 1))
    measured = {measure.item: measure for measure in manifest.fingerprint}
    if version == 1:
        measures = measure_lists(api, FIRST_LISTS, restored).measures
        return [*measures, _messages(api, listed(api), contents=True)]
    lists = measure_lists(api, restored=restored).measures
    measures = [measure for measure in lists if measure.item in measured]
    if MESSAGES not in measured:
        return measures
    expiring_topics = messages.expiring if messages else frozenset()
    topics = listed(api)
    garbled_measures = []
    if (
        GARBLED in measured
    ):  # a topic that has the replacement character by right is ordinary in other backups
        names = {garbled(topic) for topic in topics if is_garbled(topic)}
        topics = {topic: qos for topic, qos in topics.items() if not is_garbled(topic)}
        garbled_measures = [Measure(unit=UNIT, item=GARBLED, count=len(names), origin="source")]
    lasting = {topic: qos for topic, qos in topics.items() if topic not in expiring_topics}
    contents = bool(measured[MESSAGES].digest) and measured[MESSAGES].count <= CONTENTS
    return [
        *measures,
        _messages(api, lasting, contents=contents),
        expiring(UNIT, f"{MESSAGES} that expire", len(topics) - len(lasting)),
        *garbled_measures,
    ]


def measure_messages(messages: Retained) -> list[Measure]:
    """Measure the retained messages of an export."""
    contents = len(messages.lasting) <= CONTENTS
    digest = Digest()
    for message in messages.lasting.values():
        bare = content_of(message.topic, message.qos)
        digest.add(message.hashed if contents else hash_of(bare))
    return [
        digest.measure(UNIT, MESSAGES, "artefact"),
        expiring(UNIT, f"{MESSAGES} that expire", len(messages.expiring)),
        *_garbled(messages.garbled),
    ]


def _garbled(topics: Mapping[str, bool]) -> Iterator[Measure]:
    """The number of topics that are not UTF-8; a range if some of them expire."""
    lasting = sum(topics.values())
    if topics:
        until = len(topics) if lasting < len(topics) else None
        yield Measure(unit=UNIT, item=GARBLED, count=lasting, until=until, origin="artefact")


def listed(api: Api) -> dict[str, Any]:
    """Retained topics of clients, with their QoS."""
    topics = {str(row["topic"]): row.get("qos") for row in rows(api, RETAINED)}
    return {topic: qos for topic, qos in topics.items() if counts(topic)}


def counts(topic: str) -> bool:
    """Whether a retained message belongs to clients, not to EMQX itself or to a gate."""
    return not topic.startswith(("$SYS/", PROBE))


def _messages(api: Api, topics: Mapping[str, Any], *, contents: bool) -> Measure:
    def read(entry: tuple[str, Any]) -> dict[str, Any]:
        topic, qos = entry
        with_payload = contents and len(topics) <= CONTENTS
        return content_of(topic, qos, _payload(api, topic) if with_payload else "")

    digest = Digest()
    with ThreadPoolExecutor(READERS, thread_name_prefix="retained") as pool:
        for document in pool.map(read, topics.items()):
            digest.add_document(document)
    return digest.measure(UNIT, MESSAGES)


def _payload(api: Api, topic: str) -> str:
    answer = api("GET", f"/mqtt/retainer/message/{path_part(topic)}")
    if answer.status_code == 404:  # deleted after it was listed
        return "gone"
    if answer.status_code != 200:  # a node in trouble; this is not a difference
        raise TemporaryError(f"EMQX, a retained message: HTTP {answer.status_code}", delay=5)
    return str(answer.json().get("payload", ""))


def _list(api: Api, item: str, listing: List, restored: Restored) -> Iterator[Measure]:
    lasting, expiring_count = Digest(), 0
    for row in _own(rows(api, listing.path)):
        if listing.end and row.get(listing.end) not in FOREVER:
            expiring_count += 1
        else:
            lasting.add_document(
                listing.counts(restored(item, row)), str(row[listing.name]) if listing.name else ""
            )
    yield lasting.measure(UNIT, item)
    if listing.end:
        yield expiring(UNIT, f"{item} that expire", expiring_count)


def _own(entries: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Rows without those of gates and verifications, and without empty rules for all clients."""
    for row in entries:
        name = row.get("user_id") or row.get("username") or ""
        if not str(name).startswith(PROBE) and row != {"rules": []}:
            yield row
