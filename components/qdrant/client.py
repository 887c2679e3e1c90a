"""How one peer of Qdrant is asked."""

from __future__ import annotations

import math
from typing import Any

import httpx

from cluster.command import CANCELLATION
from components.access import Access, Endpoint
from components.http import ANSWER_BYTES
from config.urls import path_part

STATEFULSET = "qdrant"
PORT = 6333
# A collection's `read_rate_limit` counts by the minute, so a page may have to wait for most of one; several clients
# that wait for the same tokens need a few turns.
RATE_LIMIT_SECONDS = 300.0
TOO_MANY = 429  # https://qdrant.tech/documentation/guides/administration/#strict-mode


class Refused(RuntimeError):
    """Qdrant refuses what it was asked.

    Attributes:
        status: of HTTP.
        what: method, path and peer.
        words: the server's own; they may quote a payload.
    """

    def __init__(self, status: int, what: str, words: str) -> None:
        super().__init__(f"{what}: HTTP {status}: {words}")
        self.status, self.what, self.words = status, what, words


class Gone(Refused):
    """What is asked for is not there."""


def path_of(collection: str) -> str:
    """Path of a collection, whose name may hold any character but `/`: every path of one begins with this.

    A server before 1.5 took names that today's refuses to create; it still serves them
    (qdrant/qdrant lib/common/common/src/validation.rs: `validate_collection_name_legacy`).
    """
    return f"/collections/{path_part(collection)}"


def get(access: Access, peer: Endpoint, path: str) -> Any:
    """Read something; returns the answer's `result`."""
    return call(access, peer, "GET", path)


def names(access: Access, peer: Endpoint) -> list[str]:
    """All collections, as one peer knows them."""
    return [str(entry["name"]) for entry in get(access, peer, "/collections")["collections"]]


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
    answer_bytes: int = ANSWER_BYTES,
) -> Any:
    """Ask one peer; where a collection's rate limit is reached, again when it says so.

    Args:
        access: the way in.
        peer: which one.
        method: of HTTP.
        path: with its query.
        body: as JSON.
        timeout: seconds; the usual limit if left out.
        answer_bytes: limit of the answer.

    Returns:
        The answer's `result`.

    Raises:
        Gone: there is no such thing.
        Refused: it refuses, with its words.
        TooLarge: its answer has more bytes.
        httpx.HTTPError: it does not answer.
    """
    left = RATE_LIMIT_SECONDS
    while True:
        answer = access.http.request(
            method,
            f"http://{peer.url}{path}",
            json=body,
            headers=headers(access),
            timeout=timeout or access.timeout_seconds,
            extensions={"answer_bytes": answer_bytes},
        )
        seconds = _retry_after(answer)
        if seconds > left:
            break
        left -= seconds
        CANCELLATION.sleep(seconds)
    if answer.status_code >= 400:
        kind = Gone if answer.status_code == 404 else Refused
        raise kind(answer.status_code, f"{method} {path} on {peer.member}", words_of(answer))
    return answer.json()["result"]


def told(exc: Exception) -> str:
    """What went wrong, for a manifest and a log: without a server's own words, which may quote a payload."""
    return f"{exc.what}: HTTP {exc.status}" if isinstance(exc, Refused) else str(exc)


def headers(access: Access) -> dict[str, str]:
    """What lets a request in."""
    return {"api-key": access.secret("qdrant-auth", "api-key")}


def words_of(answer: httpx.Response) -> str:
    """The server's own words of a refusal."""
    try:
        return str(answer.json()["status"]["error"])
    except (ValueError, KeyError, TypeError):
        return answer.text[:200]


def _retry_after(answer: httpx.Response) -> float:
    """Seconds after which a rate limit lets the same request in; infinite for any other answer.

    A request that costs more than a whole minute's budget comes without the header: it never gets in
    (lib/common/common/src/rate_limiting.rs: `AlwaysOverBudget`).
    """
    if answer.status_code != TOO_MANY:
        return math.inf
    try:
        return max(1.0, float(answer.headers["retry-after"]))
    except (KeyError, ValueError):
        return math.inf
