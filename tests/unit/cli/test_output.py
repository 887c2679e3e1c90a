"""What `isa` prints: a name is shown as characters, in its line and its cell, on every way to the terminal."""

from __future__ import annotations

import io
import json
import logging
import sys

import pytest
from rich.text import Text

from cli.main import run
from cli.printing import tables
from cli.printing.failures import Reporter
from cli.printing.logs import Line
from cli.printing.output import PlainStream, emit, install_plain_streams, say, terminal
from cli.printing.tables import console, table
from config.text.printable import visible
from operations.documents.retention import Locks, Orphans, Retention
from redaction import MASK, redact
from tests import hostile

SECRET = "tiger\x1bwoods\n4711"
Captured = pytest.CaptureFixture[str]


@hostile.each()
def test_a_line_is_one_line_whatever_a_name_holds(name: str, capsys: Captured) -> None:
    say(f"collection {name} is damaged")

    words = visible(redact(f"collection {name} is damaged"))
    assert capsys.readouterr().out == f"{words}\n"


@hostile.each()
def test_json_holds_the_name_unchanged_and_nothing_that_moves_a_cursor(
    name: str, capsys: Captured
) -> None:
    emit(Retention(
        applied=False, backups=(), orphans=Orphans(uploads=0, objects=0, bytes=0), hidden={name: name}, unread={},
        locks=Locks(until=None, extended=0, refused={}),
    ))  # fmt: skip

    printed = capsys.readouterr().out
    assert printed.replace("\n", "").isprintable()
    stays = redact(name)  # one looks like an address with a password
    assert json.loads(printed)["hidden"] == {stays: stays}


def drawn(name: str, *, colours: bool) -> str:
    target = io.StringIO()
    made = tables.PlainConsole(
        file=target, width=20_000, force_terminal=colours, color_system="256" if colours else None
    )
    made.print(table(f"Title {name}", ("unit", "verdict"), [(name, "pass"), ([name, name], name)]))
    made.print(f"a line about {name}", style="red", highlight=True)
    made.print(Text(f"made elsewhere: {name}".replace("\n", " ")))
    return target.getvalue()


@hostile.each()
def test_a_table_has_no_line_that_a_name_adds(name: str) -> None:
    plain = drawn(name, colours=False)

    lines = plain.splitlines()
    assert len(lines) == 7, plain
    assert all(line.isprintable() for line in lines), plain
    shown = visible(redact(f" {name}"))[1:]
    assert lines[0].rstrip() == f"Title {shown}".rstrip()
    assert lines[2].split() == [*shown.split(), "pass"]
    assert lines[5].rstrip() == f"a line about {shown}".rstrip()


@hostile.each()
def test_the_only_colours_are_our_own(name: str) -> None:
    coloured = drawn(name, colours=True)

    for own in ("\x1b[1m", "\x1b[0m", "\x1b[32m", "\x1b[31m", "\n"):
        coloured = coloured.replace(own, "")
    assert coloured.isprintable(), coloured


def test_a_unit_that_is_called_pass_is_not_green() -> None:
    forged, own = table("", ("unit", "verdict"), [("pass", "pass")]).columns

    assert [str(cell.style) for cell in forged.cells if isinstance(cell, Text)] == [""]
    assert [str(cell.style) for cell in own.cells if isinstance(cell, Text)] == ["green"]


def test_a_name_in_wide_letters_moves_no_column() -> None:
    target = io.StringIO()
    made = tables.PlainConsole(file=target, width=100)
    made.print(table("", ("unit", "verdict"), [("顧客データ", "pass"), ("Größe 🦀", "pass")]))

    from rich.cells import cell_len

    ends = {cell_len(line[: line.index("pass")]) for line in target.getvalue().splitlines()[2:]}
    assert len(ends) == 1


def test_the_stream_shows_what_nobody_has_thought_of() -> None:
    target = io.StringIO()
    redact.remember(SECRET)

    print("a\x1b[2J", "line\nand another", SECRET, file=PlainStream(target))

    assert target.getvalue() == f"a\\x1b[2J line\nand another {MASK}\n"


def test_a_secret_is_hidden_in_the_form_in_which_it_is_shown() -> None:
    redact.remember(SECRET)

    assert redact(f"refused: {visible(SECRET)}") == f"refused: {MASK}"


def test_colours_go_past_the_plain_stream_and_text_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target = io.StringIO()
    monkeypatch.setattr(sys, "stdout", target)
    monkeypatch.setattr(sys, "stderr", target)
    install_plain_streams()

    terminal().write("\x1b[1m")
    print("\x1b[2J")
    console().print("x\x1b[2J")

    assert target.getvalue() == "\x1b[1m\\x1b[2J\nx\\x1b[2J\n"


@hostile.each(hostile.ARGUMENT)
def test_a_command_that_does_not_exist_is_named_in_one_line(name: str, capsys: Captured) -> None:
    arguments = ["plan", f"--{name}" if name.startswith("-") else f"--x{name}"]

    code = run(arguments, Reporter.of([]))

    printed = capsys.readouterr()
    assert code == 2 or "help" in name
    assert all(line.isprintable() for line in printed.err.splitlines())
    if code == 2:
        assert len(printed.err.splitlines()) == 4, printed.err


@hostile.each()
def test_a_failure_is_one_line_and_each_fault_another(name: str, capsys: Captured) -> None:
    Reporter(as_json=False, verbose=False).failed(f"no {name}", [f"a: {name}", "b"])

    lines = capsys.readouterr().err.split("\n")
    shown = visible(redact(f"no {name}")).removeprefix("no ")
    assert lines == [f"isa: no {shown}", f"  • a: {shown}", "  • b", ""]


@pytest.mark.parametrize("verbose", [False, True])
def test_a_librarys_log_has_no_line_that_a_name_adds(verbose: bool) -> None:
    record = logging.LogRecord("library", logging.ERROR, "", 1, "no %s", ("a\x1b[2J",), None)

    text = Line(verbose).format(record)

    assert text.endswith(r"library: no a\x1b[2J") and "\n" not in text
