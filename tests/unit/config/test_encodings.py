"""Files are read and written as UTF-8 whatever the locale of a shell, a pod or a cron job is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from config.loading import ROOT

PACKAGES = (
    "archive", "cli", "cluster", "components", "config", "flows", "operations", "sandbox", "tasks",
)  # fmt: skip
# function → number of positional arguments, the encoding with them
TEXT_CALLS = {"read_text": 1, "write_text": 2, "open": 4, "fdopen": 4}


def product_files() -> Iterator[Path]:
    yield from ROOT.glob("*.py")
    for package in PACKAGES:
        yield from (ROOT / package).rglob("*.py")


def by_locale(tree: ast.AST) -> Iterator[int]:
    """Lines of the calls that would leave the encoding to the locale."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        builtin = isinstance(function, ast.Name) and function.id == "open"
        method = isinstance(function, ast.Attribute) and function.attr in (
            "read_text", "write_text", "fdopen",
        )  # fmt: skip
        if not (builtin or method):
            continue
        name = function.id if isinstance(function, ast.Name) else function.attr  # type: ignore[attr-defined]
        modes = [
            word.value
            for word in [*node.args[1:2], *(k.value for k in node.keywords if k.arg == "mode")]
            if isinstance(word, ast.Constant)
        ]
        binary = any(isinstance(mode, str) and "b" in mode for mode in modes)
        told = any(k.arg == "encoding" for k in node.keywords) or len(node.args) >= TEXT_CALLS[name]
        if not told and not (binary and name in ("open", "fdopen")):
            yield node.lineno


def test_no_file_is_read_or_written_in_the_encoding_of_the_locale() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in product_files()
        for line in by_locale(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert found == []


def test_a_call_without_an_encoding_is_seen() -> None:
    calls = 'open("a")\nopen("a", "rb")\nx.read_text()\nx.write_text("a", "utf-8")\nx.read_text(encoding="ascii")\n'
    assert list(by_locale(ast.parse(calls))) == [1, 3]
