"""Retained messages are read from a table as Erlang writes it.

The file is a backup of a table with the records of EMQX 5.8.9, made by Mnesia 4.21.3 (OTP 25) with
mnesia:backup_checkpoint/2. One message has headers of every kind of term.
"""

from __future__ import annotations

import base64
import io
import zlib
from pathlib import Path
from typing import Any

import pytest

from components.emqx.exports.mnesia import Atom, decode, records
from errors import PermanentError
from sandbox.doubles.emqx.mnesia import backup

FILE = Path(__file__).with_name("erlang_retained_messages.b85")
TABLE = "emqx_retainer_message"


def written_by_erlang() -> bytes:
    return zlib.decompress(base64.b85decode("".join(FILE.read_text().split())))


def test_every_message_is_read_with_topic_payload_and_expiry() -> None:
    found = {
        message[6].decode(): (message[2], message[7], expiry)
        for _, _, message, expiry in records(io.BytesIO(written_by_erlang()), TABLE)
    }
    assert found == {
        "plant/1": (1, b"on", 0),
        "plant/2": (1, b"off", 4102444800000),
        "a//b": (1, b"\x01\x02\x00\xff", 0),
        "$SYS/brokers": (1, b"emqx@127.0.0.1", 0),
        "ü": (1, b"", 1 << 64),
        "big": (1, b"y" * 70_000, 0),
        "odd": (1, b"x", 0),
    }


def test_terms_of_every_kind_are_read() -> None:
    rows = list(records(io.BytesIO(written_by_erlang()), TABLE))
    headers = next(message[5] for _, _, message, _ in rows if message[6] == b"odd")
    assert (headers["neg"], headers["negbig"], headers["float"]) == (-7, -(1 << 64), 1.5)
    assert headers["list"] == [1, "two", list(b"three"), "four"]
    assert (headers["pid"], headers["ref"], headers["local"]) == (
        "process",
        "reference",
        "function",
    )
    assert headers["large"] == tuple(range(1, 301))
    assert isinstance(headers["protocol"], Atom)


@pytest.mark.parametrize("size", [7, 50, 700, 73_000])
def test_a_table_that_is_cut_is_refused(size: int) -> None:
    with pytest.raises(PermanentError):
        list(records(io.BytesIO(written_by_erlang()[:size]), TABLE))


def test_an_unknown_term_is_refused() -> None:
    with pytest.raises(PermanentError, match="unknown type 82"):
        decode(bytes([131, 82, 0]))


def test_what_the_double_writes_is_read_as_well() -> None:
    row: tuple[Any, ...] = ([b"a", Atom("")], (Atom("message"), 300, -1, {b"k": []}, b"y" * 70_000))
    assert list(records(io.BytesIO(backup("t", [row])), "t")) == [(Atom("t"), *row)]
