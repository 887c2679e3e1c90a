"""The sandbox's helmfile is production's but for charts, overlays and Neo4j's members."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from yaml import CSafeLoader

from config.loading import ROOT, load

from .rendering import CHARTS, PRODUCTION, SANDBOX, releases

OVERLAYS = SANDBOX.parent / "values"


def read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.load(path.read_text(), Loader=CSafeLoader)
    return document


def entries(path: Path) -> list[dict[str, Any]]:
    """The releases as written, without what may differ: chart and values."""
    return [
        {key: value for key, value in entry.items() if key not in ("chart", "values")}
        for entry in read(path)["releases"]
    ]


def missing_members() -> set[str]:
    members = load("sandbox", {}).components.neo4j.members
    return {name for name in releases(PRODUCTION) if name.startswith("neo4j-")} - {
        "neo4j-headless",
        *(f"neo4j-{number}" for number in range(1, members + 1)),
    }


def test_releases_are_productions_in_its_order_without_the_members_that_are_not_there() -> None:
    absent = missing_members()
    wanted = [entry for entry in entries(PRODUCTION) if entry["name"] not in absent]

    assert absent == {"neo4j-2", "neo4j-3"}
    assert entries(SANDBOX) == wanted


def test_defaults_are_productions() -> None:
    assert read(SANDBOX)["helmDefaults"] == read(PRODUCTION)["helmDefaults"]
    assert set(read(SANDBOX)) == set(read(PRODUCTION)) - {"repositories"}


@pytest.mark.parametrize("name", releases(SANDBOX))
def test_charts_are_stand_ins_of_the_same_name_and_version(name: str) -> None:
    chart = releases(SANDBOX)[name].chart
    original = releases(PRODUCTION)[name]
    about = read(Path(chart) / "Chart.yaml")

    assert Path(chart).parent == CHARTS
    assert about["name"] == original.chart.rpartition("/")[2]
    assert about["version"] == original.version


@pytest.mark.parametrize("name", releases(SANDBOX))
def test_values_are_productions_and_then_overlays(name: str) -> None:
    original = releases(PRODUCTION)[name].values
    values = releases(SANDBOX)[name].values
    added = values[len(original) :]

    assert values[: len(original)] == original
    assert all(isinstance(value, Path) and value.parent == OVERLAYS for value in added)


def test_every_overlay_is_used_and_says_nothing_about_size() -> None:
    used = {
        value
        for release in releases(SANDBOX).values()
        for value in release.values
        if isinstance(value, Path) and value.parent == OVERLAYS
    }

    assert used == set(OVERLAYS.glob("*.yaml"))
    for overlay in used:
        assert "resources" not in overlay.read_text()
        assert "storage" not in overlay.read_text()


def test_no_archive_of_a_real_chart_lies_in_the_tree() -> None:
    folders = [
        one for one in ROOT.iterdir() if one.is_dir() and one.name[0] != "." and one.name != "build"
    ]
    assert [
        file for folder in folders for end in ("*.tgz", "*.tar.gz") for file in folder.rglob(end)
    ] == []
