"""The table of contents of a dump in pg_dump's custom format: what is in it, in which order, and who owns it.

`pg_restore --list` prints the same with spaces between names that may hold spaces, so that a table's name could pass
for another owner. Here the file itself is read, of format 1.12 (PostgreSQL 9.0) or newer: `ReadHead` and `ReadToc` in
src/bin/pg_dump/pg_backup_archiver.c, `_ReadExtraToc` in pg_backup_custom.c.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from errors import PermanentError

MAGIC, CUSTOM = b"PGDMP", 1  # archCustom in pg_backup_archiver.h
OLDEST, NEWEST = (1, 12), (1, 16)
PRE_DATA, DATA, POST_DATA = 2, 3, 4  # teSection in pg_backup.h; 1 is of no section
POSITION_UNKNOWN, POSITION_KNOWN = 1, 2  # K_OFFSET_… in pg_backup_archiver.h
LONGEST = 1 << 30  # bytes of one text


@dataclass(frozen=True)
class Entry:
    """One thing that pg_restore makes, fills or grants.

    Attributes:
        number: that a list for `pg_restore -L` names it by.
        kind: `TABLE`, `TABLE DATA`, `FK CONSTRAINT`, …
        section: of a restore.
        schema: "" where it has none.
        name: as pg_dump calls it; of a constraint or a trigger with its table's.
        owner: role; "" where it has none.
        definition: SQL that makes it; of rows the COPY that takes them.
        needs: numbers of what it depends on.
    """

    number: int
    kind: str
    section: int
    schema: str
    name: str
    owner: str
    definition: str
    needs: tuple[int, ...]


def read_entries(path: Path) -> list[Entry]:
    """What a dump holds, in the order in which pg_restore goes through it.

    Raises:
        PermanentError: it is no dump in the custom format, or of a version that is not known here.
    """
    with path.open("rb") as file:
        return _Contents(file).entries()


def replace_statements(
    file: BinaryIO, statements: Callable[[list[Entry]], Mapping[int, str]]
) -> bytes:
    """What a dump begins with instead, so that other statements fill its tables.

    The positions of its rows change with it. pg_restore searches for rows whose position is not known, as it does for
    all rows of a dump that was written to a pipe.

    Args:
        file: of the dump; is read up to its first row.
        statements: gives the statement for each entry's number; entries that it leaves out keep theirs.

    Raises:
        PermanentError: it is no dump in the custom format, or of a version that is not known here.
    """
    contents = _Contents(file)
    entries = contents.entries()
    return contents.head_with(statements(entries))


# ---------------------------------------------------------------------- inside
class _Contents:
    def __init__(self, file: BinaryIO) -> None:
        self._file, self._head = file, bytearray()
        self._copies: dict[int, tuple[int, int]] = {}  # where the COPY of an entry's rows stands
        self._positions: list[int] = []  # where it stands whether a position is known
        if self._bytes(len(MAGIC)) != MAGIC:
            raise PermanentError("a database dump in the backup is not a pg_dump archive")
        self._version = (self._byte(), self._byte())
        self._byte()  # revision
        self._int_bytes, self._offset_bytes = self._byte(), self._byte()
        if self._byte() != CUSTOM or not OLDEST <= self._version <= NEWEST:
            major, minor = self._version
            raise PermanentError(
                f"a dump has format {major}.{minor}, which is not supported, so pg_restore was not started: custom "
                f"format {OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]} is supported"
            )

    def entries(self) -> list[Entry]:
        if self._version >= (1, 15):
            self._byte()  # how it is compressed
        else:
            self._int()
        for _ in range(7):  # when it was made
            self._int()
        for _ in range(3):  # database, version of the server and of pg_dump
            self._text()
        return [self._entry() for _ in range(self._int())]

    def head_with(self, statements: Mapping[int, str]) -> bytes:
        """All that was read, with other statements."""
        head, pieces, done = bytearray(self._head), list[bytes](), 0
        for at in self._positions:
            head[at] = POSITION_UNKNOWN if head[at] == POSITION_KNOWN else head[at]
        for number, (begin, end) in self._copies.items():
            if number in statements:
                text = statements[number].encode(errors="surrogateescape")
                pieces += [bytes(head[done:begin]), self._packed(text)]
                done = end
        return b"".join((*pieces, head[done:]))

    def _packed(self, text: bytes) -> bytes:
        """As `WriteStr` in pg_backup_archiver.c writes it."""
        return b"\0" + len(text).to_bytes(self._int_bytes, "little") + text

    def _entry(self) -> Entry:
        number, _ = self._int(), self._int()
        self._text(), self._text()  # object identifiers of the source
        name, kind, section = self._text(), self._text(), self._int()
        definition, _, begin = self._text(), self._text(), len(self._head)
        copied = self._text()
        self._copies[number] = (begin, len(self._head))
        schema, _ = self._text(), self._text()
        if self._version >= (1, 14):
            self._text()  # access method
        if self._version >= (1, 16):
            self._int()  # kind of relation
        owner, _ = self._text(), self._text()
        needs = []
        while (need := self._text_or_none()) is not None:
            needs.append(int(need))
        self._positions.append(len(self._head))
        self._bytes(1 + self._offset_bytes)  # where its rows are
        text = definition or copied
        return Entry(number, kind, section, schema, name, owner, text, tuple(needs))

    def _bytes(self, count: int) -> bytes:
        found = self._file.read(count)
        if len(found) != count:
            raise PermanentError(
                "a dump is truncated within its table of contents: pg_restore cannot read it"
            )
        self._head += found
        return found

    def _byte(self) -> int:
        return self._bytes(1)[0]

    def _int(self) -> int:
        negative, value = self._byte(), int.from_bytes(self._bytes(self._int_bytes), "little")
        return -value if negative else value

    def _text(self) -> str:
        return self._text_or_none() or ""

    def _text_or_none(self) -> str | None:
        length = self._int()
        if length > LONGEST:
            raise PermanentError("a dump's table of contents has a text of more than 1 GiB")
        return None if length < 0 else self._bytes(length).decode(errors="surrogateescape")
