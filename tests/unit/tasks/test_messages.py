"""Messages of the server's automations: a name that a run's state quotes makes no link, mention, element or line."""

from __future__ import annotations

import functools
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from prefect.server.events.jinja_filters import all_filters
from prefect.server.utilities.user_templates import (
    register_user_template_filters,
    render_user_template_sync,
    validate_user_template,
)

from tasks.server.automations import declared, expand
from tests import hostile, markdown_reader

MESSAGES = [document for document in declared() if "notify" in document]


@functools.cache
def action_of(message: str) -> Any:
    """The action that sends a message, its templates ready for the server's filters."""
    register_user_template_filters(all_filters)
    (document,) = (one for one in MESSAGES if one["name"] == message)
    (automation,) = expand([document], {"custom-webhook/pager": uuid4()})
    return automation.actions[-1]


def sent(document: dict[str, Any]) -> Any:
    return action_of(document["name"])


def rendered(document: dict[str, Any], name: str) -> tuple[str, str]:
    """Subject and body as the server makes them of a template (its own Jinja environment and filters)."""
    action = sent(document)
    now = datetime(2026, 11, 24, 6, tzinfo=UTC)
    state = SimpleNamespace(name="Failed", timestamp=now, message=name)
    context = {
        "flow_run": SimpleNamespace(name=name, state=state, parameters={"environment": name}, id=1),
        "deployment": SimpleNamespace(name=name),
        "event": SimpleNamespace(
            occurred=now,
            resource=SimpleNamespace(name=name),
            payload={"state": name, "last_passing_verify": name},
        ),
    }
    return tuple(render_user_template_sync(t, context) for t in (action.subject, action.body))  # type: ignore[return-value]


@pytest.mark.parametrize("document", MESSAGES, ids=lambda one: one["name"])
def test_the_server_takes_the_templates_of_a_message(document: dict[str, Any]) -> None:
    for template in (sent(document).subject, sent(document).body):
        validate_user_template(template)


@pytest.mark.parametrize("document", MESSAGES, ids=lambda one: one["name"])
def test_a_hostile_name_is_text_in_a_message(document: dict[str, Any]) -> None:
    subject, body = rendered(document, "harmless")
    for name in filter(set("<>[]@\n").intersection, hostile.NAMES.values()):
        for text, plain in zip(rendered(document, name), (subject, body), strict=True):
            assert text.count("\n") <= plain.count("\n")
            assert not set("<>[]@") & set(text)


def test_a_message_says_what_the_run_said() -> None:
    (document,) = (one for one in MESSAGES if one["name"] == "isa-notify-backup")

    subject, body = rendered(
        document, "redis: no\n<a href='http://evil'>[pass](http://evil)</a> @all"
    )

    assert subject.startswith("Backup of redis: no ‹a href='http://evil'›")
    assert "Failed at 2026-11-24 06:00 UTC" in body
    assert "［pass］(http://evil)" in body and "＠all" in body
    assert markdown_reader.marks(body.splitlines()[0]) == {
        "bare link"
    }  # which shows where it leads


@pytest.mark.parametrize("document", MESSAGES, ids=lambda one: one["name"])
def test_a_value_of_any_length_does_not_make_a_message_that_is_lost(
    document: dict[str, Any],
) -> None:
    subject, body = rendered(document, "n" * 100_000)
    assert len(subject) < 400
    assert len(body) < 2000
