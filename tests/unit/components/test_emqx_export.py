"""EMQX leaves out of an export, without a word, what the caller may not see: such a set is partial, never whole."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable

import pytest

from components.emqx.backup import TABLES, _lacks
from errors import TemporaryError

CONFIGURATION = ("META.hocon", "cluster.hocon")


def export(names: Iterable[str]) -> io.BytesIO:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(f"emqx-export/{name}"))
    made.seek(0)
    return made


def test_a_whole_export_lacks_nothing() -> None:
    tables = [f"mnesia/{table}" for table in TABLES]
    assert _lacks(export([*CONFIGURATION, *tables]), "export") == []


@pytest.mark.parametrize("lost", TABLES)
def test_what_an_api_key_may_not_see_is_named_as_missing(lost: str) -> None:
    tables = [f"mnesia/{table}" for table in TABLES if table != lost]
    assert _lacks(export([*CONFIGURATION, *tables]), "export") == [
        f"{TABLES[lost]}: the export has no {lost}"
    ]


def test_an_export_without_configuration_or_end_is_none() -> None:
    with pytest.raises(TemporaryError, match=r"META\.hocon"):
        _lacks(export(["mnesia/emqx_admin"]), "export")
    whole = export(CONFIGURATION).getvalue()
    with pytest.raises(TemporaryError, match="no sound archive"):
        _lacks(io.BytesIO(whole[: len(whole) // 2]), "export")
