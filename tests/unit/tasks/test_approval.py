from __future__ import annotations

import pytest
from pydantic import ValidationError

from tasks.approval import Approval

ANSWER = {"decision": "approve", "name": "Ada Lovelace", "ticket": "CHG-1815"}


@pytest.mark.parametrize(
    "name", ["Ottilie O'Neil-Müller (DBA)", "李 小龍", "ada@example.com", "A. L."]
)
def test_people_have_the_names_they_have(name: str) -> None:
    assert Approval.model_validate({**ANSWER, "name": name}).name == name


@pytest.mark.parametrize(
    "words",
    [
        {"name": "<b>Ada</b>"},
        {"name": "[Ada](https://example.com)"},
        {"name": "Ada\n# Approved"},
        {"ticket": "CHG-1 | **urgent**"},
        {"ticket": "`CHG-1`"},
        {"ticket": "x"},
        {"ticket": "x" * 101},
        {"decision": "perhaps"},
        {"more": "words"},
    ],
)
def test_an_answer_is_one_in_every_field_and_holds_no_markup(words: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        Approval.model_validate({**ANSWER, **words})
