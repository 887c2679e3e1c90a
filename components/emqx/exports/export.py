"""Reads and rewrites data exports of EMQX: a compressed tar of configuration and tables, in a folder with the file's
name.

Layout: apps/emqx_management/src/emqx_mgmt_data_backup.erl (v5.8.9). EMQX refuses an upload whose name exists, or whose
folder has another name. So each import is written to a new file with a unique name.
"""

from __future__ import annotations

import base64
import io
import re
import secrets
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, BinaryIO

from archive.streams.unpacking import Unreadable, readable
from components.digest import hash_of
from components.emqx.exports.mnesia import records
from errors import PermanentError

META, CONFIGURATION, TABLES, SUFFIX = "META.hocon", "cluster.hocon", "mnesia/", ".tar.gz"
RETAINED_TABLE = "emqx_retainer_message"
CONFIGURATION_BYTES = 64 << 20  # limit for a configuration, which is read into memory
UPLOAD = "isa-cloud-import-"  # prefix of uploads; they are deleted afterwards


# The API returns no larger payloads (MAX_PAYLOAD_SIZE in apps/emqx_retainer/src/emqx_retainer_api.erl).
SHOWN_BYTES = 1 << 20
REPLACEMENT = "\ufffd"


@dataclass(frozen=True)
class Message:
    """A retained message without its payload: a small export may unpack to gigabytes of payloads.

    Attributes:
        topic: its topic.
        qos: its QoS.
        hashed: its hash, including the payload if the API returns that.
    """

    topic: str
    qos: int
    hashed: int

    @classmethod
    def of(cls, topic: str, qos: int, payload: bytes) -> Message:
        """A message with a payload."""
        shown = payload if len(payload) <= SHOWN_BYTES else b""
        return cls(topic, qos, hash_of(content_of(topic, qos, base64.b64encode(shown).decode())))


def content_of(topic: str, qos: Any, payload: str = "") -> dict[str, Any]:
    """The parts of a retained message that are digested.

    Args:
        topic: its topic.
        qos: its QoS.
        payload: base64; "" to leave it out.
    """
    return {"topic": topic, "qos": qos, "payload": payload}


def is_garbled(topic: str) -> bool:
    """Whether a decoded topic may come from bytes that are not UTF-8."""
    return REPLACEMENT in topic


def garbled(topic: str) -> str:
    """A topic with one replacement character per run: Python and EMQX replace different numbers of bytes."""
    return re.sub(f"{REPLACEMENT}+", REPLACEMENT, topic)


@dataclass(frozen=True)
class Retained:
    """The retained messages of an export.

    Attributes:
        lasting: topic → message, for messages that do not expire.
        expiring: topics of messages that expire.
        garbled: topics that are not UTF-8 → the message does not expire. EMQX accepts such topics without
            `mqtt.strict_mode`. Its API returns neither their names nor their contents.
        unreadable: number of rows that are not messages.
    """

    lasting: dict[str, Message] = field(default_factory=dict)
    expiring: frozenset[str] = frozenset()
    garbled: dict[str, bool] = field(default_factory=dict)
    unreadable: int = 0


@dataclass(frozen=True)
class Export:
    """One export.

    Attributes:
        version: version of the EMQX that wrote it.
        edition: `ce` or `ee`.
        configuration: settings made at run time, as HOCON.
        tables: names of its tables.
        retained: its retained messages; None if it has none or they cannot be read.
        unreadable: why the retained messages cannot be read; "" otherwise.
    """

    version: str
    edition: str
    configuration: str
    tables: frozenset[str]
    retained: Retained | None = None
    unreadable: str = ""

    def has_source(self, root: str, kind: str) -> bool:
        """Whether its configuration has an authenticator or source of a kind.

        Args:
            root: `authentication` or `authorization`.
            kind: `built_in_database`.
        """
        inside = False
        for line in self.configuration.splitlines():
            if line[:1].isalnum() or line[:1] == '"':  # a key of the top level
                inside = re.match(rf'"?{root}"?\W', line) is not None
            if inside and kind in line:
                return True
        return False


