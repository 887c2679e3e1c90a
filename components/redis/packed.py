"""Unpacks the forms in which an RDB file has small lists, sets and hashes as one string, and compressed strings."""

from __future__ import annotations

import struct


class UnknownFormat(ValueError):
    """The file holds something that this module does not know."""


def listpack(data: bytes) -> list[bytes]:
    """Items of a listpack: https://github.com/antirez/listpack/blob/master/listpack.md"""
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


def ziplist(data: bytes) -> list[bytes]:
    """Items of what listpacks replaced in Redis 7: redis/redis src/ziplist.c."""
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


def intset(data: bytes) -> list[bytes]:
    """Members of a backup of integers: redis/redis src/intset.h."""
    width, count = struct.unpack("<II", data[:8])
    form = {2: "h", 4: "i", 8: "q"}[width]
    return [b"%d" % number for number in struct.unpack(f"<{count}{form}", data[8:])]


def decompress(data: bytes, size: int) -> bytes:
    """A string that was packed by LZF: literals, and copies of what came before.

    http://oldhome.schmorp.de/marc/liblzf.html
    """
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
        if len(out) > size:  # some bytes of it may stand for hundreds of times as many
            break
    if len(out) != size:
        raise UnknownFormat(f"a compressed string of {len(out)} instead of {size} bytes")
    return bytes(out)
