from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from prefect.events.schemas.automations import AutomationCore
from prefect.server.events.schemas.automations import AutomationCreate
from prefect.server.utilities.user_templates import render_user_template_sync

from tasks.server.automations import declared, expand

PROJECT = Path(__file__).resolve().parents[3]
BLOCKS = {"slack-webhook/on-call": uuid4(), "custom-webhook/pager": uuid4()}
WANTED = list(expand(declared(), BLOCKS))
MESSAGES = [one for one in WANTED if one.name.startswith("isa-notify-")]
RUN = SimpleNamespace(
    name="deploy-production",
    parameters={"environment": "production"},
    state=SimpleNamespace(
        name="Failed", message='redis: "no" quorum', timestamp=datetime(2026, 11, 24, 3, tzinfo=UTC)
    ),
)
CONTEXT = {
    "flow_run": RUN,
    "deployment": SimpleNamespace(name="rebuild-component"),
    "event": SimpleNamespace(
        resource=SimpleNamespace(name="redis of production"),
        occurred=datetime(2026, 11, 24, 3, tzinfo=UTC),
        payload={"state": "stale", "last_passing_verify": ""},
    ),
}


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


def actions(document: dict[str, Any]) -> list[Any]:
    """As the server understands them; it is the server that checks templates."""
    return AutomationCreate.model_validate(document).actions


@pytest.mark.parametrize("document", declared(), ids=lambda d: d["name"])
def test_prefect_keeps_every_key(document: dict[str, Any]) -> None:
    (whole,) = expand([document], BLOCKS)
    plain = {key: value for key, value in document.items() if key != "notify"}
    assert document.get("notify", {}).keys() <= {"subject", "body"}
    assert dropped({"actions": whole.model_dump(mode="json")["actions"], **plain}) == []


@pytest.mark.parametrize("one", MESSAGES, ids=lambda one: one.name)
def test_a_message_says_what_where_since_when_and_what_to_do(one: AutomationCore) -> None:
    first, second = actions(one.model_dump(mode="json", exclude={"owner_resource"}))
    assert [first.block_document_id, second.block_document_id] == list(BLOCKS.values())
    assert (first.subject, first.body) == (second.subject, second.body)
    subject, body = (
        render_user_template_sync(text, CONTEXT) for text in (first.subject, first.body)
    )
    assert "{" not in subject + body
    assert len(subject) < 80 and "\n" not in subject
    assert "o do" in body
    if one.name not in ("isa-notify-silence", "isa-notify-workers"):
        assert "production" in subject
        assert "2026-11-24 03:00 UTC" in body or "none" in body


def test_without_blocks_nobody_is_told_and_the_rest_stays() -> None:
    assert [one.name for one in expand(declared(), {})] == ["isa-crash-silent-runs"]


@pytest.mark.parametrize("place", ["trigger", "actions"])
def test_a_misspelt_key_is_found(place: str) -> None:
    part = declared()[0][place]
    spoilt = [{**part[0], "mesage": "x"}] if isinstance(part, list) else {**part, "whithin": 90}
    try:
        assert dropped({**declared()[0], place: spoilt})
    except ValueError:  # or Prefect refuses it, as good
        return


def test_a_server_may_be_away_for_as_long_as_runs_repeat_their_requests() -> None:
    """Heartbeats of an outage are lost, and the next one comes up to a minute after it."""
    image = (PROJECT / "deployments" / "worker" / "Containerfile").read_text()
    frequency = re.search(r"PREFECT_FLOWS_HEARTBEAT_FREQUENCY=(\d+)", image)
    retries = re.search(r"PREFECT_CLIENT_MAX_RETRIES=(\d+)", image)
    assert frequency is not None and retries is not None
    # prefect/client/base.py, 3.8.8: 2^n seconds before the nth repetition
    patience = sum(2**number for number in range(1, int(retries[1]) + 1))
    assert declared()[0]["trigger"]["within"] >= patience + 4 * int(frequency[1])
