"""How one peer of Qdrant is asked."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import httpx

from components.access import Access, Endpoint

STATEFULSET = "qdrant"
PORT = 6333


class Gone(RuntimeError):
    """What is asked for is not there."""


def path_of(collection: str) -> str:
    """Path of a collection; any name is allowed for one."""
    return f"/collections/{quote(collection, safe='')}"


def get(access: Access, peer: Endpoint, path: str) -> Any:
    """Read something; returns the answer's `result`."""
    return call(access, peer, "GET", path)


def layout(access: Access, peer: Endpoint, collection: str) -> dict[str, Any]:
    """Where a collection's shards are, as one peer knows it."""
    found: dict[str, Any] = get(access, peer, f"{path_of(collection)}/cluster")
    return found


def replicas(access: Access, peer: Endpoint, collection: str) -> list[dict[str, Any]]:
    """All replicas of all shards of a collection, each with its `peer_id`: those of the peer that is asked too."""
    return copies_in(layout(access, peer, collection))


def copies_in(found: dict[str, Any]) -> list[dict[str, Any]]:
    """All replicas that a layout tells of, each with its `peer_id`."""
    here = [{**shard, "peer_id": found["peer_id"]} for shard in found["local_shards"]]
    return [*here, *found["remote_shards"]]


def call(
    access: Access,
    peer: Endpoint,
    method: str,
    path: str,
    body: Any = None,
    *,
    timeout: float | None = None,
) -> Any:
    """Ask one peer.

    Args:
        access: the way in.
        peer: which one.
        method: of HTTP.
        path: with its query.
        body: as JSON.
        timeout: seconds; the usual limit if left out.

    Returns:
        The answer's `result`.

    Raises:
        Gone: there is no such thing.
        RuntimeError: it refuses, with its words.
        httpx.HTTPError: it does not answer.
    """
    answer = access.http.request(
        method,
        f"http://{peer.url}{path}",
        json=body,
        headers=headers(access),
        timeout=timeout or access.timeout_seconds,
    )
    if answer.status_code >= 400:
        kind = Gone if answer.status_code == 404 else RuntimeError
        raise kind(f"{method} {path} on {peer.member}: HTTP {answer.status_code}: {_words(answer)}")
    return answer.json()["result"]


def headers(access: Access) -> dict[str, str]:
    """What lets a request in."""
    return {"api-key": access.secret("qdrant-auth", "api-key")}


def _words(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["status"]["error"])
    except (ValueError, KeyError, TypeError):
        return answer.text[:200]
