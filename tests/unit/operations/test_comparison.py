from archive.backup.manifest import Measure
from operations.verify.comparison import compare


def measure(item: str, count: int = 1, digest: str = "a", unit: str = "database isa") -> Measure:
    return Measure(unit=unit, item=item, count=count, digest=digest, origin="source")


def what(wanted: list[Measure], found: list[Measure], name: str = "") -> list[str]:
    return [f"{d.item}: {d.what}" for d in compare(wanted, {name: found})]


def test_the_same_is_no_difference_whatever_its_order() -> None:
    assert what([measure("a"), measure("b")], [measure("b"), measure("a")]) == []


def test_a_lost_table_is_named() -> None:
    assert what([measure("table a", 7)], []) == ["table a: all 7 are missing"]


def test_fewer_and_more_are_told_with_both_numbers() -> None:
    assert what([measure("a", 7)], [measure("a", 6)]) == ["a: 6 instead of 7"]
    assert what([measure("a", 7)], [measure("a", 8)]) == ["a: 8 instead of 7"]


def test_as_many_but_others_are_seen_by_the_digest() -> None:
    found = what([measure("a", 7, "x")], [measure("a", 7, "y")])
    assert found == ["a: same number (7), but different contents"]


def test_what_was_counted_only_is_compared_by_its_count() -> None:
    assert what([measure("a", 7, "")], [measure("a", 7, "y")]) == []
    assert what([measure("a", 7, "")], [measure("a", 6, "y")]) != []


def moved(before: int, after: int) -> list[Measure]:
    return [measure("a", before, "").model_copy(update={"until": after})]


def test_of_what_moved_any_count_in_between_will_do() -> None:
    for before, after in ((1000, 1200), (1200, 1000)):
        for count in (1000, 1100, 1200):
            assert what(moved(before, after), [measure("a", count)]) == []
    assert what(moved(1000, 1200), [measure("a", 900)]) == [
        "a: 900, but the source held 1000 before and 1200 after it was stored"
    ]
    assert what(moved(1000, 1200), [measure("a", 1300)]) != []


def test_what_came_and_went_between_two_equal_counts_may_be_there() -> None:
    assert what(moved(1000, 1000), [measure("a", 1010)]) == []
    assert what(moved(1000, 1000), [measure("a", 1011)]) != []


def test_what_came_or_ended_meanwhile_may_be_missing_and_what_was_always_there_may_not() -> None:
    for before, after in ((0, 3), (3, 0)):
        assert what(moved(before, after), []) == []
        assert what(moved(before, after), [measure("a", 3)]) == []
    assert what(moved(1, 3), []) == ["a: 0, but the source held 1 before and 3 after it was stored"]


def test_what_the_source_did_not_have_is_a_difference() -> None:
    assert what([], [measure("table b", 3)]) == [
        "table b: 3 were restored that the source did not have"
    ]


def test_nothing_of_a_kind_need_not_be_there() -> None:
    assert what([measure("policies", 0, "")], []) == []
    assert what([], [measure("policies", 0, "")]) == []


def test_each_scratch_must_hold_everything() -> None:
    found = compare([measure("a", 7)], {"files": [measure("a", 7)], "dumps": []})
    assert [d.what for d in found] == ["dumps: all 7 are missing"]


def test_of_definitions_the_missing_the_other_and_the_new_are_named() -> None:
    was = measure("roles", 3, "x").model_copy(
        update={"names": {"ada": "1", "ken": "2", "old": "3"}}
    )
    now = measure("roles", 2, "y").model_copy(update={"names": {"ada": "1", "ken": "9"}})
    assert what([was], [now]) == ["roles: 2 instead of 3: missing old, other ken"]
    assert what([now], [was]) == ["roles: 3 instead of 2: other ken, more old"]


def test_many_names_are_cut_to_the_first() -> None:
    names = {f"n{number:02}": "1" for number in range(12)}
    was = measure("roles", 12).model_copy(update={"names": names})
    said = what([was], [measure("roles", 0, "")])[0]
    assert said.endswith("missing n00 n01 n02 n03 n04 n05 n06 n07 n08 n09 and 2 more")


def test_a_long_name_is_cut() -> None:
    named = measure("indexes").model_copy(update={"names": {"f" * 100_000: "ab"}})
    (told,) = what([named], [measure("indexes", count=0)])
    assert len(told) < 1_000
