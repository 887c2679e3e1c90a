"""Reads an RDB file key by key, for a digest that is the same however a server happens to encode a value.

A hash of the file itself would not do: a server that loads it writes another one, since the order of a table and the
encodings of small values are its own affair. So values are decoded: sets, hashes and sorted sets count as sums over
their members, lists and streams in their order. Formats: redis/redis src/rdb.h and src/t_stream.c up to version 13
(8.2), valkey-io/valkey up to 80 (9.1). An unknown one is an error here, not a guess; the backup itself does not
depend on this module.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import BinaryIO

from components.digest import MASK

MAGICS = (b"REDIS", b"VALKEY")
AUX, SELECT, RESIZE, EXPIRE_SECONDS, EXPIRE_MS = 0xFA, 0xFE, 0xFB, 0xFD, 0xFC
FREQUENCY, IDLE, MODULE_AUX, FUNCTION, SLOT_INFO, END = 0xF9, 0xF8, 0xF7, 0xF5, 0xF4, 0xFF


class UnknownFormat(ValueError):
    """The file holds something that this module does not know."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key.

    Attributes:
        name: its bytes.
        kind: string, list, set, hash, sorted set, stream, module or function.
        expires: Unix time in ms; 0 if never.
        digest: of name, kind, expiry and value, 128 bits.
    """

    name: bytes
    kind: str
    expires: int
    digest: int


def read_keys(file: BinaryIO) -> Iterator[Key]:
    """Give every key of an RDB file, and every function library.

    Args:
        file: from its beginning; buffered.

    Raises:
        UnknownFormat: a type, or an operation, that is not known here.
        EOFError: the file was cut.
    """
    reader = _Reader(file)
    reader.header()
    expires = 0
    while True:
        code = reader.byte()
        if code == END:
            return
        if code == EXPIRE_MS:
            expires = struct.unpack("<q", reader.take(8))[0]
        elif code == EXPIRE_SECONDS:
            expires = struct.unpack("<i", reader.take(4))[0] * 1000
        elif code == AUX:
            reader.string()
            reader.string()
        elif code in (SELECT, IDLE):
            reader.length()
        elif code == RESIZE:
            reader.length()
            reader.length()
        elif code == SLOT_INFO:
            for _ in range(3):
                reader.length()
        elif code == FREQUENCY:
            reader.byte()
        elif code == FUNCTION:
            text = reader.string()
            yield Key(b"", "function", 0, _hash(b"function", text))
        elif code == MODULE_AUX:
            reader.length()
            reader.module()
        elif code in TYPES:
            kind, read = TYPES[code]
            name = reader.string()
            value = read(reader, code)
            yield Key(
                name, kind, expires, _hash(kind.encode(), name, struct.pack("<q", expires), value)
            )
            expires = 0
        else:
            raise UnknownFormat(f"type or operation {code} at byte {reader.position}")


class _Reader:
    def __init__(self, file: BinaryIO) -> None:
        self._read = file.read
        self.position = 0

    def header(self) -> None:
        head = self.take(9)
        if not head.startswith(MAGICS):
            raise UnknownFormat(f"begins with {head!r}")

    def take(self, size: int) -> bytes:
        data = self._read(size)
        if len(data) != size:
            raise EOFError(f"cut at byte {self.position + len(data)}")
        self.position += size
        return data

    def byte(self) -> int:
        return self.take(1)[0]

    def length(self) -> int:
        number, encoded = self._length()
        if encoded:
            raise UnknownFormat(f"an encoded length at byte {self.position}")
        return number

    def string(self) -> bytes:
        number, encoded = self._length()
        if not encoded:
            return self.take(number)
        if number < 3:
            return b"%d" % int.from_bytes(self.take(1 << number), "little", signed=True)
        if number == 3:
            packed, size = self.length(), self.length()
            return _decompress(self.take(packed), size)
        raise UnknownFormat(f"string encoding {number} at byte {self.position}")

    def module(self) -> bytes:
        """A module's value: typed items up to an end mark."""
        parts = []
        while code := self.length():
            if code in (1, 2):
                parts.append(b"%d" % self.length())
            elif code == 3:
                parts.append(self.take(4))
            elif code == 4:
                parts.append(self.take(8))
            elif code == 5:
                parts.append(self.string())
            else:
                raise UnknownFormat(f"module item {code} at byte {self.position}")
        return _hash(*parts).to_bytes(16, "big")

    def _length(self) -> tuple[int, bool]:
        first = self.byte()
        kind = first >> 6
        if kind == 0:
            return first & 0x3F, False
        if kind == 1:
            return (first & 0x3F) << 8 | self.byte(), False
        if kind == 3:
            return first & 0x3F, True
        if first == 0x80:
            return int.from_bytes(self.take(4), "big"), False
        if first == 0x81:
            return int.from_bytes(self.take(8), "big"), False
        raise UnknownFormat(f"length {first} at byte {self.position}")


# ---------------------------------------------------------------------- values, by type
def _string(reader: _Reader, _: int) -> bytes:
    return reader.string()


def _module(reader: _Reader, _: int) -> bytes:
    reader.length()  # module id and version
    return reader.module()


