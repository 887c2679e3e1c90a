"""What a data export of EMQX holds: a compressed tar of configuration and tables, below a folder of the file's name.

Layout: apps/emqx_management/src/emqx_mgmt_data_backup.erl (v5.8.9). EMQX refuses an upload under a name that exists,
and a file whose folder has another name. So each import is written to a new file with a name of its own.
"""

from __future__ import annotations

import io
import re
import secrets
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, BinaryIO

from archive.unpacking import Unreadable, readable
from components.emqx.mnesia import records
from errors import PermanentError

META, CONFIGURATION, TABLES, SUFFIX = "META.hocon", "cluster.hocon", "mnesia/", ".tar.gz"
RETAINED_TABLE = "emqx_retainer_message"
CONFIGURATION_BYTES = 64 << 20  # of a configuration, which is read into memory
UPLOAD = "isa-cloud-import-"  # what is uploaded begins so, and is deleted


@dataclass(frozen=True)
class Message:
    """A retained message."""

    topic: str
    qos: int
    payload: bytes


@dataclass(frozen=True)
class Retained:
    """The retained messages of an export.

    Attributes:
        lasting: topic → message, of those that stay until they are replaced.
        expiring: topics of those that go at their own time.
    """

    lasting: dict[str, Message] = field(default_factory=dict)
    expiring: frozenset[str] = frozenset()


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
        raise Unreadable(f"{what} has {size} bytes; {CONFIGURATION_BYTES} are the most")
    return content.read().decode(errors="replace")


def _retained(
    content: IO[bytes], counts: Callable[[str], bool], all_expire: bool
) -> tuple[Retained | None, str]:
    """Retained messages of a table, or why they cannot be read.

    A record is topic, message, expiry (ms, 0 for none; emqx_retainer_mnesia.erl). The fields of a message are those of
    apps/emqx_utils/include/emqx_message.hrl.
    """
    lasting: dict[str, Message] = {}
    gone = set()
    try:
        for _, _, message, expiry in records(content, RETAINED_TABLE):
            topic = message[6].decode()
            if not counts(topic):
                continue
            if expiry or all_expire:
                gone.add(topic)
            else:
                lasting[topic] = Message(topic, int(message[2]), message[7])
    except (PermanentError, ValueError, LookupError, AttributeError, TypeError) as exc:
        return None, str(exc)
    return Retained(lasting, frozenset(gone)), ""
