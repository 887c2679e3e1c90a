"""One text for expressions that mean the same, for PostgreSQL prints what was restored in other words than the source.

`CHECK (s IN ('a', 'b'))` on a varchar is kept, and printed, as `ANY ((ARRAY['a'::character varying, …])::text[])`. A
server that gets this text prints `ANY (ARRAY[('a'::character varying)::text, …])`. So casts and brackets that hold one
thing only are left out of both; everything else counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

# Strings (also with escapes, and between dollars), quoted names, casts, words, and single signs. A dollar within a word
# begins no string.
TOKEN = re.compile(
    r"""[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$|"(?:[^"]|"")*"|::|\w[\w$]*|\S""",
    re.DOTALL,
)
PARTS_OF_WORD = re.compile(r"\w+|\$")  # as digests of all backups have it
# Words behind the first one of a type's name: `format_type_extended`, src/backend/utils/adt/format_type.c.
TYPE_WORDS = frozenset(
    ("varying", "precision", "with", "without", "time", "zone",
     "year", "month", "day", "hour", "minute", "second", "to")
)  # fmt: skip
# A name before a bracket calls something, these do not.
KEYWORDS = frozenset(
    ("AND", "OR", "NOT", "WHERE", "WHEN", "THEN", "ELSE", "ON", "BY", "SELECT", "DEFAULT", "AS", "FROM", "HAVING")
)  # fmt: skip
# Behind a type: `(10,2)`, `(Point,4326)`. The whole rest of a text for each cast would be quadratic.
MODIFIER_TOKENS = 40
PAIRS = {"(": ")", "[": "]"}


@dataclass
class Group:
    """What stands between two brackets so far.

    Attributes:
        bracket: the opening one; "" of the whole.
        pieces: words and what inner brackets hold, printed.
        brackets: for each piece the bracket around it, "" of a word.
    """

    bracket: str = ""
    pieces: list[str] = field(default_factory=list)
    brackets: list[str] = field(default_factory=list)

    def add(self, piece: str, bracket: str = "") -> None:
        """Add a word, or what inner brackets held."""
        self.pieces.append(piece)
        self.brackets.append(bracket)

    @property
    def calls(self) -> bool:
        """Whether a bracket that opens next holds the arguments of something."""
        before = self.pieces[-1] if self.pieces and not self.brackets[-1] else ""
        return before not in KEYWORDS and re.fullmatch(r'\w+|".*"', before, re.DOTALL) is not None


def canonical(text: str) -> str:
    """The text of a definition without casts, without brackets around one thing, and with single spaces."""
    whole = Group()
    open_ = [whole]
    for token in _without_casts(list(_tokens(text))):
        if token in PAIRS:
            open_.append(Group(token))
        elif len(open_) > 1 and token == PAIRS[open_[-1].bracket]:
            closed = open_.pop()
            _close(closed, open_[-1])
        else:
            open_[-1].add(token)
    while len(open_) > 1:  # no text of the server's
        closed = open_.pop()
        open_[-1].add(f"{closed.bracket}{' '.join(closed.pieces)}")
    return " ".join(whole.pieces)


# ---------------------------------------------------------------------- inside
def _close(closed: Group, around: Group) -> None:
    """Add what brackets held to what is around them; without the brackets, where they held one thing."""
    inside = " ".join(closed.pieces)
    if closed.bracket == "(" and len(closed.pieces) == 1:
        if closed.brackets[0] == "(":
            around.add(inside, "(")
            return
        if not closed.brackets[0] and not around.calls:
            around.add(inside)
            return
    around.add(f"{closed.bracket}{inside}{PAIRS[closed.bracket]}", closed.bracket)


def _tokens(text: str) -> Iterator[str]:
    for match in TOKEN.finditer(text):
        if "$" in match[0] and (match[0][0].isalnum() or match[0][0] == "_"):
            yield from PARTS_OF_WORD.findall(match[0])
        else:
            yield match[0]


def _without_casts(tokens: list[str]) -> Iterator[str]:
    at = 0
    while at < len(tokens):
        if tokens[at] != "::":
            yield tokens[at]
            at += 1
            continue
        at += 2  # the cast, and the first word of the type
        while at < len(tokens) and tokens[at] == ".":
            at += 2  # it has a schema
        at = _behind_modifiers(tokens, at)


def _behind_modifiers(tokens: list[str], at: int) -> int:
    """Where a type's name ends: further words, a length or a precision, dimensions."""
    while at < len(tokens):
        if tokens[at] in TYPE_WORDS:
            at += 1
        elif tokens[at] == "(" and ")" in tokens[at : at + MODIFIER_TOKENS]:
            at = tokens.index(")", at) + 1
        elif tokens[at : at + 2] == ["[", "]"]:
            at += 2
        else:
            break
    return at
