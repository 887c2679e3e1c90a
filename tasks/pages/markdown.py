"""Markdown for Prefect's UI in which foreign text stays text: no heading, link, picture, HTML or line of its own.

Every text that is not `Markdown` already is escaped when it is put into one, as markupsafe does for HTML. Both UIs of
Prefect 3.8.8 were read: the first passes every cell of a table artifact to marked (GFM, HTML sanitised, pictures of any
address shown); the second draws Markdown artifacts with remark, which makes links of bare addresses even if a character
of them is escaped. So an address is written as code, and everything else with backslashes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from redaction import redact, shown

# What becomes a link by itself (GFM, "autolinks (extension)"). remark looks for it in text whose escapes are gone
# (mdast-util-gfm-autolink-literal, transformGfmAutolinkLiterals).
# Bounded: a long word would otherwise be read again from each of its letters.
ADDRESS = re.compile(
    r"(?:\b\w[\w+.-]{0,40}://|\b(?:mailto|xmpp):|\bwww\.)[^\s`|\\]*|[\w.+-]{0,64}@[\w.-]+",
    re.IGNORECASE,
)
# What begins something in the midst of a line; an underscore between two letters does not.
INLINE = re.compile(r"[\\`*\[\]<~|]|(?<![^\W_])_|_(?![^\W_])|&(?=[#\w])")
# What begins something at the start of a line: heading, quote, list, rule, underline of a heading.
START = re.compile(r"^(\d{0,9})([#>+=.)-])")


class Markdown(str):
    """Text that is Markdown already."""

    __slots__ = ()

    def format(self, *values: object, **named: object) -> Markdown:
        """As `str.format`; arguments are escaped, unless they are Markdown or numbers."""
        words = {key: _argument(value) for key, value in named.items()}
        return Markdown(super().format(*map(_argument, values), **words))


def escape(words: object) -> Markdown:
    """A text as the same characters in Markdown, on one line; Markdown stays as it is."""
    if isinstance(words, Markdown):
        return words
    text = shown(str(words)).strip(" ")  # secrets first: once escaped they would not be recognised
    parts, end = [], 0
    for found in ADDRESS.finditer(text):
        parts += [INLINE.sub(r"\\\g<0>", text[end : found.start()]), f"`{found[0]}`"]
        end = found.end()
    parts.append(INLINE.sub(r"\\\g<0>", text[end:]))
    return Markdown(START.sub(r"\1\\\2", "".join(parts)))


def unescape(text: str) -> str:
    """Return the text from which `escape` made this, except blanks at its ends and control characters."""
    return re.sub(r"\\(.)|`", lambda found: found[1] or "", text)


def bold(words: object) -> Markdown:
    """In bold letters."""
    inside = escape(words)
    return Markdown(f"**{inside}**") if inside else inside


def code(words: object) -> Markdown:
    """As code, if nothing in it would end the code; escaped otherwise."""
    text = str(words)
    plain = re.fullmatch(r"[\w./:@+-]+", text) and redact(text) == text
    return Markdown(f"`{text}`") if plain else escape(text)


def picture(words: str, address: str) -> Markdown:
    """A picture.

    Args:
        words: alternative text.
        address: created by isa, never foreign.
    """
    return Markdown(
        f"![{escape(words)} ]({address})"
    )  # the blank ends a credential for `redaction`


def table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> list[Markdown]:
    """The lines of a table.

    Args:
        columns: their heads.
        rows: their cells; one that is a sequence has a line for each of its members.
    """
    heads = [escape(column) for column in columns]
    return [_row(heads), _row([Markdown("---")] * len(heads)), *(_row(map(_cell, r)) for r in rows)]


def cells(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a table artifact, whose texts Prefect's first UI reads as Markdown; `plain_cells` reverses it."""
    return {key: escape(value) if isinstance(value, str) else value for key, value in row.items()}


def plain_cells(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row that was read from a table artifact, as plain text."""
    return {key: unescape(value) if isinstance(value, str) else value for key, value in row.items()}


# ---------------------------------------------------------------------- inside
def _row(parts: Iterable[str]) -> Markdown:
    return Markdown(f"| {' | '.join(parts)} |")


def _cell(value: object) -> str:
    lines = value if isinstance(value, (list, tuple)) else (value,)
    return " <br> ".join(escape(line) for line in lines)


def _argument(value: object) -> object:
    return escape(value) if isinstance(value, str) else value
