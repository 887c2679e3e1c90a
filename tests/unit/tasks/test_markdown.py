"""In Markdown a name is a name: a parser finds no heading, link, picture, HTML or row that a name has made."""

from __future__ import annotations

import time

import pytest

from config.text.printable import visible
from redaction import MASK, redact
from tasks.pages.markdown import (
    Markdown,
    bold,
    cells,
    code,
    escape,
    picture,
    plain_cells,
    table,
    unescape,
)
from tests import hostile, markdown_reader


def shown(name: str) -> str:
    """What a person is to read: one name looks like an address with a password, and blanks at ends are not seen."""
    return visible(redact(name)).strip(" ")


@hostile.each()
def test_a_name_alone_makes_no_mark_and_is_read_as_it_is(name: str) -> None:
    text = escape(name)

    assert redact(text) == text  # an artifact is redacted once more where it leaves
    assert markdown_reader.marks(text) == set()
    assert markdown_reader.read(text) == shown(name)


@hostile.each()
def test_a_name_in_a_line_makes_no_mark(name: str) -> None:
    text = Markdown("- {}, in {place}: {}").format(name, code(name), place=name)

    assert markdown_reader.marks(text) == {"bullet_list", "list_item"}


@hostile.each()
def test_a_name_in_bold_letters_is_at_most_bold(name: str) -> None:
    assert markdown_reader.marks(bold(name)) <= {"strong"}


@hostile.each()
def test_a_name_in_a_table_adds_no_row_and_no_column(name: str) -> None:
    text = "\n".join(table(("unit", name), [(name, "pass"), ([name, "more"], code(name))]))

    assert markdown_reader.marks(text) - {"html_inline"} == {
        "table", "thead", "tbody", "tr", "th", "td"
    }  # fmt: skip
    assert [t.content for t in markdown_reader.tokens(text) if t.type == "html_inline"] == ["<br>"]
    first, second = markdown_reader.cells(text)
    assert first == [shown(name), "pass"]
    assert second[0].startswith(shown(name)) and second[0].endswith("more")


@hostile.each()
def test_a_name_in_the_words_of_a_picture_ends_them_not(name: str) -> None:
    text = redact(picture(f"Timeline. {name}", "data:image/svg+xml;base64,AAAA"))

    (image,) = (t for t in markdown_reader.tokens(text) if t.type == "image")
    assert image.attrs["src"] == "data:image/svg+xml;base64,AAAA"
    assert markdown_reader.marks(text) == {"image"}


@hostile.each()
def test_a_row_of_a_table_artifact_is_read_back_as_it_was_shown(name: str) -> None:
    """The first UI takes its cells for Markdown, and `isa` reads them: both get the name."""
    row = {"name": name, "seconds": 1.5}

    assert markdown_reader.marks(cells(row)["name"]) == set()
    assert plain_cells(cells(row)) == {"name": shown(name), "seconds": 1.5}


def test_what_is_ours_stays_markdown() -> None:
    assert escape(bold("a*b")) == r"**a\*b**"
    assert Markdown("{}, {:,} and {}").format(code("a"), 1234, "*") == r"`a`, 1,234 and \*"


@pytest.mark.parametrize(
    "name", ["Größe", "pg_dump_custom", "顧客データ", "a-b.c: 1.5 s, 2/3 (ok)"]
)
def test_an_ordinary_name_is_written_as_it_is(name: str) -> None:
    assert escape(name) == name
    assert unescape(name) == name


def test_an_address_is_code_since_one_of_the_uis_links_it_in_spite_of_escapes() -> None:
    assert escape("see https://evil.example/a_b!") == "see `https://evil.example/a_b!`"
    assert markdown_reader.marks(r"https\://evil.example") == {"bare link"}


def test_a_secret_is_hidden_before_its_characters_are_escaped() -> None:
    secret = "tig_er*wo|ods<4711>"
    redact.remember(secret)

    for text in (escape(f"refused: {secret}"), code(secret), *table(("a",), [(secret,)])[2:]):
        assert MASK in text
        assert "4711" not in text


def test_a_long_word_takes_no_longer_than_its_letters() -> None:
    begun = time.thread_time()
    for word in ("a", "a.", "www", "_a", "a@"):
        escape(word * (30_000 // len(word)))
    assert time.thread_time() - begun < 3  # it was more for each of them
