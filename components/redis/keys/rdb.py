"""Reads an RDB file key by key and digests the values, independent of their encoding.

A hash of the file cannot be used: a server that loads it writes a different file, with another order and other
encodings of small values. So values are decoded. Sets, hashes and sorted sets are digested as sums over their members,
lists and streams in their order. A value may be larger than this process's memory, so it is digested as it is read.

Formats: redis/redis src/rdb.h and src/t_stream.c up to version 13 (8.2), valkey-io/valkey up to 80 (9.1). An unknown
format is an error. The backup itself does not depend on this module.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import BinaryIO

from components.digest import MASK, Digest
from components.redis.keys.packed import UnknownFormat as UnknownFormat
from components.redis.keys.packed import decompress, intset, listpack, ziplist

# Exceptions from decoding a broken value.
BROKEN = (LookupError, ValueError, ArithmeticError, MemoryError, struct.error)
MAGICS = REDIS, VALKEY = b"REDIS", b"VALKEY"
# DUMP adds type, version and checksum to a value (redis/redis src/cluster.c, `createDumpPayload`).
DUMP_BYTES = 1 + 2 + 8
AUX, SELECT, RESIZE, EXPIRE_SECONDS, EXPIRE_MS = 0xFA, 0xFE, 0xFB, 0xFD, 0xFC
FREQUENCY, IDLE, MODULE_AUX, FUNCTION, SLOT_INFO, END = 0xF9, 0xF8, 0xF7, 0xF5, 0xF4, 0xFF


@dataclass(frozen=True, slots=True)
class Key:
    """One key.

    Attributes:
        name: the key's bytes, or the name of a function library.
        kind: string, list, set, hash, sorted set, stream, module or function.
        expires: Unix time in ms; 0 if never.
        digest: 128 bits over name, kind, expiry and value.
        lasting: the digest without hash fields that expire; None if all fields of the hash expire.
        fields: digest of a hash's fields that expire; None if there are none.
        later: digest of the fields that expire after `due`.
        size: approximate bytes of the value in DUMP's form; a server may encode it differently.
    """

    name: bytes
    kind: str
    expires: int
    digest: int
    lasting: int | None
    fields: Digest | None = None
    later: Digest | None = None
    size: int = 0


def read_keys(file: BinaryIO, due: int = 0) -> Iterator[Key]:
    """Yield every key and every function library of an RDB file.

    Args:
        file: the file, at its beginning; buffered.
        due: Unix time in ms; hash fields that expire after it are also digested separately. 0: no separate digest.

    Raises:
        UnknownFormat: an unknown type or operation, or a broken value.
        EOFError: the file is truncated.
    """
    reader = _Reader(file)
    try:
        yield from _keys(reader, due)
    except (UnknownFormat, EOFError):
        raise
    except BROKEN as exc:
        raise UnknownFormat(
            f"a broken value before byte {reader.position} ({type(exc).__name__})"
        ) from exc


def _keys(reader: _Reader, due: int) -> Iterator[Key]:
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
            digest = _hash(b"function", text)
            yield Key(library_name(text), "function", 0, digest, digest)
        elif code == MODULE_AUX:
            reader.length()
            reader.module()
        elif code in TYPES:
            kind, read = TYPES[code]
            name, begins = reader.string(), reader.position
            digest = _hash(kind.encode(), name, _time(expires), read(reader, code))
            size = reader.position - begins + DUMP_BYTES
            yield Key(name, kind, expires, digest, digest, size=size)
            expires = 0
        elif code in HASHES:
            name, begins = reader.string(), reader.position
            key = _hash_key(name, expires, HASHES[code](reader, code), due)
            yield replace(key, size=reader.position - begins + DUMP_BYTES)
            expires = 0
        else:
            raise UnknownFormat(f"type or operation {code} at byte {reader.position}")


def library_name(code: bytes) -> bytes:
    """The name of a function library, from its first line `#!lua name=shop` (redis/redis src/functions.c)."""
    fields = code.partition(b"\n")[0].split()
    return next((word[5:] for word in fields if word.startswith(b"name=")), b"")


class _Reader:
    def __init__(self, file: BinaryIO) -> None:
        self._read = file.read
        self.position = 0
        self.valkey = False

    def header(self) -> None:
        head = self.take(9)
        if not head.startswith(MAGICS):
            raise UnknownFormat(f"begins with {head!r}")
        self.valkey = head.startswith(VALKEY)

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
            return decompress(self.take(packed), size)
        raise UnknownFormat(f"string encoding {number} at byte {self.position}")

    def module(self) -> bytes:
        """A module's value: typed items up to an end mark."""
        return _hash_all(self._module_items()).to_bytes(16, "big")

    def _module_items(self) -> Iterator[bytes]:
        while code := self.length():
            if code in (1, 2):
                yield b"%d" % self.length()
            elif code == 3:
                yield self.take(4)
            elif code == 4:
                yield self.take(8)
            elif code == 5:
                yield self.string()
            else:
                raise UnknownFormat(f"module item {code} at byte {self.position}")

    def _length(self) -> tuple[int, bool]:
        lead = self.byte()
        kind = lead >> 6
        if kind == 0:
            return lead & 0x3F, False
        if kind == 1:
            return (lead & 0x3F) << 8 | self.byte(), False
        if kind == 3:
            return lead & 0x3F, True
        if lead == 0x80:
            return int.from_bytes(self.take(4), "big"), False
        if lead == 0x81:
            return int.from_bytes(self.take(8), "big"), False
        raise UnknownFormat(f"length {lead} at byte {self.position}")


