"""Refusals as the real server words them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Refused(Exception):
    """An answer that is not 200.

    Attributes:
        status: HTTP status.
        plain: the body is plain text, as for 401.
        retry_after: seconds until the request may be repeated; 0 for no such header.
    """

    def __init__(
        self, status: int, message: str, plain: bool = False, retry_after: int = 0
    ) -> None:
        super().__init__(message)
        self.status = status
        self.plain = plain
        self.retry_after = retry_after


class NoConsensus(Refused):
    """A change of the cluster's state that no majority has confirmed. It may still be accepted later."""

    def __init__(self) -> None:
        text = "Waiting for consensus operation commit failed. Timeout set at: 10 seconds"
        super().__init__(500, f"Service internal error: {text}")


class Stale(Refused):
    """One of two peers has an older state of the cluster: update it and repeat."""

    def __init__(self, message: str = "the state of the cluster has changed") -> None:
        super().__init__(409, f"Service internal error: {message}")


def missing_collection(name: str) -> Refused:
    """404 as the server words it."""
    return Refused(404, f"Not found: Collection `{name}` doesn't exist!")


def missing_shard(shard: int) -> Refused:
    """404 as the server words it."""
    return Refused(404, f"Not found: shard {shard} not found")


def malformed(message: str) -> Refused:
    """400 as the server words it."""
    return Refused(400, f"Format error in JSON body: {message}")


@contextmanager
def understanding() -> Iterator[None]:
    """For the parsing of a request's body: errors become 400."""
    try:
        yield
    except KeyError as exc:
        raise malformed(f"missing field `{exc.args[0]}`") from exc
    except (TypeError, ValueError, AttributeError, IndexError, OverflowError) as exc:
        raise malformed(str(exc).partition("\n")[0]) from exc


def unavailable(uri: str) -> str:
    """The error message for a peer that does not answer."""
    return (
        f'Tonic status error: status: Unavailable, message: "Failed to connect to {uri}, error: transport error", '
        "details: [], metadata: MetadataMap { headers: {} }"
    )
