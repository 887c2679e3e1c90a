"""The dictionary of hostile names holds what it says, and each context accepts some of it."""

from __future__ import annotations

import unicodedata

import pytest

from tests import hostile

CONTEXTS = (
    hostile.POSTGRESQL,
    hostile.REDIS,
    hostile.NATS_STREAM,
    hostile.NATS_SUBJECT,
    hostile.S3_KEY,
    hostile.QDRANT_COLLECTION,
    hostile.NEO4J_TOKEN,
    hostile.MQTT_STRING,
    hostile.ARGUMENT,
    hostile.FILE_NAME,
)


def test_no_name_is_there_twice() -> None:
    assert len(set(hostile.NAMES.values())) == len(hostile.NAMES)


def test_every_control_character_is_in_it() -> None:
    everything = "".join(hostile.NAMES.values())

    controls = {chr(code) for code in range(0xA0) if unicodedata.category(chr(code)) == "Cc"}
    assert controls <= set(everything)


@pytest.mark.parametrize("context", CONTEXTS)
def test_a_context_accepts_some_names_and_refuses_others(context: hostile.Context) -> None:
    accepted, refused = hostile.names(context), hostile.refused(context)

    assert len(accepted) > 30
    assert refused
    assert len(accepted) + len(refused) == len(hostile.NAMES)


def test_each_name_that_fails_is_reported_with_its_key() -> None:
    tried: list[str] = []

    @hostile.each(hostile.POSTGRESQL)
    def a_test(name: str, kept: list[str]) -> None:
        kept.append(name)
        assert name not in (hostile.NAMES["newline"], hostile.NAMES["script"])

    with pytest.raises(BaseExceptionGroup) as caught:
        a_test(kept=tried)

    assert tried == list(hostile.names(hostile.POSTGRESQL).values())
    notes = [failure.__notes__ for failure in caught.value.exceptions]
    assert notes == [["hostile name: newline"], ["hostile name: script"]]


def test_a_name_in_kubernetes_can_only_be_a_plain_word() -> None:
    assert set(hostile.names(hostile.KUBERNETES)) == {
        "null",
        "verdict",
        "reserved",
        "number",
    }


def test_only_python_can_hold_half_of_a_surrogate_pair() -> None:
    name = hostile.NAMES["lone-surrogate"]

    assert hostile.PYTHON(name)
    assert not any(context(name) for context in CONTEXTS)
