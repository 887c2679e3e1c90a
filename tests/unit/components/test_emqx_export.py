"""What an export holds and lacks: EMQX leaves out, without a word, what the caller may not see."""

from __future__ import annotations

import io
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from archive.streams.unpacking import Unreadable
from components.emqx.backup import TABLES, lacking
from components.emqx.exports.export import RETAINED_TABLE, UPLOAD, Export, read_export, rewritten
from components.emqx.exports.mnesia import records
from components.emqx.fingerprint import counts
from components.emqx.retainer import Retainer

from .emqx_archives import TABLES as USUAL
from .emqx_archives import archive, retained

MESSAGES = {
    "plant/1": (b"on", 0),
    "plant/2": (b"off", 4_102_444_800_000),
    "$SYS/brokers": (b"a", 0),
}


def read(file: io.BytesIO, *, all_expire: bool = False) -> Export:
    return read_export(file, "export", counts, all_expire)


def test_a_whole_export_lacks_nothing() -> None:
    assert lacking(read(archive(MESSAGES)), Retainer()) == []


@pytest.mark.parametrize("lost", [table for table in TABLES if table != RETAINED_TABLE])
def test_what_an_api_key_may_not_see_is_named_as_missing(lost: str) -> None:
    export = read(archive(MESSAGES, tables=[table for table in USUAL if table != lost]))
    assert lacking(export, Retainer()) == [lost]


@pytest.mark.parametrize(("built_in", "lacks"), [(True, [RETAINED_TABLE]), (False, [])])
def test_an_export_has_retained_messages_where_emqx_itself_keeps_them(
    built_in: bool, lacks: list[str]
) -> None:
    assert lacking(read(archive()), Retainer(built_in=built_in)) == lacks


def test_an_export_without_configuration_or_end_is_none() -> None:
    whole = archive(MESSAGES).getvalue()
    with pytest.raises(Unreadable, match="not a valid archive"):
        read(io.BytesIO(whole[: len(whole) // 2]))
    empty = io.BytesIO()
    with tarfile.open(fileobj=empty, mode="w:gz"):
        pass
    empty.seek(0)
    with pytest.raises(Unreadable, match=r"META\.hocon"):
        read(empty)


def test_messages_that_expire_are_told_from_those_that_stay_and_emqx_own_are_left_out() -> None:
    found = read(archive(MESSAGES)).retained
    assert found is not None
    assert (set(found.lasting), found.expiring) == ({"plant/1"}, frozenset({"plant/2"}))


def test_all_messages_expire_where_the_retainer_says_so() -> None:
    found = read(archive(MESSAGES), all_expire=True).retained
    assert found is not None
    assert (found.lasting, found.expiring) == ({}, frozenset({"plant/1", "plant/2"}))


def test_a_table_that_cannot_be_read_is_named_and_costs_no_other() -> None:
    export = read(archive(tables=[*USUAL, RETAINED_TABLE]))
    assert export.retained is None
    assert "not a complete Mnesia backup" in export.unreadable
    assert lacking(export, Retainer()) == []


def test_a_row_that_is_no_message_costs_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(b"t", "no message", 0), *records(io.BytesIO(retained(MESSAGES)), RETAINED_TABLE)]
    monkeypatch.setattr("components.emqx.exports.export.records", lambda *_: iter(rows))
    found = read(archive(MESSAGES)).retained
    assert found is not None
    assert (set(found.lasting), found.unreadable) == ({"plant/1"}, 1)


def test_payloads_are_not_held_in_memory() -> None:
    large = {f"plant/{n}": (bytes(1 << 20), 0) for n in range(20)}
    file = archive(large)
    tracemalloc.start()
    read(file)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 14 << 20


def test_version_and_edition_are_those_of_the_export() -> None:
    export = read(archive(version="5.8.10", edition="ee"))
    assert (export.version, export.edition) == ("5.8.10", "ee")


AUTHORIZATION = """authorization {
  no_match = allow
  sources = [
    {enable = true, type = built_in_database}
  ]
}
"""


@pytest.mark.parametrize(
    ("configuration", "there"),
    [
        (AUTHORIZATION, True),
        ('authorization = {"sources": [{"type": "built_in_database"}]}\n', True),
        ("authentication = [\n  {backend = built_in_database}\n]\n", False),
        ("authorization {\n  sources = []\n}\nauthentication = [\n  {backend = built_in_database}\n]\n", False),
        ("", False),
    ],
)  # fmt: skip
def test_a_source_is_looked_for_below_its_own_key(configuration: str, there: bool) -> None:
    export = read(archive(configuration=configuration))
    assert export.has_source("authorization", "built_in_database") == there


def test_every_import_has_a_name_of_its_own_and_its_folder_the_same(tmp_path: Path) -> None:
    file = tmp_path / "emqx-export-now.tar.gz"
    file.write_bytes(archive(MESSAGES).getvalue())
    made = [rewritten(file, lambda path: path != "mnesia/emqx_app") for _ in range(2)]
    assert made[0].name != made[1].name
    for one in made:
        assert one.name.startswith(UPLOAD)
        with tarfile.open(one) as opened:
            names = opened.getnames()
        assert {name.partition("/")[0] for name in names} == {one.name.removesuffix(".tar.gz")}
        assert f"{one.name.removesuffix('.tar.gz')}/mnesia/emqx_admin" in names
        assert not any("emqx_app" in name for name in names)
