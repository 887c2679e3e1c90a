from importlib import import_module
from pathlib import Path

import pytest

from components import SETS

TEXT = (Path(__file__).resolve().parents[3] / "docs/coverage.md").read_text()


@pytest.mark.parametrize("component", list(SETS))
def test_the_document_says_what_no_set_holds(component: str) -> None:
    for line in import_module(f"components.{component}.backup").NOT_COVERED:
        assert f"- {line}\n" in TEXT
