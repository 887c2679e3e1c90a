"""Contracts are recorded from chart archives: every field with its type, the same bytes each time."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.contracts import record
from tests.contracts.shape import field_paths, value_keys

from .rendering import CHARTS, production


def config_map(data: dict[str, Any], name: str = "one") -> dict[str, Any]:
    return {"kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def archive(chart: str, directory: Path) -> Path:
    path = directory / f"{chart}.tgz"
    with tarfile.open(path, "w:gz") as opened:
        opened.add(CHARTS / chart, arcname=chart)
    return path


@pytest.fixture
def contracts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(record, "CONTRACTS", tmp_path)
    return tmp_path


def test_a_field_has_the_type_of_its_value_and_an_empty_one_stands_as_it_is() -> None:
    data = {"a": "x", "b": 1, "c": True, "d": None, "e": {}, "f": [], "g": "", "h": False, "i": 1.5}

    assert field_paths({"one": [config_map(data)]})["ConfigMap/one"] == {
        "kind": "string",
        "metadata.name": "string",
        "data.a": "string",
        "data.b": "int",
        "data.c": "bool",
        "data.d": "null",
        "data.e": "{}",
        "data.f": "[]",
        "data.g": '""',
        "data.h": "false",
        "data.i": "float",
    }


def test_items_go_by_their_name_and_nameless_ones_are_taken_together() -> None:
    data = {
        "env": [{"name": "A", "value": "1"}, {"name": "B", "value": None}],
        "mounts": [{"name": "tmp", "mountPath": "/a"}, {"name": "tmp", "mountPath": "/b"}],
        "claims": [{"metadata": {"name": "data"}}],
        "args": ["x", 1],
        "rules": [{"port": 1}, {"port": "http"}],
    }
    fields = field_paths({"one": [config_map(data)]})["ConfigMap/one"]

    assert {path: kind for path, kind in fields.items() if path.startswith("data")} == {
        "data.env[A].name": "string",
        "data.env[A].value": "string",
        "data.env[B].name": "string",
        "data.env[B].value": "null",
        "data.mounts[/a].name": "string",
        "data.mounts[/a].mountPath": "string",
        "data.mounts[/b].name": "string",
        "data.mounts[/b].mountPath": "string",
        "data.claims[data].metadata.name": "string",
        "data.args[]": "int | string",
        "data.rules[].port": "int | string",
    }


def test_releases_of_one_chart_are_one_object() -> None:
    releases = {
        f"n-{number}": [config_map({f"n-{number}": "x"}, name=f"n-{number}-env")]
        for number in (1, 2)
    }

    assert field_paths(releases) == {
        "ConfigMap/{release}-env": {
            "kind": "string",
            "metadata.name": "string",
            "data.{release}": "string",
        }
    }


def test_value_keys_have_the_type_of_the_default() -> None:
    assert value_keys({"a": {"b": 1, "c": {}}, "d": None}) == {
        "a.b": "int",
        "a.c": "map",
        "d": "null",
    }


def test_the_same_archive_gives_the_same_bytes(contracts: Path) -> None:
    path = archive("neo4j", contracts)

    assert record.main([str(path)]) == 0
    first = (contracts / "neo4j.json").read_bytes()
    production.cache_clear()
    assert record.main([str(path)]) == 0
    assert (contracts / "neo4j.json").read_bytes() == first
    assert "StatefulSet/{release}" in json.loads(first)["paths"]


def test_nothing_is_written_unless_every_archive_is_a_chart_of_production(
    contracts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = archive("qdrant", contracts), contracts / "bad.tgz"
    bad.write_text("no archive")

    assert record.main([str(good), str(bad)]) == 2
    assert "bad.tgz: not a chart archive" in capsys.readouterr().err
    assert not list(contracts.glob("*.json"))