def _list(reader: _Reader, code: int) -> bytes:
    items: list[bytes] = []
    if code == 1:
        items = [reader.string() for _ in range(reader.length())]
    elif code == 10:
        items = _ziplist(reader.string())
    else:
        for _ in range(reader.length()):
            plain = code == 18 and reader.length() == 1
            node = reader.string()
            items += [node] if plain else _ziplist(node) if code == 14 else _listpack(node)
    return _hash(*items).to_bytes(16, "big")


def _set(reader: _Reader, code: int) -> bytes:
    if code == 2:
        members = [reader.string() for _ in range(reader.length())]
    elif code == 11:
        members = _intset(reader.string())
    else:
        members = _listpack(reader.string())
    return _sum(_hash(member) for member in members)


def _sorted_set(reader: _Reader, code: int) -> bytes:
    if code == 5:
        pairs = [(reader.string(), reader.take(8)) for _ in range(reader.length())]
    elif code == 3:
        pairs = [(reader.string(), _ascii_score(reader)) for _ in range(reader.length())]
    else:
        items = _listpack(reader.string()) if code == 17 else _ziplist(reader.string())
        pairs = [
            (items[at], struct.pack("<d", float(items[at + 1]))) for at in range(0, len(items), 2)
        ]
    return _sum(_hash(member, score) for member, score in pairs)


def _hash_table(reader: _Reader, code: int) -> bytes:
    """Fields with values, and with an expiry where they may have one (Redis 7.4, Valkey 9)."""
    if code == 4:
        fields = [(reader.string(), reader.string(), 0) for _ in range(reader.length())]
    elif code == 22:  # Valkey: field, value, absolute ms or -1
        fields = [
            (reader.string(), reader.string(), struct.unpack("<q", reader.take(8))[0])
            for _ in range(reader.length())
        ]
        fields = [(field, value, max(expiry, 0)) for field, value, expiry in fields]
    elif code == 24:  # Redis: the earliest expiry, then expiries as differences to it plus one
        earliest = struct.unpack("<q", reader.take(8))[0]
        fields = []
        for _ in range(reader.length()):
            offset = reader.length()
            field, value = reader.string(), reader.string()
            fields.append((field, value, earliest + offset - 1 if offset else 0))
    elif code == 25:
        reader.take(8)
        items = _listpack(reader.string())
        fields = [(items[at], items[at + 1], int(items[at + 2])) for at in range(0, len(items), 3)]
    else:
        items = _listpack(reader.string()) if code == 16 else _ziplist(reader.string())
        fields = [(items[at], items[at + 1], 0) for at in range(0, len(items), 2)]
    return _sum(_hash(f, v, struct.pack("<q", expiry)) for f, v, expiry in fields)


def _stream(reader: _Reader, code: int) -> bytes:
    parts: list[bytes] = []
    for _ in range(reader.length()):
        master = struct.unpack(">QQ", reader.string())
        parts += _entries(master, _listpack(reader.string()))
    count, last = reader.length(), (reader.length(), reader.length())
    parts.append(b"%d %d-%d" % (count, *last))
    if code >= 19:
        first, deleted, added = (
            (reader.length(), reader.length()),
            (reader.length(), reader.length()),
            reader.length(),
        )
        parts.append(b"%d-%d %d-%d %d" % (*first, *deleted, added))
    for _ in range(reader.length()):
        parts += _group(reader, code)
    return _hash(*parts).to_bytes(16, "big")


def _entries(master: tuple[int, ...], items: list[bytes]) -> Iterator[bytes]:
    """Entries of one node: a master entry with the usual fields, then entries as differences to it."""
    valid, deleted, width = int(items[0]), int(items[1]), int(items[2])
    usual = items[3 : 3 + width]
    at = 4 + width  # behind the master entry's closing zero
    for _ in range(valid + deleted):
        flags, ms, sequence = int(items[at]), int(items[at + 1]), int(items[at + 2])
        at += 3
        if flags & 2:  # the same fields as the master entry
            pairs = list(zip(usual, items[at : at + width], strict=True))
            at += width
        else:
            own = int(items[at])
            pairs = [(items[at + 1 + 2 * n], items[at + 2 + 2 * n]) for n in range(own)]
            at += 1 + 2 * own
        at += 1  # number of items, for reading backwards
        if not flags & 1:
            yield b"%d-%d" % (master[0] + ms, master[1] + sequence)
            for field, value in pairs:
                yield field
                yield value


def _group(reader: _Reader, code: int) -> list[bytes]:
    """A consumer group: its position, what is pending for whom; not when its consumers were last seen."""
    parts = [reader.string(), b"%d-%d" % (reader.length(), reader.length())]
    if code >= 19:
        parts.append(b"%d" % reader.length())
    for _ in range(reader.length()):
        identity = reader.take(16)
        reader.take(8)  # time of delivery
        parts += [identity, b"%d" % reader.length()]
    consumers = []
    for _ in range(reader.length()):
        name = reader.string()
        reader.take(16 if code >= 21 else 8)  # times at which it was seen, and was active
        pending = [reader.take(16) for _ in range(reader.length())]
        consumers.append(_hash(name, *pending))
    return [*parts, _sum(consumers)]


