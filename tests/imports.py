"""Draws who imports whom: `python -m tests.imports` writes docs/images/imports.svg, which ARCHITECTURE.md shows.

Rows import columns. Both are in the order of the layers, so an import against the order would lie below the diagonal.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "images" / "imports.svg"
CELL, MARGIN = 26, 170  # points
STYLE = "font: 12px sans-serif"


def rooms() -> list[str]:
    """Packages in the order of the layers, the highest first, those of `operations` by themselves."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = {one["name"]: one for one in settings["tool"]["importlinter"]["contracts"]}
    use_cases = contracts["Use cases build on earlier ones"]["layers"]
    found: list[str] = []
    for layer in contracts["Imports go one way"]["layers"]:
        names = layer.split(" | ")
        found += [f"operations.{one}" for one in use_cases] if names == ["operations"] else names
    return found


def imports(names: list[str]) -> set[tuple[str, str]]:
    """Which packages import which: (who, whom)."""
    graph = grimp.build_graph(*sorted({name.partition(".")[0] for name in names}), cache_dir=None)
    room = {
        module: next((name for name in names if f"{module}.".startswith(f"{name}.")), "")
        for module in graph.modules
    }
    return {
        (mine, room[other])
        for module, mine in room.items()
        for other in graph.find_modules_directly_imported_by(module)
        if mine and room[other] not in ("", mine)
    }


def draw() -> str:
    """The picture as SVG."""
    names = rooms()
    found = imports(names)
    size = MARGIN + CELL * len(names)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}" width="{size}" style="{STYLE}">',
        f'<rect width="{size}" height="{size}" fill="#ffffff"/>',
    ]
    for row, name in enumerate(names):
        y, x = MARGIN + CELL * row, MARGIN + CELL * row
        parts += [
            f'<text x="{MARGIN - 8}" y="{y + 18}" text-anchor="end">{name}</text>',
            f'<text transform="translate({x + 18} {MARGIN - 8}) rotate(-90)">{name}</text>',
            f'<rect x="{x}" y="{y}" width="{CELL}" height="{CELL}" fill="#8a8f94"/>',
        ]
        for column, other in enumerate(names):
            colour = "#0072b2" if (name, other) in found else "none"
            parts.append(
                f'<rect x="{MARGIN + CELL * column}" y="{y}" width="{CELL}" height="{CELL}" fill="{colour}" '
                'stroke="#d0d4d8"/>'
            )
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
