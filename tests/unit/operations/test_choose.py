from datetime import UTC, datetime, timedelta

from archive.catalogue.listing import Catalogue
from archive.evidence.verdicts import Proof
from operations.verify.proofs import due, everything, latest, sample

from ..archive.test_retention import a_set

OLD, NEW = "redis-20261101T010000Z-000001", "redis-20261102T010000Z-000002"
NATS = "nats-20261101T010000Z-000003"
AT = datetime(2026, 11, 3, tzinfo=UTC)
NAMES = ("redis", "nats")


def catalogue(**verdicts: str) -> Catalogue:
    """Damaged sets only: what is chosen does not depend on what can be read."""
    broken = {f"test/{i.partition('-')[0]}/{i}/manifest.json": "?" for i in (OLD, NEW, NATS)}
    proofs = {"old": OLD, "new": NEW, "nats": NATS}
    found: dict[str, tuple[Proof, ...]] = {
        proofs[name]: (Proof(AT, verdict, "key"),) for name, verdict in verdicts.items()
    }
    return Catalogue((), broken, (), found)


def test_the_newest_set_of_each_is_chosen_even_if_it_is_damaged() -> None:
    assert latest(catalogue(), NAMES) == (NEW, NATS)


def test_a_damaged_set_of_a_later_time_keeps_no_other_from_being_chosen() -> None:
    nights = [a_set(day) for day in range(5)]
    junk = [a_set(day).id for day in (1.5, 9)]
    found = Catalogue(tuple(nights), {f"test/redis/{one}/manifest.json": "?" for one in junk}, ())
    assert latest(found, NAMES) == (nights[-1].id, junk[1])
    chosen = {sample(found, NAMES, f"week {number}")[0] for number in range(50)}
    assert chosen == {one.id for one in nights[:-1]}


def test_a_damaged_set_that_is_older_than_a_readable_one_is_not_the_newest() -> None:
    nights = [a_set(day) for day in range(5)]
    junk = f"test/redis/{a_set(2.5).id}/manifest.json"
    assert latest(Catalogue(tuple(nights), {junk: "?"}, ()), NAMES) == (nights[-1].id,)


def test_what_has_a_verdict_is_not_due_and_an_error_is_none() -> None:
    assert due(catalogue(new="pass", nats="error"), NAMES) == (NATS,)
    assert due(catalogue(old="pass"), NAMES) == (NEW, NATS)


def test_a_sample_is_of_the_older_ones_and_the_same_all_week() -> None:
    assert sample(catalogue(), NAMES, "2026-W48") == (OLD,)
    assert sample(catalogue(), NAMES, "2026-W48") == sample(catalogue(), NAMES, "2026-W48")


def test_everything_is_everything() -> None:
    assert set(everything(catalogue())) == {OLD, NEW, NATS}


def test_an_error_behind_a_verdict_does_not_take_it_back() -> None:
    later = Proof(AT + timedelta(days=1), "error", "key")
    for verdict in ("pass", "partial", "fail"):
        found = Catalogue((), {}, (), {NEW: (Proof(AT, verdict, "key"), later)})
        assert found.verdict(NEW) == verdict
        assert (NEW in found.proven) == (verdict == "pass")
    assert Catalogue((), {}, (), {NEW: (later,)}).verdict(NEW) == ""


def test_those_between_two_nights_are_not_verified_and_the_last_may_be_a_sample() -> None:
    nights = [a_set(day) for day in range(3)]
    between = [a_set(2 + hour / 24, slot=f"interval-20250103T{hour:02d}00Z") for hour in (6, 9)]
    found = Catalogue((*nights, *between), {}, ())
    assert latest(found, NAMES) == due(found, NAMES) == (nights[-1].id,)
    chosen = {sample(found, NAMES, f"week {number}")[0] for number in range(50)}
    assert chosen == {nights[0].id, nights[1].id, between[-1].id}


def test_where_there_is_no_nightly_one_the_newest_between_is_verified() -> None:
    only = a_set(1, slot="interval-20250102T0100Z")
    assert due(Catalogue((only,), {}, ()), NAMES) == (only.id,)


def test_the_report_shows_those_between_two_nights_only_where_there_are_no_others() -> None:
    night, between = a_set(0), a_set(0.5, slot="interval-20250101T1300Z")
    assert Catalogue((night, between), {}, ()).nightly("redis") == (night,)
    assert Catalogue((between,), {}, ()).nightly("redis") == (between,)