TYPES: dict[int, tuple[str, Callable[[_Reader, int], bytes]]] = {
    0: ("string", _string),
    **dict.fromkeys((1, 10, 14, 18), ("list", _list)),
    **dict.fromkeys((2, 11, 20), ("set", _set)),
    **dict.fromkeys((3, 5, 12, 17), ("sorted set", _sorted_set)),
    **dict.fromkeys((4, 13, 16, 22, 24, 25), ("hash", _hash_table)),
    **dict.fromkeys((15, 19, 21), ("stream", _stream)),
    7: ("module", _module),
}


# ---------------------------------------------------------------------- packed forms
def _listpack(data: bytes) -> list[bytes]:
    """https://github.com/antirez/listpack/blob/master/listpack.md"""
    items: list[bytes] = []
    at = 6
    while (first := data[at]) != 0xFF:
        if first < 0x80:
            items.append(b"%d" % first)
            size = 1
        elif first < 0xC0:
            length = first & 0x3F
            items.append(data[at + 1 : at + 1 + length])
            size = 1 + length
        elif first < 0xE0:
            number = (first & 0x1F) << 8 | data[at + 1]
            items.append(b"%d" % (number - (1 << 13) if number >= 1 << 12 else number))
            size = 2
        elif first < 0xF0:
            length = (first & 0x0F) << 8 | data[at + 1]
            items.append(data[at + 2 : at + 2 + length])
            size = 2 + length
        elif first == 0xF0:
            length = int.from_bytes(data[at + 1 : at + 5], "little")
            items.append(data[at + 5 : at + 5 + length])
            size = 5 + length
        elif first <= 0xF4:
            width = (2, 3, 4, 8)[first - 0xF1]
            items.append(
                b"%d" % int.from_bytes(data[at + 1 : at + 1 + width], "little", signed=True)
            )
            size = 1 + width
        else:
            raise UnknownFormat(f"listpack item {first}")
        # and its size once more, for reading backwards, in as many bytes as lpEncodeBacklen takes
        at += size + 1 + (size > 127) + (size >= 16383) + (size >= 2097151) + (size >= 268435455)
    return items


def _ziplist(data: bytes) -> list[bytes]:
    """What listpacks replaced in Redis 7: redis/redis src/ziplist.c."""
    items: list[bytes] = []
    at = 10
    while data[at] != 0xFF:
        at += 1 if data[at] < 0xFE else 5  # size of the item before
        first = data[at]
        if first < 0xC0:
            kind = first >> 6
            if kind == 0:
                length, at = first & 0x3F, at + 1
            elif kind == 1:
                length, at = (first & 0x3F) << 8 | data[at + 1], at + 2
            else:
                length, at = int.from_bytes(data[at + 1 : at + 5], "big"), at + 5
            items.append(data[at : at + length])
            at += length
        elif first >= 0xF1 and first <= 0xFD:
            items.append(b"%d" % (first - 0xF1))
            at += 1
        else:
            width = {0xC0: 2, 0xD0: 4, 0xE0: 8, 0xF0: 3, 0xFE: 1}[first]
            items.append(
                b"%d" % int.from_bytes(data[at + 1 : at + 1 + width], "little", signed=True)
            )
            at += 1 + width
    return items


def _intset(data: bytes) -> list[bytes]:
    width, count = struct.unpack("<II", data[:8])
    form = {2: "h", 4: "i", 8: "q"}[width]
    return [b"%d" % number for number in struct.unpack(f"<{count}{form}", data[8:])]


def _ascii_score(reader: _Reader) -> bytes:
    size = reader.byte()
    special = {253: b"nan", 254: b"inf", 255: b"-inf"}
    return struct.pack("<d", float(special[size] if size in special else reader.take(size)))


def _decompress(data: bytes, size: int) -> bytes:
    """LZF: literals, and copies of what came before (http://oldhome.schmorp.de/marc/liblzf.html)."""
    out = bytearray()
    at = 0
    while at < len(data):
        control = data[at]
        at += 1
        if control < 32:
            out += data[at : at + control + 1]
            at += control + 1
            continue
        length = control >> 5
        if length == 7:
            length += data[at]
            at += 1
        start = len(out) - ((control & 0x1F) << 8 | data[at]) - 1
        at += 1
        length += 2
        if start + length <= len(out):
            out += out[start : start + length]
        else:  # it runs into what it writes
            pattern = out[start:]
            out += (pattern * (length // len(pattern) + 1))[:length]
    if len(out) != size:
        raise UnknownFormat(f"a compressed string of {len(out)} instead of {size} bytes")
    return bytes(out)


# ---------------------------------------------------------------------- digests
def _hash(*parts: bytes) -> int:
    digest = blake2b(digest_size=16)
    for part in parts:
        digest.update(b"%d:" % len(part))
        digest.update(part)
    return int.from_bytes(digest.digest(), "big")


def _sum(hashes: Iterable[int]) -> bytes:
    return (sum(hashes) & MASK).to_bytes(16, "big")
