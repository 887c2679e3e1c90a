"""Helm ignores a key that no template reads: a misspelt one must fail here, not in production."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from yaml import CSafeLoader

from cluster.helm.releases import Release
from config.models import Settings
from operations.environment.render import site_values

from .conftest import CONTRACTS, ROOT, contract

OPEN = {"map", "list", "null"}  # below these the contract does not say what may stand there


def accepted(release: Release) -> dict[str, str]:
    """Keys that the chart of a release reads, with their types."""
    known = contract(release)
    additional = json.loads((CONTRACTS / "additional-keys.json").read_text())["charts"].get(
        known["chart"], {}
    )
    return {**known["valueKeys"], **{key: entry["type"] for key, entry in additional.items()}}


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of a map's leaves; an empty map is one."""
    if isinstance(value, Mapping) and value:
        for key, entry in value.items():
            yield from leaves(entry, (*path, str(key)))
    else:
        yield path


def unknown_keys(values: Mapping[str, Any], known: Mapping[str, str]) -> list[str]:
    """Keys that no template would read."""

    def is_known(path: tuple[str, ...]) -> bool:
        prefixes = [".".join(path[:end]) for end in range(1, len(path) + 1)]
        return prefixes[-1] in known or any(known.get(prefix) in OPEN for prefix in prefixes)

    return [".".join(path) for path in leaves(values) if not is_known(path)]


def test_every_key_of_the_values_files_is_read_by_its_chart(releases: dict[str, Release]) -> None:
    faults = []
    for release in releases.values():
        for entry in release.values:
            where = (
                entry.relative_to(ROOT)
                if isinstance(entry, Path)
                else f"helmfile.yaml: {release.name}"
            )
            document = (
                yaml.load(entry.read_text(), Loader=CSafeLoader)
                if isinstance(entry, Path)
                else entry
            )
            faults += [f"{where}: {key}" for key in unknown_keys(document, accepted(release))]
    assert faults == []


def test_every_key_of_the_site_values_is_read_by_its_chart(
    releases: dict[str, Release], settings: Settings
) -> None:
    site = site_values(settings)
    assert set(site) <= set(releases), (
        "config/site-values.yaml names a release that helmfile.yaml does not have"
    )
    assert [
        f"config/site-values.yaml: {name}.{key}"
        for name, document in site.items()
        for key in unknown_keys(document, accepted(releases[name]))
    ] == []


@pytest.mark.parametrize(
    ("release", "values"),
    [
        ("minio", {"persistence": {"storageClas": "infotrend-block"}}),
        ("postgresql-ha", {"postgresql": {"resource": {"requests": {"cpu": "2"}}}}),
        ("nats", {"config": {"cluster": {"replica": 3}}}),
        (
            "emqx",
            {"persistence": {"storageClass": "infotrend-block"}},
        ),  # the chart's own README has it wrong
        ("redis-cluster", {"pdb": {}, "metric": {}}),
    ],
)
def test_a_misspelt_key_is_named(
    releases: dict[str, Release], release: str, values: dict[str, Any]
) -> None:
    (fault,) = [key for key in unknown_keys(values, accepted(releases[release])) if key != "pdb"]
    assert fault == ".".join(list(leaves(values))[-1])
