"""Every name that an engine takes has a folder of its own in a bucket."""

from __future__ import annotations

from pydantic import TypeAdapter

from archive.backup.folders import FOLDER_BYTES, folder_name
from archive.backup.manifest import FileName
from tests import hostile

NAMES = [name for name in hostile.NAMES.values() if hostile.unicode_text(name) and name]


@hostile.each(lambda name: name in NAMES)
def test_a_hostile_name_makes_a_folder_that_a_manifest_takes(name: str) -> None:
    made = folder_name(name)
    assert TypeAdapter(FileName).validate_python(f"isa/{made}/stream.tar.s2.zst.age")
    assert "/" not in made
    assert len(made) <= FOLDER_BYTES


def test_no_two_names_have_one_folder() -> None:
    long = "n" * 300
    names = [*NAMES, long, long + "n", folder_name(long), *map(folder_name, NAMES)]
    different = set(names)
    assert len({folder_name(name) for name in different}) == len(different)


def test_an_ordinary_name_is_its_folder() -> None:
    for name in ("ORDERS", "a-b_c", "orders.eu"):
        assert folder_name(name) == name
