"""Foreign text is shown as characters: none moves a cursor, adds a line, turns the order, or cannot be seen."""

from __future__ import annotations

import unicodedata

import pytest

from config.text.printable import visible
from tests import hostile


@hostile.each()
def test_no_character_of_a_hostile_name_is_invisible_or_moves_anything(name: str) -> None:
    shown = visible(name)

    assert shown.isprintable()
    assert "\n" not in shown
    assert len(shown) >= len(name)
    shown.encode("utf-8")


@hostile.each()
def test_what_is_shown_twice_is_the_same_as_once(name: str) -> None:
    assert visible(visible(name)) == visible(name)
    assert visible(visible(name, lines=True), lines=True) == visible(name, lines=True)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("\x1b[2J", r"\x1b[2J"),
        ("a\nb\r\tc\0", r"a\nb\r\tc\x00"),
        ("\x7f\x9b", r"\x7f\x9b"),
        ("invoice\u202efdp.exe", r"invoice\u202efdp.exe"),
        ("pay\u200broll\u00ad", r"pay\u200broll\xad"),
        ("a\u2028b", r"a\u2028b"),
        ("\U000e0041", r"\U000e0041"),
        ("a\ud800", r"a\ud800"),
        ("x\u3164\ufe00\u2800", r"x\u3164\ufe00\u2800"),
        ("\u00a0", r"\xa0"),
    ],
)
def test_a_character_is_shown_in_the_notation_of_python(name: str, shown: str) -> None:
    assert visible(name) == shown


@pytest.mark.parametrize(
    "name",
    [
        "Größe",
        "Gro\u0308ße",
        "顧客データ",
        "🦀🧨❤️",
        "naïve_table-2",
        "a b",
        r"C:\new",
        "ผู้ใช้",
        "हिन्दी",
        "שָׁלוֹם",
    ],
)
def test_an_ordinary_name_stays_as_it_is(name: str) -> None:
    assert visible(name) == name


@pytest.mark.parametrize("before", ["", " ", "'", "(", "`"])
def test_a_mark_without_a_letter_does_not_change_what_stands_before_the_name(before: str) -> None:
    assert visible(f"{before}\u0338ok") == rf"{before}\u0338ok"


def test_a_pile_of_marks_covers_no_other_line() -> None:
    shown = visible("a" + "\u0301" * 40 + "b\u0301")

    assert shown == "a" + "\u0301" * 4 + r"\u0301" * 36 + "b\u0301"


def test_newlines_of_our_own_stay_where_they_are_asked_for() -> None:
    assert visible("a\nb\r\n\x85", lines=True) == "a\nb\\r\n\\x85"


def test_every_character_that_is_not_seen_is_shown() -> None:
    kinds: dict[str, list[str]] = {}
    for code in range(0x110000):
        kinds.setdefault(unicodedata.category(chr(code)), []).append(chr(code))

    for kind in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        everything = "".join(kinds[kind])
        assert not set(visible(everything)) & set(everything), kind
    for kind in ("Pc", "Pd", "Pe", "Ps", "Po", "Sc", "Sk", "Sm", "So", "Nd", "Lu"):
        everything = "".join(kinds[kind]).replace("\u2800", "")
        assert visible(everything) == everything, kind
