"""A list of EMQX comes in pages, and an EMQX whose pages do not end is an error that says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import httpx
import pytest

from components.emqx import client
from components.emqx.client import PAGE, Api, rows
from components.http import NoProgress

Page = Callable[[int], dict[str, Any]]


def numbered(first: int, size: int = PAGE) -> list[dict[str, Any]]:
    return [{"topic": f"t/{number}"} for number in range(first, first + size)]


def listed(page: Page) -> Iterator[dict[str, Any]]:
    """Rows of an EMQX that answers with these pages."""

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=page(int(request.url.params["page"])))

    http = httpx.Client(transport=httpx.MockTransport(answer))
    return rows(Api(http, "http://emqx/api/v5", {}), "/mqtt/retainer/messages")


def test_all_pages_of_a_list_are_read() -> None:
    def page(number: int) -> dict[str, Any]:
        return {"data": numbered(number * PAGE), "meta": {"hasnext": number < 3}}

    assert len({row["topic"] for row in listed(page)}) == 3 * PAGE


@pytest.mark.parametrize("data", [numbered(0), []], ids=["the same page", "empty pages"])
def test_pages_without_an_end_are_an_error_that_says_so(data: list[dict[str, Any]]) -> None:
    with pytest.raises(NoProgress, match=r"page [12] of /mqtt/retainer/messages empty or a second"):
        list(listed(lambda _: {"data": data, "meta": {"hasnext": True}}))


def test_pages_that_come_in_turns_are_an_error_too() -> None:
    with pytest.raises(NoProgress, match="page 3 of "):
        list(listed(lambda n: {"data": numbered(n % 2), "meta": {"count": 10**9}}))


def test_new_rows_without_an_end_are_an_error_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PAGES", 5)
    fresh = count()
    with pytest.raises(NoProgress, match="more than 5 pages"):
        list(listed(lambda _: {"data": numbered(next(fresh), 1), "meta": {"hasnext": True}}))
