"""Points come in pages that end and fit in memory; what a peer says of a payload stays out of the manifest."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from components.access import Access, Endpoint
from components.http import NoProgress, TooLarge
from components.qdrant.client import Refused, told
from components.qdrant.fingerprint import measure_points

Page = Callable[[dict[str, Any]], dict[str, Any]]


def measured(page: Page) -> int:
    """Points that are counted of a peer with these pages."""

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/cluster"):
            shard = {"shard_id": 0, "state": "Active"}
            found: Any = {"peer_id": 1, "local_shards": [shard], "remote_shards": []}
        else:
            found = page(json.loads(request.content))
        return httpx.Response(200, json={"result": found})

    http = httpx.Client(transport=httpx.MockTransport(answer))
    access = SimpleNamespace(http=http, timeout_seconds=1.0, secret=lambda *_: "key")
    peer = Endpoint("qdrant-0", "qdrant-0", 6333, "", "")
    return measure_points(cast(Access, access), peer, "shop", {}).count


def numbered(body: dict[str, Any], total: int = 90) -> dict[str, Any]:
    first, limit = body.get("offset", 0), body["limit"]
    last = min(total, first + limit)
    points = [{"id": number} for number in range(first, last)]
    return {"points": points, "next_page_offset": last if last < total else None}


def test_a_page_that_is_too_large_is_asked_for_in_halves() -> None:
    asked = []

    def page(body: dict[str, Any]) -> dict[str, Any]:
        asked.append(body["limit"])
        if body["limit"] > 70:
            raise TooLarge("more than 16 MiB")
        return numbered(body)

    assert measured(page) == 90
    assert asked == [500, 250, 125, 62, 62]


def test_a_point_that_is_too_large_is_trouble() -> None:
    def page(body: dict[str, Any]) -> dict[str, Any]:
        raise TooLarge("more than 64 MiB")

    with pytest.raises(TooLarge):
        measured(page)


@pytest.mark.parametrize("points", [[], [{"id": 1}]])
def test_pages_that_do_not_end_are_trouble_of_their_peer(points: list[Any]) -> None:
    with pytest.raises(NoProgress, match="qdrant-0 lists the points of shop without an end"):
        measured(lambda _: {"points": points, "next_page_offset": 7})


def test_a_refusal_is_told_without_the_peers_words() -> None:
    refused = Refused(400, "POST /collections/shop on qdrant-0", "no index for card 4111-1111")
    assert told(refused) == "POST /collections/shop on qdrant-0: HTTP 400"
