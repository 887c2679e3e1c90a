"""A long name is shortened where a manifest is written, and costs nothing else."""

from __future__ import annotations

import pytest

from archive.backup.manifest import Measure
from archive.backup.names import NAME_CHARACTERS, short_name
from components.digest import Digest, few


def test_a_long_name_keeps_its_beginning_and_stays_apart_from_others() -> None:
    names = ["n" * 100, "n" * 101, "n" * 102, "\udcff" * 101]
    short = [short_name(name, 100) for name in names]
    assert short[0] == names[0]
    assert len(set(short)) == len(names)
    assert all(len(name) == 100 for name in short)
    assert [short_name(name, 100) for name in short] == short


def test_a_measure_takes_a_unit_and_an_item_of_any_length() -> None:
    made = Measure(unit="u" * 5_000, item="i" * 5_000, count=1, origin="source")
    assert (len(made.unit), len(made.item)) == (4_000, 4_000)


def test_a_definition_has_a_name_of_any_length() -> None:
    digest = Digest()
    digest.add_document("x", "f" * 100_001)
    listed = [*digest.measure("u", "i").names, *few({"f" * 100_001: "ab"})]
    assert listed == [short_name("f" * 100_001, NAME_CHARACTERS)] * 2


def test_a_copy_is_within_the_bounds_too() -> None:
    measure = Measure(unit="db", item="functions", count=1, origin="source")
    with pytest.raises(ValueError, match="validation error for Measure"):
        measure.model_copy(update={"names": {"x" * 100_001: "ab"}})