# ---------------------------------------------------------------------- values, by type
def _string(reader: _Reader, _: int) -> bytes:
    return reader.string()


def _module(reader: _Reader, _: int) -> bytes:
    reader.length()  # module id and version
    return reader.module()


def _list(reader: _Reader, code: int) -> bytes:
    return _hash_all(_list_items(reader, code)).to_bytes(16, "big")


def _list_items(reader: _Reader, code: int) -> Iterator[bytes]:
    if code == 1:
        for _ in range(reader.length()):
            yield reader.string()
    elif code == 10:
        yield from ziplist(reader.string())
    else:
        for _ in range(reader.length()):
            plain = code == 18 and reader.length() == 1
            node = reader.string()
            yield from [node] if plain else ziplist(node) if code == 14 else listpack(node)


def _set(reader: _Reader, code: int) -> bytes:
    if code == 2:
        return _sum(_hash(reader.string()) for _ in range(reader.length()))
    members = intset(reader.string()) if code == 11 else listpack(reader.string())
    return _sum(_hash(member) for member in members)


def _sorted_set(reader: _Reader, code: int) -> bytes:
    if code == 5:
        return _sum(_hash(reader.string(), reader.take(8)) for _ in range(reader.length()))
    if code == 3:
        return _sum(_hash(reader.string(), _ascii_score(reader)) for _ in range(reader.length()))
    items = listpack(reader.string()) if code == 17 else ziplist(reader.string())
    return _sum(
        _hash(items[at], struct.pack("<d", float(items[at + 1]))) for at in range(0, len(items), 2)
    )


Fields = Iterator[tuple[bytes, bytes, int]]  # field, value, Unix time in ms or 0


def _hash_table(reader: _Reader, code: int) -> Fields:
    return ((reader.string(), reader.string(), 0) for _ in range(reader.length()))


def _hash_packed(reader: _Reader, code: int) -> Fields:
    items = listpack(reader.string()) if code == 16 else ziplist(reader.string())
    return ((items[at], items[at + 1], 0) for at in range(0, len(items), 2))


def _hash_22(reader: _Reader, code: int) -> Fields:
    """One number, two formats: Valkey 9's RDB_TYPE_HASH_2, and a table of Redis 7.4 before its release."""
    if not reader.valkey:
        return (_field_behind_time(reader, 0) for _ in range(reader.length()))
    return (
        (reader.string(), reader.string(), max(struct.unpack("<q", reader.take(8))[0], 0))
        for _ in range(reader.length())
    )  # -1: never


def _hash_metadata(reader: _Reader, code: int) -> Fields:
    """Redis 7.4: the earliest expiry, then expiries as differences to it plus one."""
    earliest = struct.unpack("<q", reader.take(8))[0]
    return (_field_behind_time(reader, earliest - 1) for _ in range(reader.length()))


def _field_behind_time(reader: _Reader, base: int) -> tuple[bytes, bytes, int]:
    offset = reader.length()
    return reader.string(), reader.string(), base + offset if offset else 0


def _hash_packed_metadata(reader: _Reader, code: int) -> Fields:
    if code == 25:
        reader.take(8)  # the earliest expiry; before the release of 7.4 it was not written
    items = listpack(reader.string())
    return ((items[at], items[at + 1], int(items[at + 2])) for at in range(0, len(items), 3))


