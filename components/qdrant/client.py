"""Client for one peer of Qdrant."""

from __future__ import annotations

import math
from typing import Any

import httpx

from cluster.command import CANCELLATION
from components.access import Access, Endpoint
from components.http import ANSWER_BYTES
from config.text.urls import path_part

STATEFULSET = "qdrant"
PORT = 6333
# A collection's `read_rate_limit` is per minute, so a page may wait for almost a minute; with several clients longer.
RATE_LIMIT_SECONDS = 300.0
TOO_MANY = 429  # https://qdrant.tech/documentation/guides/administration/#strict-mode


class Refused(RuntimeError):
    """Qdrant refuses a request.

    Attributes:
        status: HTTP status.
        what: method, path and peer.
        words: the server's message; it may quote a payload.
    """

    def __init__(self, status: int, what: str, words: str) -> None:
        super().__init__(f"{what}: HTTP {status}: {words}")
        self.status, self.what, self.words = status, what, words


class Gone(Refused):
    """The requested object does not exist."""


def path_of(collection: str) -> str:
    """Path of a collection. Its name may have any character but `/`.

    Servers before 1.5 accepted names that newer ones refuse to create but still serve (qdrant/qdrant
    lib/common/common/src/validation.rs: `validate_collection_name_legacy`).
    """
    return f"/collections/{path_part(collection)}"


def get(access: Access, peer: Endpoint, path: str) -> Any:
    """Send a GET request. Returns the answer's `result`."""
    return call(access, peer, "GET", path)


def names(access: Access, peer: Endpoint) -> list[str]:
    """Names of all collections, as one peer knows them."""
    return [str(entry["name"]) for entry in get(access, peer, "/collections")["collections"]]


def layout(access: Access, peer: Endpoint, collection: str) -> dict[str, Any]:
    """The places of a collection's shards, as one peer knows them."""
    placement: dict[str, Any] = get(access, peer, f"{path_of(collection)}/cluster")
    return placement


def replicas(access: Access, peer: Endpoint, collection: str) -> list[dict[str, Any]]:
    """All replicas of all shards of a collection, each with its `peer_id`."""
    return copies_in(layout(access, peer, collection))


def copies_in(placement: dict[str, Any]) -> list[dict[str, Any]]:
    """All replicas in a layout, each with its `peer_id`."""
    local = [{**shard, "peer_id": placement["peer_id"]} for shard in placement["local_shards"]]
    return [*local, *placement["remote_shards"]]


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
    """Send a request to one peer. If a collection's rate limit is reached, repeat it when the server allows it.

    Args:
        access: addresses and credentials.
        peer: the peer.
        method: HTTP method.
        path: path with its query.
        body: the body, sent as JSON.
        timeout: seconds; the usual limit if left out.
        answer_bytes: limit of the answer's bytes.

    Returns:
        The answer's `result`.

    Raises:
        Gone: the object does not exist.
        Refused: the peer refuses the request.
        TooLarge: the answer exceeds `answer_bytes`.
        httpx.HTTPError: the peer does not answer.
    """
    remaining = RATE_LIMIT_SECONDS
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
        if seconds > remaining:
            break
        remaining -= seconds
        CANCELLATION.sleep(seconds)
    if answer.status_code >= 400:
        kind = Gone if answer.status_code == 404 else Refused
        raise kind(answer.status_code, f"{method} {path} on {peer.member}", words_of(answer))
    return answer.json()["result"]


def told(exc: Exception) -> str:
    """A failure for manifests and logs, without the server's message: it may quote a payload."""
    return f"{exc.what}: HTTP {exc.status}" if isinstance(exc, Refused) else str(exc)


def headers(access: Access) -> dict[str, str]:
    """The headers with the API key."""
    return {"api-key": access.secret("qdrant-auth", "api-key")}


def words_of(answer: httpx.Response) -> str:
    """The server's message in a refusal."""
    try:
        return str(answer.json()["status"]["error"])
    except (ValueError, KeyError, TypeError):
        return answer.text[:200]


def _retry_after(answer: httpx.Response) -> float:
    """Seconds until a rate limit accepts the same request; infinite for any other answer.

    The header is missing if the request costs more than the budget of a minute: it can never be accepted
    (lib/common/common/src/rate_limiting.rs: `AlwaysOverBudget`).
    """
    if answer.status_code != TOO_MANY:
        return math.inf
    try:
        return max(1.0, float(answer.headers["retry-after"]))
    except (KeyError, ValueError):
        return math.inf
