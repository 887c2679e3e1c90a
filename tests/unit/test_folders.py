"""A stranger finds a place by the names of folders, so none holds so many files that they have to be read through."""

from __future__ import annotations

from collections import Counter

from config.loading import ROOT

PRODUCT = (
    "archive", "cli", "cluster", "components", "config", "flows", "operations", "sandbox", "tasks",
)  # fmt: skip
MOST = 10  # files, besides the one that makes it a package


def test_no_folder_of_the_product_has_more_than_ten_files() -> None:
    files = [
        path.relative_to(ROOT)
        for top in PRODUCT
        for path in (ROOT / top).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.name != "__init__.py"
    ]
    full = Counter(str(file.parent) for file in files)
    assert {folder: count for folder, count in full.items() if count > MOST} == {}
