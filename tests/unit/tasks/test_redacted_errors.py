"""Prefect makes a failed state's message of the error's words: they must say nothing, and still tell what to do."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from errors import ConfigurationError, Fault, PermanentError, TemporaryError
from redaction import MASK, redact
from tasks.redacted_errors import completed, failed, redacted_errors

PASSWORD = redact.remember("a-Password-of-42-Characters")


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    before = logging.getLogRecordFactory()
    yield
    logging.setLogRecordFactory(before)


def test_an_error_keeps_its_kind_and_loses_the_secret() -> None:
    with pytest.raises(TemporaryError) as caught, redacted_errors():
        raise TemporaryError(f"login with {PASSWORD} failed", delay=9.0)
    assert str(caught.value) == f"login with {MASK} failed"
    assert caught.value.delay == 9.0  # it is tried again as before


def test_faults_of_a_configuration_lose_it_too() -> None:
    with pytest.raises(ConfigurationError) as caught, redacted_errors():
        raise ConfigurationError([Fault("storage", f"bad key {PASSWORD}")])
    assert str(caught.value) == f"storage: bad key {MASK}"


def test_an_error_that_makes_its_words_itself_is_replaced() -> None:
    class Stubborn(Exception):
        def __str__(self) -> str:
            return f"refused: {PASSWORD}"

    with pytest.raises(PermanentError) as caught, redacted_errors():
        raise Stubborn
    assert str(caught.value) == f"Stubborn: refused: {MASK}"


def test_an_error_without_a_secret_is_left_alone() -> None:
    error = ValueError("port 5432", 7)
    with pytest.raises(ValueError) as caught, redacted_errors():
        raise error
    assert caught.value is error and error.args == ("port 5432", 7)


def test_states_say_none() -> None:
    assert failed(f"redis: {PASSWORD}").message == f"redis: {MASK}"
    assert completed(f"redis: {PASSWORD}").message == f"redis: {MASK}"
