"""Reads Markdown as a person sees it: which marks it makes, and the text between them."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator

from markdown_it import MarkdownIt
from markdown_it.token import Token

# Beside CommonMark: tables and strikethrough, and HTML is let through, so that it would be seen here.
PARSER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
# It refuses some addresses, among them those of our own pictures; here every one counts.
PARSER.validateLink = lambda url: True  # type: ignore[method-assign]
# What GFM turns into a link by itself. Prefect's second UI looks for it in text whose escapes are gone (two patterns
# of transformGfmAutolinkLiterals in mdast-util-gfm-autolink-literal), its first one earlier (marked, inline.url).
BARE_LINK = re.compile(
    r"(?:https?://|ftp://|www(?=\.))[-.\w]+|(?:^|\s|[^\w\s])[-.\w+]+@[-\w]+(?:\.[-\w]+)+", re.IGNORECASE
)  # fmt: skip


@functools.lru_cache(maxsize=2)
def parse(text: str) -> tuple[Token, ...]:
    """A text is asked for its tokens, its marks and its cells: it is parsed for the first of them."""
    return tuple(PARSER.parse(text))


def tokens(text: str) -> Iterator[Token]:
    """All tokens, those inside of others too."""
    for token in parse(text):
        yield token
        yield from token.children or ()


def marks(text: str) -> set[str]:
    """The kinds of marks that a text makes: `heading`, `link`, `image`, `html_inline`, `table` …"""
    plain = {"text", "inline", "paragraph", "code_inline", "softbreak", "text_special"}
    kinds = {re.sub("_(open|close)$", "", token.type) for token in tokens(text)}
    linked = any(BARE_LINK.search(words) for words in _texts(text))
    return (kinds - plain) | ({"bare link"} if linked else set())


def read(text: str) -> str:
    """The characters that a person reads."""
    return "".join(
        "\n" if token.content == "<br>" else token.content
        for token in tokens(text)
        if token.type in ("text", "code_inline", "html_inline", "html_block")
    )


def cells(text: str) -> list[list[str]]:
    """The cells of all tables in a text, row by row, their heads left out."""
    rows: list[list[str]] = []
    opened = False
    for token in parse(text):
        if token.type == "tr_open":
            rows.append([])
        elif token.type in ("td_open", "td_close"):
            opened = token.type == "td_open"
        elif opened and token.type == "inline":
            words = (t.content for t in token.children or () if t.type in ("text", "code_inline"))
            rows[-1].append("".join(words))
    return [row for row in rows if row]


def _texts(text: str) -> Iterator[str]:
    """What stands between marks, neighbours joined: remark joins them before it looks for links."""
    for token in parse(text):
        joined = ""
        for child in token.children or ():
            if child.type == "text":
                joined += child.content
            else:
                yield joined
                joined = ""
        yield joined
