"""Writes a Mnesia backup as EMQX has it in its exports: a disk log of Erlang terms in the external format.

Formats: lib/kernel/src/disk_log.hrl, https://www.erlang.org/doc/apps/erts/erl_ext_dist.html. What reads them is
`components.emqx.exports.mnesia`, which was tried on files that Erlang wrote.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from components.emqx.exports.mnesia import (
    CLOSED,
    ITEM_MAGIC,
    LOG_MAGIC,
    MIN_MD5_TERM,
    TERM_VERSION,
    Atom,
)


def backup(table: str, rows: Iterable[tuple[Any, ...]]) -> bytes:
    """A backup of a table.

    Args:
        table: its name.
        rows: the fields of each record behind its name.
    """
    header = (
        Atom("log_header"), Atom("backup_log"), "1.2", "4.23", Atom("nonode@nohost"), (1700, 0, 0),
    )  # fmt: skip
    schema = (Atom("schema"), Atom(table), [(Atom("name"), Atom(table))])
    terms = [header, schema, *((Atom(table), *row) for row in rows)]
    return LOG_MAGIC + CLOSED + b"".join(_item(bytes([TERM_VERSION]) + _term(t)) for t in terms)


def _item(term: bytes) -> bytes:
    size = len(term).to_bytes(4, "big")
    md5 = hashlib.md5(size, usedforsecurity=False).digest() if len(term) >= MIN_MD5_TERM else b""
    return size + ITEM_MAGIC + md5 + term


def _term(value: Any) -> bytes:
    match value:
        case Atom():
            text = value.encode()
            return b"\x77" + bytes([len(text)]) + text  # SMALL_ATOM_UTF8_EXT
        case str():
            return b"\x6b" + len(value).to_bytes(2, "big") + value.encode("latin-1")  # STRING_EXT
        case bytes():
            return b"\x6d" + len(value).to_bytes(4, "big") + value  # BINARY_EXT
        case int() if 0 <= value < 256:
            return b"\x61" + bytes([value])  # SMALL_INTEGER_EXT
        case int():
            size = (value.bit_length() + 7) // 8
            return b"\x6e" + bytes([size, value < 0]) + abs(value).to_bytes(size, "little")
        case tuple():
            return b"\x68" + bytes([len(value)]) + b"".join(map(_term, value))  # SMALL_TUPLE_EXT
        case []:
            return b"\x6a"  # NIL_EXT
        case list():
            items = b"".join(map(_term, value))
            return b"\x6c" + len(value).to_bytes(4, "big") + items + b"\x6a"  # LIST_EXT
        case dict():
            pairs = b"".join(_term(k) + _term(v) for k, v in value.items())
            return b"\x74" + len(value).to_bytes(4, "big") + pairs  # MAP_EXT
    raise TypeError(f"no term of {type(value)} is needed here")
