from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.helm.releases import load_releases
from errors import ConfigurationError

COMPONENTS = ("postgresql", "redis", "nats")


def release(name: str, component: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "namespace": "isa",
        "chart": "repo/chart",
        "version": "1.2.3",
        "labels": {"component": component},
        **more,
    }


def write(tmp_path: Path, *releases: dict[str, Any], **top: Any) -> Path:
    file = tmp_path / "helmfile.yaml"
    document = {
        "repositories": [{"name": "repo", "url": "https://charts.example"}],
        "releases": list(releases),
        **top,
    }
    file.write_text(yaml.safe_dump(document))
    return file


def faults(file: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_releases(file, COMPONENTS)
    return str(caught.value)


def test_a_release_says_where_its_chart_comes_from(tmp_path: Path) -> None:
    oci = [
        {"name": "oci", "url": "registry.example/charts", "oci": True},
        {"name": "repo", "url": "https://c.example/"},
    ]
    file = write(
        tmp_path, release("r", "redis", chart="oci/redis"), release("n", "nats"), repositories=oci
    )
    first, second = load_releases(file, COMPONENTS).releases
    assert (first.chart, first.repository) == ("oci://registry.example/charts/redis", "")
    assert (second.chart, second.repository) == ("chart", "https://c.example")


def test_defaults_hold_where_a_release_says_nothing(tmp_path: Path) -> None:
    defaults = {"timeout": 900, "wait": True}
    file = write(
        tmp_path,
        release("a", "redis"),
        release("b", "nats", wait=False, timeout=60),
        helmDefaults=defaults,
    )
    first, second = load_releases(file, COMPONENTS).releases
    assert (first.timeout, first.wait) == (900, True)
    assert (second.timeout, second.wait) == (60, False)


def test_needs_between_components_become_edges_and_those_inside_one_do_not(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        release("pg", "postgresql"),
        release("redis-1", "redis", needs=["isa/pg"]),
        release("redis-2", "redis", needs=["redis-1"]),
    )
    graph = load_releases(file, COMPONENTS).component_needs()
    assert graph.needs("redis") == ("postgresql",)
    assert graph.needs("postgresql") == ()


def test_a_misspelt_key_is_named_with_the_right_one(tmp_path: Path) -> None:
    told = faults(write(tmp_path, release("r", "redis", timout=5), helmDefault={}))
    assert "releases[r].timout" in told and "did you mean timeout?" in told
    assert "helmDefault" in told and "did you mean helmDefaults?" in told


def test_a_missing_values_file_is_named_with_its_path(tmp_path: Path) -> None:
    told = faults(write(tmp_path, release("r", "redis", values=["values/redis.yaml"])))
    assert "releases[r].values[0]" in told and str(tmp_path / "values/redis.yaml") in told


def test_a_cycle_in_needs_is_refused(tmp_path: Path) -> None:
    told = faults(
        write(tmp_path, release("a", "redis", needs=["b"]), release("b", "nats", needs=["a"]))
    )
    assert "form a cycle" in told and "a → b → a" in told


def test_components_that_need_each_other_through_different_releases_are_a_cycle_too(
    tmp_path: Path,
) -> None:
    told = faults(
        write(
            tmp_path,
            release("a1", "redis", needs=["b1"]),
            release("a2", "redis"),
            release("b1", "nats"),
            release("b2", "nats", needs=["a2"]),
        )
    )
    assert "form a cycle" in told


def test_unknown_components_needs_and_duplicates_are_all_told_at_once(tmp_path: Path) -> None:
    told = faults(
        write(
            tmp_path,
            release("r", "rediss"),
            release("n", "nats", needs=["reddis"]),
            release("n", "nats"),
        )
    )
    assert "did you mean redis?" in told
    assert "unknown release 'reddis'" in told
    assert "is declared twice" in told


def test_an_unpinned_chart_is_refused(tmp_path: Path) -> None:
    assert "releases[r].version" in faults(write(tmp_path, release("r", "redis", version="")))


def test_a_chart_of_an_undeclared_repository_or_a_missing_directory_is_refused(
    tmp_path: Path,
) -> None:
    told = faults(
        write(
            tmp_path,
            release("a", "redis", chart="other/x"),
            release("b", "nats", chart="./charts/x"),
        )
    )
    assert "repository 'other' is not declared" in told
    assert " contains no chart" in told


def test_the_file_itself_may_be_missing_or_not_yaml(tmp_path: Path) -> None:
    assert "cannot be read" in faults(tmp_path / "absent.yaml")
    (tmp_path / "bad.yaml").write_text("releases: [")
    assert "cannot be read" in faults(tmp_path / "bad.yaml")
