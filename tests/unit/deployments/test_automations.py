from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.events.schemas.automations import AutomationCore

PROJECT = Path(__file__).resolve().parents[3]
DOCUMENTS: list[dict[str, Any]] = yaml.safe_load(
    (PROJECT / "deployments" / "automations.yaml").read_text()
)["automations"]


def lost(given: Any, kept: Any, path: str = "") -> list[str]:
    """Keys that were written and that Prefect's model does not keep."""
    if isinstance(given, list) and isinstance(kept, list):
        pairs = zip(given, kept, strict=False)
        return [key for i, (a, b) in enumerate(pairs) for key in lost(a, b, f"{path}[{i}]")]
    if not isinstance(given, dict):
        return []
    found = [f"{path}.{key}" for key in given if key not in kept]
    return found + [
        key
        for name in given
        if name in kept
        for key in lost(given[name], kept[name], f"{path}.{name}")
    ]


def dropped(document: dict[str, Any]) -> list[str]:
    return lost(document, AutomationCore.model_validate(document).model_dump(mode="json"))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d["name"])
def test_prefect_keeps_every_key(document: dict[str, Any]) -> None:
    assert dropped(document) == []


@pytest.mark.parametrize("place", ["trigger", "actions"])
def test_a_misspelt_key_is_found(place: str) -> None:
    part = DOCUMENTS[0][place]
    spoilt = [{**part[0], "mesage": "x"}] if isinstance(part, list) else {**part, "whithin": 90}
    try:
        assert dropped({**DOCUMENTS[0], place: spoilt})
    except ValueError:  # or Prefect refuses it, as good
        return


def test_a_run_is_given_up_after_six_missed_heartbeats_of_the_worker() -> None:
    image = (PROJECT / "deployments" / "worker" / "Containerfile").read_text()
    frequency = re.search(r"PREFECT_FLOWS_HEARTBEAT_FREQUENCY=(\d+)", image)
    assert frequency is not None
    assert DOCUMENTS[0]["trigger"]["within"] == 6 * int(frequency[1])
