"""How a refusal looks."""

from __future__ import annotations


class Refused(Exception):
    """An answer that is not 200.

    Attributes:
        status: HTTP status.
        plain: whether the body is plain text, as for 401.
    """

    def __init__(self, status: int, message: str, plain: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.plain = plain


def missing_collection(name: str) -> Refused:
    """404 as the server words it."""
    return Refused(404, f"Not found: Collection `{name}` doesn't exist!")


def unavailable(uri: str) -> str:
    """Words of the transport to a peer that is away."""
    return (
        f'Tonic status error: status: Unavailable, message: "Failed to connect to {uri}, error: transport error", '
        "details: [], metadata: MetadataMap { headers: {} }"
    )
