"""A retained message is gone when the broker says so; a broker in trouble says nothing of it."""

from __future__ import annotations

import json

import httpx
import pytest

from components.emqx.client import Api
from components.emqx.fingerprint import RETAINED, measure
from errors import TemporaryError


def broker(status: int) -> Api:
    """One with a retained message that it answers for in a certain way, and with nothing else."""

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith(RETAINED):
            return httpx.Response(200, json={"data": [{"topic": "plant/1", "qos": 1}], "meta": {}})
        if "/mqtt/retainer/message/" in request.url.path:
            return httpx.Response(status, text=json.dumps({"payload": "MQ=="}))
        return httpx.Response(200, json=[])

    return Api(httpx.Client(transport=httpx.MockTransport(answer)), "http://emqx/api/v5", {})


def test_what_was_deleted_since_it_was_listed_is_told_from_what_is_there() -> None:
    there, gone = (measure(broker(status))[-1] for status in (200, 404))
    assert (there.count, gone.count) == (1, 1)
    assert there.digest != gone.digest


@pytest.mark.parametrize("status", [401, 429, 500, 503])
def test_a_broker_that_does_not_answer_is_no_difference(status: int) -> None:
    with pytest.raises(TemporaryError, match=str(status)):
        measure(broker(status))
