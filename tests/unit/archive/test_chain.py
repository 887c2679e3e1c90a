from datetime import timedelta

from archive.backup.manifest import Manifest
from archive.catalogue.chain import dependable, open_chain
from archive.catalogue.listing import Catalogue
from archive.evidence.verdicts import Proof

from .test_retention import START, a_set

FULL = a_set(0)
SECOND = a_set(1, kind="incremental", needs=(FULL.id,))
THIRD = a_set(2, kind="incremental", needs=(FULL.id, SECOND.id))


def chain(*earlier: Manifest, day: float) -> list[str]:
    return [one.id for one in open_chain(earlier, 7, START + timedelta(days=day))]


def test_the_newest_set_and_all_that_it_needs() -> None:
    assert chain(FULL, SECOND, THIRD, day=3) == [FULL.id, SECOND.id, THIRD.id]
    assert chain(FULL, day=1) == [FULL.id]


def test_a_week_after_the_full_one_a_full_one_is_due_though_the_night_begins_early() -> None:
    assert chain(FULL, SECOND, day=6.9)
    assert chain(FULL, SECOND, day=6.97) == []


def test_a_full_one_is_due_an_hour_before_its_days_are_over_and_not_earlier() -> None:
    hour = 1 / 24
    assert chain(FULL, day=7 - hour) == []
    assert chain(FULL, day=7 - hour - 1 / 86_400) == [FULL.id]


def test_the_present_decides_whether_a_full_one_is_due() -> None:
    assert open_chain([FULL], 7) == ()
    assert open_chain([FULL], 365 * 500) == (FULL,)


def test_without_one_of_the_chain_a_full_one_is_due() -> None:
    assert chain(day=0) == []
    assert chain(FULL, THIRD, day=3) == []
    assert chain(a_set(0, outcome="partial"), day=1) == []


def test_a_partial_set_is_not_rested_on() -> None:
    partial = a_set(2, kind="incremental", needs=(FULL.id,), outcome="partial")
    assert chain(FULL, SECOND, partial, day=3) == [FULL.id, SECOND.id]


def proved(*sets: Manifest, **verdicts: str) -> tuple[Manifest, ...]:
    proofs: dict[str, tuple[Proof, ...]] = {
        one.id: (Proof(START, verdicts[name], "key"),)
        for name, one in zip(("first", "second", "third"), sets, strict=False)
        if name in verdicts
    }
    return Catalogue(sets, {}, (), proofs).sound("redis")


def test_a_full_set_that_failed_its_proof_is_not_rested_on() -> None:
    assert proved(FULL, a_set(1), second="fail") == (FULL,)


def test_behind_an_incremental_set_that_failed_its_proof_everything_is_taken_anew() -> None:
    assert proved(FULL, SECOND, THIRD, first="pass", second="pass", third="fail") == ()
    assert proved(FULL, SECOND, a_set(2), first="pass", second="fail") != ()


def test_a_backup_depends_on_none_of_other_recipients_or_of_another_cluster() -> None:
    def days(*sets: Manifest) -> list[Manifest]:
        return list(dependable(sets, ("age1b", "age1a"), "uid"))

    alike = [a_set(day, recipients=("age1a", "age1b")) for day in range(4)]
    assert days(*alike) == alike
    other_keys = a_set(2, recipients=("age1a", "age1old"))
    assert days(*alike[:2], other_keys, alike[3]) == alike[3:]
    assert days(*alike[:2], other_keys) == []
    elsewhere = alike[2].model_copy(update={"cluster": "another"})
    assert days(*alike[:2], elsewhere, alike[3]) == alike[3:]


def test_a_backup_between_two_nights_leaves_the_full_one_to_the_night_unless_that_is_late() -> None:
    def at(hours: float) -> int:
        now = START + timedelta(hours=hours)
        return len(open_chain([FULL], 1, now, interval=True))

    assert [at(23.5), at(24.5), at(25)] == [1, 1, 0]
    assert open_chain([FULL], 1, START + timedelta(hours=23)) == ()
