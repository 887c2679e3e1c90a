"""Reads a table of EMQX's data export: a Mnesia backup, which is a disk log of Erlang terms.

The log begins with 8 bytes. Each item has its size, a magic number, an MD5 of the size if it is large, and a term in
Erlang's external format (https://www.erlang.org/doc/apps/erts/erl_ext_dist.html). The constants are from
lib/kernel/src/disk_log.hrl. The first items are header and schema.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import IO, Any

from errors import PermanentError

LOG_MAGIC, CLOSED = bytes((1, 2, 3, 4)), bytes((99, 88, 77, 11))
ITEM_MAGIC = bytes((98, 87, 76, 65))  # BIGMAGICHEAD
MIN_MD5_TERM, MD5_BYTES = 65528, 16
# Limit of an item, which is a row. The largest MQTT message has 256 MiB (MQTT 5.0, 2.1.4).
ITEM_BYTES = 320 << 20
TERM_VERSION = 131


class Atom(str):
    """An Erlang atom. Binaries are bytes here, so an atom never equals a binary."""

    __slots__ = ()


class Opaque(str):
    """A process, port, reference or function: only its kind is kept."""

    __slots__ = ()


def records(file: IO[bytes], table: str) -> Iterator[tuple[Any, ...]]:
    """Rows of a table in a backup.

    Args:
        file: the backup of that table.
        table: its name; each row has it as the record's name.

    Raises:
        PermanentError: it is not a Mnesia backup, is truncated, or has an unknown term.
    """
    if file.read(8) != LOG_MAGIC + CLOSED:
        raise PermanentError(f"table {table}: not a complete Mnesia backup")
    while head := file.read(8):
        if len(head) < 8 or head[4:] != ITEM_MAGIC:
            raise PermanentError(f"table {table}: its backup is damaged")
        (size,) = struct.unpack(">I", head[:4])
        if size >= MIN_MD5_TERM:  # skip the MD5 of the size
            file.read(MD5_BYTES)
        if size > ITEM_BYTES:
            raise PermanentError(
                f"table {table}: an item of {size} bytes; at most {ITEM_BYTES} are allowed"
            )
        item = file.read(size)
        if len(item) < size:
            raise PermanentError(f"table {table}: its backup is truncated")
        term = decode(item)
        if isinstance(term, tuple) and term and term[0] == table and isinstance(term[0], Atom):
            yield term


def decode(data: bytes) -> Any:
    """A term as tuples, lists, dicts and numbers. Binaries become bytes, atoms become `Atom`.

    Raises:
        PermanentError: it is truncated, or has an unknown type.
    """
    try:
        if data[0] != TERM_VERSION:
            raise PermanentError(
                f"an Erlang term of version {data[0]}; only {TERM_VERSION} is supported"
            )
        return _Reader(data, 1).term()
    except (IndexError, struct.error, UnicodeDecodeError) as exc:
        raise PermanentError(f"an Erlang term is damaged: {exc}") from exc


class _Reader:
    def __init__(self, data: bytes, position: int) -> None:
        self._data, self._position = data, position

    def term(self) -> Any:
        """The next term."""
        tag = self._number(1)
        read = READERS.get(tag)
        if read is None:
            raise PermanentError(f"an Erlang term of unknown type {tag}")
        return read(self)

    def _bytes(self, size: int) -> bytes:
        start, self._position = self._position, self._position + size
        if self._position > len(self._data):
            raise IndexError("it is truncated")
        return self._data[start : self._position]

    def _number(self, size: int, *, signed: bool = False) -> int:
        return int.from_bytes(self._bytes(size), "big", signed=signed)

    def _atom(self, length: int, encoding: str) -> Atom:
        return Atom(self._bytes(self._number(length)).decode(encoding))

    def _tuple(self, length: int) -> tuple[Any, ...]:
        return tuple(self.term() for _ in range(self._number(length)))

    def _list(self) -> list[Any]:
        items = [self.term() for _ in range(self._number(4))]
        tail = self.term()
        return items if tail == [] else [*items, tail]

    def _map(self) -> dict[Any, Any]:
        pairs = [(self.term(), self.term()) for _ in range(self._number(4))]
        return {_hashable(key): value for key, value in pairs}

    def _big(self, length: int) -> int:
        size, negative = self._number(length), self._number(1)
        value = int.from_bytes(self._bytes(size), "little")
        return -value if negative else value

    def _bits(self) -> bytes:
        size = self._number(4)
        self._bytes(1)
        return self._bytes(size)

    def _opaque(self, kind: str, *sizes: int) -> Opaque:
        self.term()  # the node
        self._bytes(sum(sizes))
        return Opaque(kind)

    def _reference(self, creation: int) -> Opaque:
        length = self._number(2)
        return self._opaque("reference", creation, 4 * length)

    def _function(self) -> Opaque:
        self._bytes(self._number(4) - 4)  # the size counts itself
        return Opaque("function")

    def _export(self) -> Opaque:
        for _ in range(3):  # module, function, arity
            self.term()
        return Opaque("function")


def _hashable(key: Any) -> Any:
    return tuple(key) if isinstance(key, list) else str(key) if isinstance(key, dict) else key


# https://www.erlang.org/doc/apps/erts/erl_ext_dist.html
READERS: dict[int, Callable[[_Reader], Any]] = {
    70: lambda r: struct.unpack(">d", r._bytes(8))[0],  # NEW_FLOAT_EXT
    77: _Reader._bits,  # BIT_BINARY_EXT
    88: lambda r: r._opaque("process", 12),  # NEW_PID_EXT
    89: lambda r: r._opaque("port", 8),  # NEW_PORT_EXT
    90: lambda r: r._reference(4),  # NEWER_REFERENCE_EXT
    97: lambda r: r._number(1),  # SMALL_INTEGER_EXT
    98: lambda r: r._number(4, signed=True),  # INTEGER_EXT
    100: lambda r: r._atom(2, "latin-1"),  # ATOM_EXT
    103: lambda r: r._opaque("process", 9),  # PID_EXT
    104: lambda r: r._tuple(1),  # SMALL_TUPLE_EXT
    105: lambda r: r._tuple(4),  # LARGE_TUPLE_EXT
    106: lambda r: [],  # NIL_EXT
    107: lambda r: list(r._bytes(r._number(2))),  # STRING_EXT
    108: _Reader._list,  # LIST_EXT
    109: lambda r: r._bytes(r._number(4)),  # BINARY_EXT
    110: lambda r: r._big(1),  # SMALL_BIG_EXT
    111: lambda r: r._big(4),  # LARGE_BIG_EXT
    112: _Reader._function,  # NEW_FUN_EXT
    113: _Reader._export,  # EXPORT_EXT
    114: lambda r: r._reference(1),  # NEW_REFERENCE_EXT
    115: lambda r: r._atom(1, "latin-1"),  # SMALL_ATOM_EXT
    116: _Reader._map,  # MAP_EXT
    118: lambda r: r._atom(2, "utf-8"),  # ATOM_UTF8_EXT
    119: lambda r: r._atom(1, "utf-8"),  # SMALL_ATOM_UTF8_EXT
    120: lambda r: r._opaque("port", 12),  # V4_PORT_EXT
}
