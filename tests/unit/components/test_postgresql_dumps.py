"""A dump says what is in it, and is saved so that each table is truncated in the transaction that fills it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from archive.backup.reader import Damaged
from components.postgresql.dumps.toc import (
    DATA,
    POSITION_KNOWN,
    POSITION_UNKNOWN,
    PRE_DATA,
    Entry,
    read_entries,
)
from components.postgresql.dumps.truncation import save_dump, truncating
from errors import PermanentError


class Archive:
    """Writes a dump's head and contents, as pg_dump does (`WriteHead`, `WriteToc` in pg_backup_archiver.c)."""

    def __init__(self, minor: int, position: int = POSITION_UNKNOWN) -> None:
        self.minor, self.data = minor, bytearray(b"PGDMP" + bytes([1, minor, 0, 4, 8, 1]))
        self.position = position
        if minor >= 15:
            self.data.append(0)
        else:
            self.number(-1)
        for _ in range(7):
            self.number(0)
        for text in ("shop", "18.6", "18.6"):
            self.text(text)

    def number(self, value: int) -> None:
        self.data += bytes([value < 0]) + abs(value).to_bytes(4, "little")

    def text(self, value: str | None) -> None:
        self.number(-1 if value is None else len(value.encode()))
        self.data += (value or "").encode()

    def entry(self, one: Entry) -> None:
        self.number(one.number)
        self.number(0)
        for known in ("1259", "16385", one.name, one.kind):
            self.text(known)
        self.number(one.section)
        rows = one.kind == "TABLE DATA"
        defined, copied = (None, one.definition) if rows else (one.definition, None)
        for text in (defined, "DROP …", copied, one.schema, None):
            self.text(text)
        if self.minor >= 14:
            self.text("heap")
        if self.minor >= 16:
            self.number(ord("r"))
        for last in (one.owner, "false", *map(str, one.needs), None):
            self.text(last)
        self.data += bytes([self.position]) + bytes(8)

    def of(self, *entries: Entry) -> bytes:
        self.number(len(entries))
        for one in entries:
            self.entry(one)
        return bytes(self.data)


@pytest.mark.parametrize("minor", [12, 13, 14, 15, 16])
def test_a_dump_says_who_owns_what_is_in_it(tmp_path: Path, minor: int) -> None:
    entries = [
        Entry(7, "TABLE", PRE_DATA, "a b", 'c "d" \n e', "o wner", "CREATE TABLE …", (3, 4)),
        Entry(8, "TABLE DATA", DATA, "a b", "c", "", "", ()),
    ]
    dump, data = tmp_path / "dump", Archive(minor).of(*entries)
    dump.write_bytes(data)
    assert read_entries(dump) == entries
    for length in range(len(data)):
        dump.write_bytes(data[:length])
        with pytest.raises(PermanentError):
            read_entries(dump)


def test_a_dump_of_a_format_that_is_not_known_is_refused(tmp_path: Path) -> None:
    dump = tmp_path / "dump"
    dump.write_bytes(bytes(Archive(17).data))
    with pytest.raises(PermanentError, match=r"format 1\.17"):
        read_entries(dump)


def table(name: str, definition: str = "CREATE TABLE s.t (n int)", number: int = 1) -> Entry:
    return Entry(number, "TABLE", PRE_DATA, "s", name, "shop", definition, ())


def rows(name: str, copy: str, number: int = 2) -> Entry:
    return Entry(number, "TABLE DATA", DATA, "s", name, "shop", copy, (1,))


FUNCTION = Entry(3, "FUNCTION", PRE_DATA, "s", "f(integer)", "shop", "CREATE FUNCTION …", ())
DOMAIN = Entry(4, "DOMAIN", PRE_DATA, "s", "mail", "shop", "CREATE DOMAIN …", ())
ENUM = Entry(5, "TYPE", PRE_DATA, "s", "mood", "shop", "CREATE TYPE s.mood AS ENUM (", ())
OTHERS = (FUNCTION, DOMAIN, ENUM, table("parent", number=6))