def _hash_key(name: bytes, expires: int, fields: Fields, due: int) -> Key:
    """Digest a hash. Fields that expire get a digest of their own, because they may expire before the hash does.

    There may be more fields than fit in memory, so they are digested as they are read.
    """
    total = lasting = count = 0
    passing, later = Digest(), Digest()
    for field, value, expiry in fields:
        number = _hash(field, value, _time(expiry))
        total += number
        if expiry:
            goes = min(expiry, expires) if expires else expiry
            own = _hash(b"field", name, field, value, _time(expiry))
            passing.add(own)
            if due and goes > due:
                later.add(own)
        else:
            lasting += number
            count += 1

    def digest(number: int) -> int:
        return _hash(b"hash", name, _time(expires), _sum((number,)))

    full = digest(total)
    if not passing.count:
        return Key(name, "hash", expires, full, full)
    return Key(name, "hash", expires, full, digest(lasting) if count else None, passing, later)


def _time(milliseconds: int) -> bytes:
    return struct.pack("<q", milliseconds)


def _stream(reader: _Reader, code: int) -> bytes:
    return _hash_all(_stream_parts(reader, code)).to_bytes(16, "big")


def _stream_parts(reader: _Reader, code: int) -> Iterator[bytes]:
    for _ in range(reader.length()):
        master = struct.unpack(">QQ", reader.string())
        yield from _entries(master, listpack(reader.string()))
    count, last_id = reader.length(), (reader.length(), reader.length())
    yield b"%d %d-%d" % (count, *last_id)
    if code >= 19:
        first_id, deleted, added = (
            (reader.length(), reader.length()),
            (reader.length(), reader.length()),
            reader.length(),
        )
        yield b"%d-%d %d-%d %d" % (*first_id, *deleted, added)
    for _ in range(reader.length()):
        yield from _group(reader, code)


def _entries(master: tuple[int, ...], items: list[bytes]) -> Iterator[bytes]:
    """The entries of one node. Its master entry has the usual fields; the others are stored as differences to it."""
    valid, deleted, width = int(items[0]), int(items[1]), int(items[2])
    usual = items[3 : 3 + width]
    at = 4 + width  # after the master entry's closing zero
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


def _group(reader: _Reader, code: int) -> Iterator[bytes]:
    """A consumer group: its position and pending entries. Times when consumers were seen are skipped."""
    yield reader.string()
    yield b"%d-%d" % (reader.length(), reader.length())
    if code >= 19:
        yield b"%d" % reader.length()
    for _ in range(reader.length()):
        yield reader.take(16)
        reader.take(8)  # time of delivery
        yield b"%d" % reader.length()
    yield _sum(_hash_all(_consumer(reader, code)) for _ in range(reader.length()))


def _consumer(reader: _Reader, code: int) -> Iterator[bytes]:
    yield reader.string()
    reader.take(16 if code >= 21 else 8)  # times when it was seen and active
    for _ in range(reader.length()):
        yield reader.take(16)


def _ascii_score(reader: _Reader) -> bytes:
    size = reader.byte()
    special = {253: b"nan", 254: b"inf", 255: b"-inf"}
    return struct.pack("<d", float(special[size] if size in special else reader.take(size)))


TYPES: dict[int, tuple[str, Callable[[_Reader, int], bytes]]] = {
    0: ("string", _string),
    **dict.fromkeys((1, 10, 14, 18), ("list", _list)),
    **dict.fromkeys((2, 11, 20), ("set", _set)),
    **dict.fromkeys((3, 5, 12, 17), ("sorted set", _sorted_set)),
    **dict.fromkeys((15, 19, 21), ("stream", _stream)),
    7: ("module", _module),
}
# RDB_TYPE_HASH, _HASH_ZIPLIST, _HASH_LISTPACK; with fields that expire RDB_TYPE_HASH_METADATA_PRE_GA (Valkey:
# RDB_TYPE_HASH_2), _HASH_LISTPACK_EX_PRE_GA, _HASH_METADATA, _HASH_LISTPACK_EX (src/rdb.h of redis and of valkey)
HASHES: dict[int, Callable[[_Reader, int], Fields]] = {
    4: _hash_table,
    13: _hash_packed,
    16: _hash_packed,
    22: _hash_22,
    23: _hash_packed_metadata,
    24: _hash_metadata,
    25: _hash_packed_metadata,
}


# ---------------------------------------------------------------------- digests
def _hash(*parts: bytes) -> int:
    return _hash_all(parts)


def _hash_all(parts: Iterable[bytes]) -> int:
    digest = blake2b(digest_size=16)
    for part in parts:
        digest.update(b"%d:" % len(part))
        digest.update(part)
    return int.from_bytes(digest.digest(), "big")


def _sum(hashes: Iterable[int]) -> bytes:
    return (sum(hashes) & MASK).to_bytes(16, "big")
