"""The reference of the commands is the one that the commands give."""

from __future__ import annotations

from cli.main import COMMANDS
from cli.reference import reference
from config.loading import ROOT


def test_the_document_is_up_to_date() -> None:
    document = (ROOT / "docs/reference/cli.md").read_text(encoding="utf-8")
    assert document == reference(), "run: python -m cli.reference > docs/reference/cli.md"


def test_every_command_has_a_section_with_its_options() -> None:
    text = reference()
    for name in COMMANDS:
        assert f"\n## isa {name}\n\n`isa {name}" in text
    assert "\n## isa sandbox up\n" in text
    assert "| `--other-cluster` |" in text
