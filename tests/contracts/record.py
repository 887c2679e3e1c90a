"""Record what the real charts accept and render: `python -m tests.contracts.record CHART_ARCHIVE…`.

Reads archives as `helm pull` saves them, renders them with production's values and writes one contract per chart
beside this file. The same archives give the same bytes. No text of a chart is written, only names, paths and types.
"""

from __future__ import annotations

import argparse
import json
import sys
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.contracts.shape import field_paths, summary, value_keys
from tests.unit.sandbox_charts.rendering import CONTRACTS, RELEASES, production

Contract = dict[str, Any]


def read_chart(archive: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Chart.yaml and values.yaml of an archive, without those of its subcharts.

    Raises:
        ValueError: this is no chart archive.
    """
    try:
        with tarfile.open(archive) as opened:
            members = {Path(name).parts[-1]: name for name in opened.getnames() if _at_top(name)}
            chart, values = (
                yaml.safe_load(opened.extractfile(members[name]) or b"")
                for name in ("Chart.yaml", "values.yaml")
            )
    except (OSError, tarfile.TarError, KeyError, yaml.YAMLError) as error:
        raise ValueError(f"{archive}: not a chart archive: {error}") from error
    return chart, values


def _at_top(name: str) -> bool:
    return len(Path(name).parts) == 2


def record(archive: Path) -> Contract:
    """The contract of the chart in this archive.

    Raises:
        ValueError: not a chart archive, or production has no release of this chart.
        RuntimeError: helm could not render the chart with production's values.
    """
    chart, values = read_chart(archive)
    if chart["name"] not in RELEASES:
        raise ValueError(f"{archive}: production has no release of the chart {chart['name']}")
    rendered = {name: production(name, archive) for name in RELEASES[chart["name"]]}
    return {
        "chart": chart["name"],
        "version": str(chart["version"]),
        "appVersion": str(chart.get("appVersion", "")),
        "rendered": summary(document for every in rendered.values() for document in every),
        "paths": field_paths(rendered),
        "valueKeys": value_keys(values),
    }


def write(contracts: Iterable[Contract], directory: Path) -> None:
    """Write one file per contract."""
    for contract in contracts:
        path = directory / f"{contract['chart']}.json"
        path.write_text(json.dumps(contract, indent=1, ensure_ascii=False) + "\n")
        print(f"{path.name}: {sum(map(len, contract['paths'].values()))} paths")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Writes nothing unless every archive could be rendered."""
    parser = argparse.ArgumentParser(prog="python -m tests.contracts.record", description=__doc__)
    parser.add_argument("archives", metavar="CHART_ARCHIVE", nargs="+", type=Path)
    try:
        contracts = [record(archive) for archive in parser.parse_args(arguments).archives]
    except (ValueError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 2
    write(contracts, CONTRACTS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
