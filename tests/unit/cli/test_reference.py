"""The reference of the commands is the one that the commands give."""

from __future__ import annotations

import re

import click
import pytest

from cli.main import COMMANDS, SECTIONS, isa, run
from cli.printing.failures import Reporter
from cli.reference import reference
from config.loading import ROOT


def test_the_document_is_up_to_date() -> None:
    document = (ROOT / "docs/reference/cli.md").read_text(encoding="utf-8")
    assert document == reference(), "run: python -m cli.reference > docs/reference/cli.md"


def test_a_hidden_command_has_no_section_and_hides_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hidden = isa.get_command(click.Context(isa), "charts")
    monkeypatch.setattr(hidden, "hidden", True)
    text = reference()
    assert "\n## isa charts\n" not in text
    assert "\n## isa deploy\n" in text and "\n## isa worker\n" in text


def test_the_help_lists_every_command_in_its_section_with_its_first_sentence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["--help"], Reporter.of([])) == 0
    lines = capsys.readouterr().out.splitlines()
    heads = [line.strip() for line in lines if line.endswith(":") and not line.startswith("    ")]
    assert heads == ["Options:", *(f"{title}:" for title in SECTIONS), "Try it:"]
    named = [line.split()[0] for line in lines if re.match(r"  [a-z]", line)]
    assert named == [*COMMANDS, "sandbox"]
    assert any(line.split()[:2] == ["deploy", "Deploy"] for line in lines)


def test_every_command_has_a_section_with_its_options() -> None:
    text = reference()
    for name in COMMANDS:
        assert f"\n## isa {name}\n\n`isa {name}" in text
    assert "\n## isa sandbox up\n" in text
    assert "| `--other-cluster` |" in text
