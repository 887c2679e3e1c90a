"""Foreign text as characters that people see: a tenant's name, an engine's or a tool's words, an argument.

A name may hold what clears a terminal, forges a line of a log, turns the order of letters, or cannot be seen. `visible`
shows such a character in the notation of Python (`\\x1b`, `\\n`, `\\u202e`) and leaves every other one as it is, so
that umlauts, CJK and emoji stay. It is applied where text leaves for people: the terminal (`cli.output`, `cli.tables`),
log records (`redaction`), states, artifacts and events (`tasks`), pictures and pages (`operations.report.svg`,
`operations.report.html`).

What is shown twice is the same as what is shown once. So a backslash stays one, and a name with a backslash before an
`n` looks like one with a newline; `--json` tells them apart.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

# Characters that Python calls printable and nobody sees: fillers and selectors of variants (DerivedCoreProperties.txt
# of Unicode 15.1, Default_Ignorable_Code_Point), and the braille pattern without dots. The two selectors of ordinary
# emoji, U+FE0E and U+FE0F, stay.
UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0d\uffa0\U000e0100-\U000e01ef]"
)
MARKS = 4  # combining marks on one letter: no script needs more


def first_of(texts: Sequence[str], most: int) -> list[str]:
    """The first of some texts, and how many more there are, for a message that stays short."""
    more = [f"and {len(texts) - most} more"] if len(texts) > most else []
    return [*texts[:most], *more]


class _Shown(dict[int, str]):
    """A table for `str.translate`, which keeps what it has worked out.

    Args:
        kept: characters that stay, whatever they are.
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
    """The text with every character shown that moves a cursor, changes what stands beside it, or is not seen.

    Args:
        text: anything, half of a surrogate pair too: what is given back can be encoded as UTF-8.
        lines: whether its newlines are the project's own, and stay.
    """
    shown = text.translate(_LINES if lines else _ONE_LINE)
    return shown if shown.isascii() else "".join(_few_marks(shown))


def json_text(document: Any, indent: int | None = None) -> str:
    """JSON in which every name is what it is, and which moves no cursor: all but printable ASCII is escaped."""
    # the one control character that JSON does not escape
    return json.dumps(document, indent=indent, default=str).replace("\x7f", "\\u007f")


def _notation(code: int) -> str:
    """As `repr` writes it, with a letter's escape for the few that have one."""
    short = {0x09: "\\t", 0x0A: "\\n", 0x0D: "\\r"}
    if code in short:
        return short[code]
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _few_marks(text: str) -> Iterator[str]:
    """The text with those combining marks shown that have no letter or sign before them, or too many marks.

    The first would change a quote or a blank before the name, which is ours; a pile covers the lines above and below.
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
