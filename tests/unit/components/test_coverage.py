import re
from importlib import import_module

from components import SETS
from config.loading import ROOT

TEXT = (ROOT / "docs/reference/coverage.md").read_text().partition("## Never in a backup")[2]


def test_the_document_says_what_no_set_holds_and_nothing_else() -> None:
    sections = re.split(r"^\*\*.+\*\*$", TEXT, flags=re.MULTILINE)[1:]
    said = [tuple(re.findall(r"^- (.+)$", section, re.MULTILINE)) for section in sections]
    known = [import_module(f"components.{name}.backup").NOT_COVERED for name in SETS]
    assert said == known
