"""Unpacks compressed strings, and the formats of an RDB file for small lists, sets and hashes."""

from __future__ import annotations

import struct


class UnknownFormat(ValueError):
    """The file has a format that this module does not know."""


def listpack(data: bytes) -> list[bytes]:
    """Items of a listpack: https://github.com/antirez/listpack/blob/master/listpack.md"""
    items: list[bytes] = []
    position = 6
    while (lead := data[position]) != 0xFF:
        if lead < 0x80:
            items.append(b"%d" % lead)
            size = 1
        elif lead < 0xC0:
            length = lead & 0x3F
            items.append(data[position + 1 : position + 1 + length])
            size = 1 + length
        elif lead < 0xE0:
            number = (lead & 0x1F) << 8 | data[position + 1]
            items.append(b"%d" % (number - (1 << 13) if number >= 1 << 12 else number))
            size = 2
        elif lead < 0xF0:
            length = (lead & 0x0F) << 8 | data[position + 1]
            items.append(data[position + 2 : position + 2 + length])
            size = 2 + length
        elif lead == 0xF0:
            length = int.from_bytes(data[position + 1 : position + 5], "little")
            items.append(data[position + 5 : position + 5 + length])
            size = 5 + length
        elif lead <= 0xF4:
            width = (2, 3, 4, 8)[lead - 0xF1]
            items.append(
                b"%d"
                % int.from_bytes(data[position + 1 : position + 1 + width], "little", signed=True)
            )
            size = 1 + width
        else:
            raise UnknownFormat(f"listpack item {lead}")
        # after the item comes its size, for reading backwards, with the number of bytes from lpEncodeBacklen
        position += (
            size + 1 + (size > 127) + (size >= 16383) + (size >= 2097151) + (size >= 268435455)
        )
    return items


def ziplist(data: bytes) -> list[bytes]:
    """Items of a ziplist, which Redis 7 replaced by listpacks: redis/redis src/ziplist.c."""
    items: list[bytes] = []
    position = 10
    while data[position] != 0xFF:
        position += 1 if data[position] < 0xFE else 5  # size of the item before
        lead = data[position]
        if lead < 0xC0:
            kind = lead >> 6
            if kind == 0:
                length, position = lead & 0x3F, position + 1
            elif kind == 1:
                length, position = (lead & 0x3F) << 8 | data[position + 1], position + 2
            else:
                length, position = (
                    int.from_bytes(data[position + 1 : position + 5], "big"),
                    position + 5,
                )
            items.append(data[position : position + length])
            position += length
        elif lead >= 0xF1 and lead <= 0xFD:
            items.append(b"%d" % (lead - 0xF1))
            position += 1
        else:
            width = {0xC0: 2, 0xD0: 4, 0xE0: 8, 0xF0: 3, 0xFE: 1}[lead]
            items.append(
                b"%d"
                % int.from_bytes(data[position + 1 : position + 1 + width], "little", signed=True)
            )
            position += 1 + width
    return items


def intset(data: bytes) -> list[bytes]:
    """Members of a set of integers: redis/redis src/intset.h."""
    width, count = struct.unpack("<II", data[:8])
    form = {2: "h", 4: "i", 8: "q"}[width]
    return [b"%d" % number for number in struct.unpack(f"<{count}{form}", data[8:])]


def decompress(data: bytes, size: int) -> bytes:
    """Decompress a string of LZF: literals, and copies of earlier bytes.

    http://oldhome.schmorp.de/marc/liblzf.html
    """
    result = bytearray()
    position = 0
    while position < len(data):
        control = data[position]
        position += 1
        if control < 32:
            result += data[position : position + control + 1]
            position += control + 1
            continue
        length = control >> 5
        if length == 7:
            length += data[position]
            position += 1
        start = len(result) - ((control & 0x1F) << 8 | data[position]) - 1
        position += 1
        length += 2
        if start + length <= len(result):
            result += result[start : start + length]
        else:  # the copy overlaps the bytes that it writes
            pattern = result[start:]
            result += (pattern * (length // len(pattern) + 1))[:length]
        if len(result) > size:  # a few damaged bytes can expand to hundreds of times their size
            break
    if len(result) != size:
        raise UnknownFormat(f"a compressed string of {len(result)} instead of {size} bytes")
    return bytes(result)
