"""What a data export of EMQX holds: a compressed tar of configuration and tables, below a folder of the file's name.

Layout: apps/emqx_management/src/emqx_mgmt_data_backup.erl (v5.8.9). EMQX refuses an upload under a name that exists,
and a file whose folder has another name. So each import is written to a new file with a name of its own.
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

from archive.unpacking import Unreadable, readable
from components.digest import hash_of
from components.emqx.mnesia import records
from errors import PermanentError

META, CONFIGURATION, TABLES, SUFFIX = "META.hocon", "cluster.hocon", "mnesia/", ".tar.gz"
RETAINED_TABLE = "emqx_retainer_message"
CONFIGURATION_BYTES = 64 << 20  # of a configuration, which is read into memory
UPLOAD = "isa-cloud-import-"  # what is uploaded begins so, and is deleted


# The API gives no contents of larger ones (MAX_PAYLOAD_SIZE in apps/emqx_retainer/src/emqx_retainer_api.erl).
SHOWN_BYTES = 1 << 20
REPLACEMENT = "\ufffd"


@dataclass(frozen=True)
class Message:
    """A retained message, without its payload: a small export may unpack to gigabytes of these.

    Attributes:
        topic: of it.
        qos: of it.
        hashed: hash of it with its payload, where the API shows that.
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
    """What of a retained message is digested.

    Args:
        payload: base64; "" where the message counts without it.
    """
    return {"topic": topic, "qos": qos, "payload": payload}


def is_garbled(topic: str) -> bool:
    """Whether a topic as text may stand for one that is not UTF-8."""
    return REPLACEMENT in topic


def garbled(topic: str) -> str:
    """A topic whose broken bytes are one character: Python and EMQX replace different numbers of bytes by one."""
    return re.sub(f"{REPLACEMENT}+", REPLACEMENT, topic)


@dataclass(frozen=True)
class Retained:
    """The retained messages of an export.

    Attributes:
        lasting: topic → message, of those that stay until they are replaced.
        expiring: topics of those that go at their own time.
        garbled: topic → whether it stays, of those whose topic is not UTF-8. EMQX takes such topics where
            `mqtt.strict_mode` is off, and its API neither names them nor gives their contents.
        unreadable: number of other rows, which hold no message.
    """

    lasting: dict[str, Message] = field(default_factory=dict)
    expiring: frozenset[str] = frozenset()
    garbled: dict[str, bool] = field(default_factory=dict)
    unreadable: int = 0


@dataclass(frozen=True)
class Export:
    """One export.

    Attributes:
        version: of the EMQX that made it.
        edition: `ce` or `ee`.
        configuration: what was set at run time, HOCON.
        tables: names of those that it has.
        retained: its retained messages; None where it has none or they cannot be read.
        unreadable: why they cannot be read; "" where they can or are not there.
    """

    version: str
    edition: str
    configuration: str
    tables: frozenset[str]
    retained: Retained | None = None
    unreadable: str = ""

    def has_source(self, root: str, kind: str) -> bool:
        """Whether its configuration has, below a top-level key, something of a backend or a type.

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
        name: of it, for messages.
        counts: whether a retained topic is to be looked at.
        all_expire: whether the retainer lets every message expire.

    Raises:
        Unreadable: it is cut, or lacks what every export has.
    """
    found: dict[str, str] = {}
    tables = set()
    retained, unreadable = None, ""
    with readable(name), tarfile.open(fileobj=file, mode="r:gz") as archive:
        for entry in archive:
            path = entry.name.partition("/")[2]
            if path.startswith(TABLES):
                tables.add(path.removeprefix(TABLES))
            # no link: what it leads to need not be there
            content = archive.extractfile(entry) if entry.isfile() else None
            if content is None:
                continue
            if path in (META, CONFIGURATION):
                found[path] = _text(content, entry.size, f"{path} of {name}")
            elif path == TABLES + RETAINED_TABLE:
                retained, unreadable = _retained(content, counts, all_expire)
    if len(found) < 2:
        raise Unreadable(f"{name} has no {META} or no {CONFIGURATION}")
    meta = dict(re.findall(r'"?(version|edition)"?\s*[=:]\s*"?([\w.+-]+)', found[META]))
    return Export(
        meta.get("version", ""), meta.get("edition", ""), found[CONFIGURATION], frozenset(tables), retained, unreadable
    )  # fmt: skip


def rewritten(
    file: Path,
    wanted: Callable[[str], bool] = lambda path: True,
    configured: Callable[[str], str] | None = None,
) -> Path:
    """An export with some of another's files, under a name of its own that no other upload has; beside it.

    Args:
        file: the export.
        wanted: whether it is to have a path below its folder.
        configured: gives the configuration that it is to have for the other's.

    Raises:
        Unreadable: it is no sound archive.
    """
    stem = f"{UPLOAD}{secrets.token_hex(8)}"
    made = file.with_name(stem + SUFFIX)
    made.touch(mode=0o600)
    with (
        readable(file.name),
        tarfile.open(file, "r:gz") as source,
        tarfile.open(made, "w:gz") as target,
    ):
        for entry in source:
            path = entry.name.partition("/")[2]
            content = source.extractfile(entry) if entry.isfile() and wanted(path) else None
            if content is None:
                continue
            entry.name = f"{stem}/{path}"
            if configured and path == CONFIGURATION:
                made_of = _text(content, entry.size, path)
                body = configured(made_of).encode()
                entry.size, content = len(body), io.BytesIO(body)
            target.addfile(entry, content)
    return made


def _text(content: IO[bytes], size: int, what: str) -> str:
    if size > CONFIGURATION_BYTES:
        raise Unreadable(f"{what} has {size} bytes; at most {CONFIGURATION_BYTES} are allowed")
    return content.read().decode(errors="replace")


def _retained(
    content: IO[bytes], counts: Callable[[str], bool], all_expire: bool
) -> tuple[Retained | None, str]:
    """Retained messages of a table, or why they cannot be read.

    A record is topic, message, expiry (ms, 0 for none; emqx_retainer_mnesia.erl). The fields of a message are those of
    apps/emqx_utils/include/emqx_message.hrl.
    """
    lasting: dict[str, Message] = {}
    gone, broken, unreadable = set[str](), dict[str, bool](), 0
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
                gone.add(topic)
    except PermanentError as exc:
        return None, str(exc)
    return Retained(lasting, frozenset(gone), broken, unreadable), ""
