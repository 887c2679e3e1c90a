"""What clients wrote since a bucket was restored is none of the set's; what they put in between is a difference."""

from __future__ import annotations

import pytest

from components.minio.objects.versions import Among, Version

STORED = (("b", 2), ("d", 1), ("ü", 3))


def versions(*keys: tuple[str, int]) -> list[Version]:
    return [
        Version(key, f"{key}{number}", number, marker=False)
        for key, count in keys
        for number in range(count)
    ]


@pytest.mark.parametrize(
    ("live", "counted"),
    [
        (STORED, STORED),
        ((("a", 1), ("b", 2), ("c", 2), ("d", 1), ("ü", 3), ("😀", 1)), STORED),  # new keys
        ((("b", 5), ("d", 2), ("ü", 4)), STORED),  # new versions of old ones
        ((("b", 1), ("ü", 3)), (("b", 1), ("ü", 3))),  # lost ones are missing all the same
        ((), ()),
    ],
)
def test_as_many_of_each_key_count_as_the_set_has(
    live: tuple[tuple[str, int], ...], counted: tuple[tuple[str, int], ...]
) -> None:
    among = Among(iter(versions(*STORED)))
    assert [one for one in versions(*live) if among(one)] == versions(*counted)
