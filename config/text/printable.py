"""Escapes foreign text for people: a tenant's name, a message of an engine or a tool, an argument.

A name may hold characters that clear a terminal, forge a log line, reverse the order of letters, or are invisible.
`visible` shows such a character in Python's notation (`\x1b`, `\n`, `\u202e`) and leaves every other one unchanged, so
that umlauts, CJK and emoji stay. It is applied where text leaves for people: the terminal (`cli.printing`),
log records (`redaction`), states, artifacts and events (`tasks`), pictures and pages (`operations.report.svg`,
`operations.report.html`).

Escaping twice gives the same as escaping once. So a backslash stays one, and a name with a backslash before an `n`
looks like one with a newline; `--json` tells them apart.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

# Characters that Python calls printable but that are invisible: fillers, variation selectors (DerivedCoreProperties.txt
# of Unicode 15.1, Default_Ignorable_Code_Point), and the braille pattern without dots. The two selectors of ordinary
# emoji, U+FE0E and U+FE0F, stay.
UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0d\uffa0\U000e0100-\U000e01ef]"
)
MARKS = 4  # combining marks on one letter: no script needs more


def first_of(texts: Sequence[str], most: int) -> list[str]:
    """Return the first of some texts and the number of the others, for a message that stays short."""
    more = [f"and {len(texts) - most} more"] if len(texts) > most else []
    return [*texts[:most], *more]


class _Shown(dict[int, str]):
    """A table for `str.translate` that caches its entries.

    Args:
        kept: characters that are never escaped.
    """

    def __init__(self, kept: str = "") -> None:
        super().__init__()
        self._kept = kept

    def __missing__(self, code: int) -> str:
        character = chr(code)
        stays = character in self._kept or (character.isprintable() and not UNSEEN.match(character))
        self[code] = character if stays else _notation(code)
        return self[code]


_ONE_LINE, _LINES = _Shown(), _Shown(kept="\n")


def visible(text: str, *, lines: bool = False) -> str:
    """Return the text with every character escaped that moves a cursor, changes its surroundings, or is invisible.

    Args:
        text: anything, including half of a surrogate pair: the result can be encoded as UTF-8.
        lines: whether its newlines are the project's own, and stay.
    """
    shown = text.translate(_LINES if lines else _ONE_LINE)
    return shown if shown.isascii() else "".join(_few_marks(shown))


def json_text(document: Any, indent: int | None = None) -> str:
    """Return JSON that moves no cursor: everything but printable ASCII is escaped, so every name stays exact."""
    # the one control character that JSON does not escape
    return json.dumps(document, indent=indent, default=str).replace("\x7f", "\\u007f")


def _notation(code: int) -> str:
    """Return the character as `repr` writes it, with a letter's escape if it has one."""
    short = {0x09: "\\t", 0x0A: "\\n", 0x0D: "\\r"}
    if code in short:
        return short[code]
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _few_marks(text: str) -> Iterator[str]:
    """Return the text with combining marks escaped that have no base character before them, or are too many.

    The first would change a quote or a space of our own before the name; a pile covers the lines above and below.
    """
    room = 0
    for character in text:
        kind = unicodedata.category(character)[0]
        if kind != "M":
            carries = kind in "LN" or (kind == "S" and not character.isascii())
            room = MARKS if carries else 0
        elif room:
            room -= 1
        else:
            yield _notation(ord(character))
            continue
        yield character
