"""Each claim of the threat model names a test that exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs/reference/threat-model.md").read_text()
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
ROW = re.compile(r"^\| (?P<attack>[^|]+) \| [^|]+ \| (?P<test>[^|]*) \|$", re.MULTILINE)


@cache
def functions_in(file: str) -> frozenset[str]:
    path = ROOT / file
    if not path.is_file():
        return frozenset()
    nodes = ast.walk(ast.parse(path.read_text()))
    return frozenset(
        node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


def test_every_test_that_the_threat_model_names_exists() -> None:
    named = NAMED.findall(DOCUMENT)
    assert len(named) > 20
    assert [f"{file}::{test}" for file, test in named if test not in functions_in(file)] == []


def test_every_attack_of_the_threat_model_has_a_test() -> None:
    _, _, claims = DOCUMENT.partition("## Bucket and backups")
    rows = [row for row in ROW.finditer(claims) if row["test"] not in ("test", "---")]
    assert len(rows) > 15
    assert [row["attack"] for row in rows if not NAMED.search(row["test"])] == []