def read_export(
    file: BinaryIO, name: str, counts: Callable[[str], bool], all_expire: bool
) -> Export:
    """Read an export.

    Args:
        file: the archive.
        name: its name, for error messages.
        counts: whether to read a retained topic.
        all_expire: the retainer lets every message expire.

    Raises:
        Unreadable: it is truncated, or lacks a file that every export has.
    """
    texts: dict[str, str] = {}
    tables = set()
    retained, unreadable = None, ""
    with readable(name), tarfile.open(fileobj=file, mode="r:gz") as archive:
        for entry in archive:
            path = entry.name.partition("/")[2]
            if path.startswith(TABLES):
                tables.add(path.removeprefix(TABLES))
            # links are ignored: their target may be missing
            content = archive.extractfile(entry) if entry.isfile() else None
            if content is None:
                continue
            if path in (META, CONFIGURATION):
                texts[path] = _text(content, entry.size, f"{path} of {name}")
            elif path == TABLES + RETAINED_TABLE:
                retained, unreadable = _retained(content, counts, all_expire)
    if len(texts) < 2:
        raise Unreadable(f"{name} has no {META} or no {CONFIGURATION}")
    meta = dict(re.findall(r'"?(version|edition)"?\s*[=:]\s*"?([\w.+-]+)', texts[META]))
    return Export(
        meta.get("version", ""), meta.get("edition", ""), texts[CONFIGURATION], frozenset(tables), retained, unreadable
    )  # fmt: skip


def rewritten(
    file: Path,
    selected: Callable[[str], bool] = lambda path: True,
    configured: Callable[[str], str] | None = None,
) -> Path:
    """Copy an export with some of its files, under a unique name in the same directory.

    Args:
        file: the export.
        selected: whether to copy a file; called with its path below the top folder.
        configured: returns the new configuration for the old one.

    Raises:
        Unreadable: the export is damaged.
    """
    stem = f"{UPLOAD}{secrets.token_hex(8)}"
    result = file.with_name(stem + SUFFIX)
    result.touch(mode=0o600)
    with (
        readable(file.name),
        tarfile.open(file, "r:gz") as source,
        tarfile.open(result, "w:gz") as target,
    ):
        for entry in source:
            path = entry.name.partition("/")[2]
            content = source.extractfile(entry) if entry.isfile() and selected(path) else None
            if content is None:
                continue
            entry.name = f"{stem}/{path}"
            if configured and path == CONFIGURATION:
                text = _text(content, entry.size, path)
                body = configured(text).encode()
                entry.size, content = len(body), io.BytesIO(body)
            target.addfile(entry, content)
    return result


def _text(content: IO[bytes], size: int, label: str) -> str:
    if size > CONFIGURATION_BYTES:
        raise Unreadable(f"{label} has {size} bytes; at most {CONFIGURATION_BYTES} are allowed")
    return content.read().decode(errors="replace")


def _retained(
    content: IO[bytes], counts: Callable[[str], bool], all_expire: bool
) -> tuple[Retained | None, str]:
    """The retained messages of a table, or the reason why they cannot be read.

    A record has topic, message and expiry (ms, 0 for none; emqx_retainer_mnesia.erl). The fields of a message:
    apps/emqx_utils/include/emqx_message.hrl.
    """
    lasting: dict[str, Message] = {}
    expiring, broken, unreadable = set[str](), dict[str, bool](), 0
    try:
        for row in records(content, RETAINED_TABLE):
            try:
                _, _, fields, expiry = row
                topic = fields[6].decode(errors="replace")
                message = Message.of(topic, int(fields[2]), fields[7])
            except (ValueError, LookupError, AttributeError, TypeError):
                unreadable += 1
                continue
            stays = not (expiry or all_expire)
            if not counts(topic):
                continue
            if is_garbled(topic):
                broken[garbled(topic)] = broken.get(garbled(topic), False) or stays
            elif stays:
                lasting[topic] = message
            else:
                expiring.add(topic)
    except PermanentError as exc:
        return None, str(exc)
    return Retained(lasting, frozenset(expiring), broken, unreadable), ""