@pytest.mark.parametrize(
    "definition",
    [
        "CREATE TABLE s.t (n int DEFAULT nextval('s.f'::regclass) CHECK (n > 1.5))",
        "CREATE TABLE s.t (m s.mood DEFAULT 'good'::s.mood, place public.vector(3))",
        "CREATE TABLE s.t (n int, CONSTRAINT c CHECK ((note <> 's.f(1)'::text)))",
    ],
)
def test_a_table_of_the_dump_is_truncated_before_it_is_filled(definition: str) -> None:
    copy = rows("t", "COPY s.t (n) FROM stdin;\n")
    found = truncating([*OTHERS, table("t", definition), copy])
    assert found == {2: "TRUNCATE TABLE ONLY s.t;\nCOPY s.t (n) FROM stdin;\n"}


def test_a_table_is_truncated_by_the_name_that_its_copy_writes() -> None:
    name = 't "x" (y'
    copy = rows(name, 'COPY s."t ""x"" (y"  FROM stdin;\n')
    statement = truncating([table(name), copy])[2]
    assert statement.startswith('TRUNCATE TABLE ONLY s."t ""x"" (y";\nCOPY ')


@pytest.mark.parametrize(
    "definition",
    [
        "CREATE TABLE s.t (n int, CHECK (s.f(n) > 0))",
        'CREATE TABLE s.t (n int, m "s".mail)',
        "CREATE TABLE s.t (n int) INHERITS (s.parent)",
    ],
)
def test_a_table_whose_rows_may_run_a_function_that_reads_others_is_not_locked_by_truncation(
    definition: str,
) -> None:
    copy = rows("t", "COPY s.t (n) FROM stdin;\n")
    assert truncating([*OTHERS, table("t", definition), copy]) == {}


@pytest.mark.parametrize(
    ("name", "copy"),
    [
        ("leaf", "COPY s.t (n) FROM stdin;\n"),
        ("leaf", "-- load via partition root s.t"),
        ("extension_s", "COPY s.extension_s (n) FROM stdin;\n"),
    ],
)
def test_rows_that_are_added_to_others_are_not_truncated(name: str, copy: str) -> None:
    assert truncating([table("t"), table("leaf", number=7), rows(name, copy)]) == {}


def saved(tmp_path: Path, *pieces: bytes, damaged: bool = False) -> Path:
    """A dump as `save_dump` leaves it, of pieces as the store gives them."""

    def stream(_: str) -> Iterator[bytes]:
        yield from pieces
        if damaged:
            raise Damaged("databases/shop.dump is not what was stored")

    reader = cast(Any, SimpleNamespace(stream=stream))
    return save_dump(reader, "databases/shop.dump", tmp_path / "dump")


@pytest.mark.parametrize("minor", [12, 14, 16])
@pytest.mark.parametrize("position", [POSITION_UNKNOWN, POSITION_KNOWN])
def test_a_saved_dump_differs_from_the_stored_one_by_its_statements_and_by_positions(
    tmp_path: Path, minor: int, position: int
) -> None:
    kept = table("kept", number=3), rows("kept", "-- load via partition root s.t", 4)
    entries = [table("t"), *kept, rows("t", "COPY s.t (n) FROM stdin;\n")]
    stored, blocks = Archive(minor, position).of(*entries), bytes(range(256)) * 9
    path = saved(tmp_path, stored[:5], stored[5:] + blocks)
    entries[-1] = rows("t", "TRUNCATE TABLE ONLY s.t;\nCOPY s.t (n) FROM stdin;\n")
    assert path.read_bytes() == Archive(minor).of(*entries) + blocks
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_damaged_dump_is_told_as_damaged_and_not_as_another_format(tmp_path: Path) -> None:
    with pytest.raises(Damaged):
        saved(tmp_path, b"not what was stored", b"rest", damaged=True)
    with pytest.raises(PermanentError, match="not a pg_dump archive"):
        saved(tmp_path, b"not what was stored", b"rest")
