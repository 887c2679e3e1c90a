"""A list that comes in pages ends, and a message names the first of what it lacks."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from components.nats.client import Incomplete, Unanswered, listed, some


def pages(*answers: dict[str, Any]) -> list[Any]:
    """What is listed by a server that gives these pages, the last of them for ever."""
    left = list(answers)

    async def request(subject: str, body: bytes, timeout: float) -> Any:
        page = left.pop(0) if len(left) > 1 else left[0]
        return SimpleNamespace(data=json.dumps(page).encode())

    client: Any = SimpleNamespace(request=request, connected_url=None)
    return asyncio.run(listed(cast(Any, client), "STREAM.NAMES", "streams", timeout=1.0))


def test_pages_are_joined() -> None:
    assert pages({"streams": ["a", "b"], "total": 3}, {"streams": ["c"], "total": 3}) == [*"abc"]


def test_one_that_moved_to_the_last_page_is_no_repetition() -> None:
    found = pages({"streams": ["a", "b"], "total": 3}, {"streams": ["b"], "total": 3})
    assert found == ["a", "b", "b"]


@pytest.mark.parametrize("page", [{"streams": ["a"]}, {"missing": ["a"]}, {"streams": [""]}])
def test_a_page_that_comes_again_is_no_answer(page: dict[str, Any]) -> None:
    with pytest.raises(Unanswered, match="the same page again"):
        pages({**page, "total": 10**9})


def test_ten_are_named_and_the_others_counted() -> None:
    names = [f"c{number}" for number in range(12)]
    assert some(names) == "c0, c1, c2, c3, c4, c5, c6, c7, c8, c9, and 2 more"
    assert some(names[:2]) == "c0, c1"
    assert str(Incomplete("CONSUMER.LIST", [], names)).endswith("c9, and 2 more")
