"""What whoever approves a restore is told of passwords."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from components import COMPONENTS
from operations import restore_plan
from operations.restore_plan import plan_restore

ACCOUNTS = {"postgresql", "minio", "emqx"}  # accounts of the others are Secrets, or have a unit


@pytest.mark.parametrize("component", COMPONENTS)
def test_it_says_whose_passwords_will_be_those_of_the_set(
    component: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = SimpleNamespace(
        id=f"{component}-20260101T000000Z-000000",
        component=component,
        environment="test",
        cluster="uid",
        missing=(),
        artefacts=(),
        topology={"buckets": {}},
        fingerprint=(),
    )
    monkeypatch.setattr(restore_plan, "find_chain", lambda *_: (manifest, ()))
    editions = SimpleNamespace(neo4j=SimpleNamespace(edition="community"))
    settings = SimpleNamespace(environment="test", components=editions)
    vault: Any = SimpleNamespace(store=None, settings=settings, cluster="uid", trust=None)
    catalogue: Any = SimpleNamespace(
        verdict=lambda _: "pass", latest=lambda _: None, last=lambda _: None
    )
    found = plan_restore(vault, catalogue, manifest.id)
    assert any("come back with the set's" in words for words in found.warnings) == (
        component in ACCOUNTS
    )
