"""A setting is kept as one text, and a list among them is set again part by part."""

from __future__ import annotations

import pytest

from components.postgresql.catalog.settings import split_list


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ('"$user", public', ["$user", "public"]),
        ('shop, "a ""b"", c" ,d', ["shop", 'a "b", c', "d"]),
        ("", []),
        ('"open', ['"open']),
    ],
)
def test_a_list_is_taken_apart_where_its_commas_are(value: str, parts: list[str]) -> None:
    assert split_list(value) == parts
