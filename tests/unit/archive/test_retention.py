from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from archive.backup.manifest import Capabilities, Consistency, Engine, Manifest, new_identity
from archive.retention.policy import decide
from archive.signing import public_half
from config.sections.backups import BackupSigner, RetentionSettings

KEY = Ed25519PrivateKey.generate()
SIGNERS = (BackupSigner(key=public_half(KEY)),)
START = datetime(2025, 1, 1, 1, tzinfo=UTC)
RULES = RetentionSettings(daily=7, weekly=4, monthly=12, yearly=2)


def a_set(day: float, **more: object) -> Manifest:
    begun = START + timedelta(days=day)
    fields = {
        "id": new_identity("redis", begun, f"{round(day * 10):06x}"),
        "component": "redis",
        "environment": "test",
        "cluster": "uid",
        "slot": "",
        "begun": begun,
        "ended": begun,
        "outcome": "complete",
        "not_covered": (),
        "engine": Engine(name="redis", version="8"),
        "consistency": (Consistency(unit="u", point="p", begun=begun, ended=begun),),
        "artefacts": (),
        "fingerprint": (),
        "store": Capabilities(
            conditional_put=True, checksums=True, versioning=True, object_lock=True
        ),
        "recipients": (),
    }
    return Manifest.model_validate({**fields, **more})


def kept(sets: list[Manifest], **more: object) -> list[int]:
    verdicts = decide(sets, RULES, **more)  # type: ignore[arg-type]
    return [round((v.manifest.begun - START).total_seconds() / 86400) for v in verdicts if v.kept]


def test_two_years_of_nights_leave_days_weeks_months_and_years() -> None:
    days = kept([a_set(day) for day in range(730)])
    assert days[-7:] == list(range(723, 730))
    assert len(days) <= 7 + 4 + 12 + 2
    assert days[0] == 364  # the last night of the first year


def test_deciding_again_after_removing_changes_nothing() -> None:
    nights = [a_set(day) for day in range(400)]
    left = [v.manifest for v in decide(nights, RULES) if v.kept]
    assert all(verdict.kept for verdict in decide(left, RULES))


def test_several_sets_of_a_day_leave_the_last() -> None:
    assert len(kept([a_set(day / 10) for day in range(5)])) == 1


def test_a_partial_set_never_stands_for_its_day() -> None:
    whole, partial = a_set(0), a_set(0.5, outcome="partial")
    verdicts = decide([whole, partial], RULES)
    assert "newest complete backup" in verdicts[0].kept
    assert verdicts[1].kept == ("newest backup",)  # nothing newer is there
    verdicts = decide([whole, partial, a_set(1)], RULES)
    assert verdicts[1].kept == ()


def test_the_last_proven_set_stays_however_old() -> None:
    nights = [a_set(day) for day in range(100)]
    assert 3 not in kept(nights)
    proven = {nights[1].id: "pass", nights[2].id: "fail", nights[3].id: "pass"}
    assert 3 in kept(nights, verdicts=proven)
    assert not {1, 2} & set(kept(nights, verdicts=proven))


def test_what_was_proven_in_part_stays_beside_what_was_proven() -> None:
    nights = [a_set(day) for day in range(100)]
    assert {1, 3} <= set(kept(nights, verdicts={nights[1].id: "pass", nights[3].id: "partial"}))


def test_of_a_component_that_is_never_whole_each_period_keeps_its_last_partial_set() -> None:
    partial = [a_set(day, outcome="partial") for day in range(730)]
    whole = [a_set(day) for day in range(730)]
    assert kept(partial) == kept(whole)


def test_partial_sets_push_no_whole_one_out() -> None:
    whole = [a_set(day) for day in range(10)]
    partial = [a_set(day, outcome="partial") for day in range(10, 30)]
    assert set(range(3, 10)) | set(range(23, 30)) <= set(kept([*whole, *partial]))


def test_what_somebody_needs_now_stays_and_what_it_rests_on() -> None:
    nights = [a_set(0), *(a_set(day) for day in range(2, 100))]
    part = a_set(1, kind="incremental", needs=(nights[0].id,))
    stays = kept([nights[0], part, *nights[1:]], in_use={part.id: "its restore was interrupted"})
    assert {0, 1} <= set(stays)


def test_what_a_kept_set_needs_stays() -> None:
    full = a_set(0)
    nights = [full, *(a_set(day, kind="incremental", needs=(full.id,)) for day in range(1, 20))]
    assert 0 in kept(nights)


def test_the_only_set_stays_whatever_the_rules_say() -> None:
    rules = RetentionSettings(daily=1, weekly=0, monthly=0, yearly=0)
    assert decide([a_set(0)], rules)[0].kept


# ---------------------------------------------------------------------- between two nightly ones
def quarter(day: float, **more: object) -> Manifest:
    begun = START + timedelta(days=day)
    return a_set(day, slot=f"interval-{begun:%Y%m%dT%H%MZ}", **more)


def test_those_between_two_nights_are_kept_for_two_days_and_never_stand_for_a_day() -> None:
    sets = [a_set(day) for day in range(20)]
    sets += [quarter(day + hour / 24) for day in range(20) for hour in (6, 12, 18)]
    verdicts = {v.manifest.id: v for v in decide(sets, RULES)}
    newest = max(one.begun for one in sets)
    for one in sets:
        if one.interval:
            recent = newest - one.begun <= timedelta(hours=48)
            assert bool(verdicts[one.id].kept) == recent, one.id
    assert all(verdicts[one.id].kept for one in sets[13:20])


def test_where_a_day_has_no_nightly_one_the_last_between_stands_for_it() -> None:
    nightly, between = a_set(0), [quarter(1 + hour / 24) for hour in (6, 12)]
    sets = [nightly, *between, *(a_set(day) for day in range(2, 6))]
    verdicts = {v.manifest.id: v for v in decide(sets, RULES)}
    assert verdicts[between[0].id].kept == ()
    assert "last of its day" in verdicts[between[1].id].kept


def test_what_a_recent_one_refers_to_is_kept_with_it() -> None:
    night = a_set(0)
    first = quarter(0.5, needs=(night.id,))
    last = quarter(3, needs=(night.id, first.id))
    rules = RetentionSettings(daily=1, weekly=0, monthly=0)
    assert all(v.kept for v in decide([night, first, last], rules))


def test_when_backups_stop_nothing_more_is_removed() -> None:
    sets = [a_set(0), *(quarter(hour / 24) for hour in range(1, 48))]
    assert all(v.kept for v in decide(sets, RULES))
