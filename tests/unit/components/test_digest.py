from datetime import date

import pytest

from archive.backup.manifest import Measure
from components.digest import NAMED, Digest, expiring, part, settled
from errors import PermanentError
from operations.verify.comparison import compare


def of(*documents: object) -> Digest:
    found = Digest()
    for document in documents:
        found.add_document(document)
    return found


def test_order_does_not_matter() -> None:
    assert of("a", {"b": 1, "c": 2}).text == of({"c": 2, "b": 1}, "a").text


def test_what_is_missing_changed_or_there_twice_is_seen() -> None:
    texts = {of(*documents).text for documents in ("ab", "a", "ac", "aab", "abb", "aabb")}
    assert len(texts) == 6


def test_nothing_has_no_digest() -> None:
    assert of().measure("unit", "item") == Measure(
        unit="unit", item="item", count=0, origin="source"
    )


def test_the_value_stays_what_earlier_sets_recorded() -> None:
    assert of(["a", 1], {"b": None}).text == (
        "ddc01c112cf46f188621e5e561898343/d13f9b8ed28b88c771d9d9d09e0972bb"
    )


def test_of_what_moved_while_it_was_stored_both_counts_are_kept() -> None:
    still, moved = of("a").measure("u", "still"), of("b").measure("u", "moved")
    gone, came = of("c").measure("u", "gone"), of("d", "e").measure("u", "came")
    after = [of("a").measure("u", "still"), of("b", "d").measure("u", "moved"), came]
    found = {one.item: one for one in settled([still, moved, gone], after)}
    assert found["still"] == still
    counts = {item: (one.count, one.until) for item, one in found.items() if item != "still"}
    assert counts == {"moved": (1, 2), "gone": (1, 0), "came": (0, 2)}
    assert not any(found[item].digest for item in counts)


def test_what_was_changed_while_it_was_stored_is_counted_only_and_not_named() -> None:
    was, then = Digest(), Digest()
    was.add_document("old", "alice")
    then.add_document("new", "alice")
    (one,) = settled([was.measure("u", "users")], [then.measure("u", "users")])
    assert (one.count, one.until, one.digest, one.names) == (1, 1, "", {})


def test_definitions_keep_their_names_as_long_as_they_are_few() -> None:
    found = Digest()
    for number in range(NAMED):
        found.add_document(number, f"role {number}")
    assert len(found.measure("u", "roles").names) == NAMED
    found.add_document(NAMED, "one too many")
    assert found.measure("u", "roles").names == {}


def test_where_two_have_one_name_there_are_none() -> None:
    found = Digest()
    found.add_document(1, "same")
    found.add_document(2, "same")
    assert found.measure("u", "roles").names == {}


@pytest.mark.parametrize("value", [object(), date(1, 1, 1), b"bytes", {1, 2}])
def test_a_value_whose_text_is_the_clients_own_is_refused(value: object) -> None:
    with pytest.raises(PermanentError, match="cannot be digested"):
        of({"when": value})
    with pytest.raises(PermanentError, match="cannot be digested"):
        part([value])


@pytest.mark.parametrize(("found", "differs"), [(0, False), (7, False), (10, False), (12, True)])
def test_of_what_goes_at_its_own_time_a_restore_may_hold_any_number(
    found: int, differs: bool
) -> None:
    there = expiring("cluster", "bans that expire", found)
    assert bool(compare([expiring("cluster", "bans that expire", 10)], {"": [there]})) == differs
