from archive.backup.manifest import Measure
from components.digest import Digest, summed


def measure(unit: str, *numbers: int) -> Measure:
    found = Digest()
    for number in numbers:
        found.add(number)
    return found.measure(unit, "strings", "artefact")


def test_shards_together_are_what_one_would_be_however_the_keys_are_spread() -> None:
    (one,) = summed([measure("all", 1, 2, 3, 4)], "all")
    (two,) = summed([measure("a", 1, 4), measure("b", 3, 2)], "all")
    assert one == two
    assert summed([measure("a", 1), measure("b", 3, 2)], "all") != [one]


def test_a_shard_without_a_digest_leaves_the_count() -> None:
    counted = measure("a", 1).model_copy(update={"digest": ""})
    (one,) = summed([counted, measure("b", 3)], "all")
    assert (one.count, one.digest) == (2, "")


def test_an_empty_shard_changes_nothing() -> None:
    assert summed([measure("a", 1), measure("b")], "all") == summed([measure("a", 1)], "all")
