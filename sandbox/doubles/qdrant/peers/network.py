"""The other peers, requests to them, and which of them do not answer.

Any answer, even a 500, shows that a peer runs. After a failed connection or a timeout it counts as down.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from sandbox.doubles.qdrant.errors import unavailable

P2P_PORT = 6335
CONNECT_SECONDS = 2.0
DOWNLOAD_SECONDS = 60.0
SENDER, VERSION, TOKEN = "x-peer", "x-version", "x-token"


@dataclass(frozen=True)
class Other:
    """Another peer, or this one.

    Attributes:
        name: name of its pod.
        address: its address.
    """

    name: str
    address: str

    @property
    def identity(self) -> int:
        """Its peer id: 53 bits, the largest number that all JSON readers keep."""
        return (
            int.from_bytes(hashlib.blake2b(self.name.encode(), digest_size=8).digest(), "big") >> 11
        )

    @property
    def uri(self) -> str:
        """Its URI in the cluster."""
        return f"http://{self.address}:{P2P_PORT}/"


class Network:
    """Access to the other peers.

    Args:
        name: of this peer, one of `peers`.
        peers: name → address of all.

    Attributes:
        peers: all, by name.
        me: this one.
        failures: URI → failure, for peers that did not answer last time, as in `/cluster`.
    """

    def __init__(self, name: str, peers: dict[str, str]) -> None:
        self.peers = {n: Other(n, address) for n, address in peers.items()}
        self.me = self.peers[name]
        self.failures: dict[str, dict[str, Any]] = {}
        # no limit of connections: waiting for a free one would look like a dead peer
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
        self._http = httpx.Client(limits=limits, trust_env=False)

    def others(self) -> list[Other]:
        """The other peers."""
        return [other for other in self.peers.values() if other != self.me]

    def alive(self) -> list[Other]:
        """Peers that answered last time."""
        return [p for p in self.peers.values() if p.uri not in self.failures]

    @property
    def quorum(self) -> int:
        """Number of peers of a majority."""
        return len(self.peers) // 2 + 1

    def majority(self) -> bool:
        """Whether this peer reaches a majority."""
        return len(self.alive()) >= self.quorum

    def call(
        self,
        other: Other,
        method: str,
        path: str,
        body: Any = None,
        *,
        version: int = 0,
        seconds: float = CONNECT_SECONDS,
    ) -> httpx.Response | None:
        """Send a request to a peer. Returns None if it is down, and records that in `message_send_failures`.

        Args:
            other: the peer.
            method: HTTP method.
            path: path without the leading slash.
            body: the body, sent as JSON.
            version: version of the state that the request is based on; a peer with an older state updates first.
            seconds: time limit.
        """
        limits = httpx.Timeout(seconds, connect=CONNECT_SECONDS)
        headers = {SENDER: self.me.name, VERSION: str(version)}
        for last in (False, True):
            try:
                answer = self._http.request(
                    method, other.uri + path, json=body, headers=headers, timeout=limits
                )
            except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
                # the process was restarted since the connection was opened: try a new connection
                if not last:
                    continue
            except httpx.TransportError:
                pass
            else:
                self.failures.pop(other.uri, None)
                return answer
            break
        self._away(other)
        return None

    def download(self, other: Other, path: str, target: Path, *, version: int) -> str | None:
        """Let a peer create a file, and download it.

        Returns:
            The header `x-token`; None if there is no file.
        """
        headers = {SENDER: self.me.name, VERSION: str(version)}
        limits = httpx.Timeout(DOWNLOAD_SECONDS, connect=CONNECT_SECONDS)
        try:
            with (
                self._http.stream(
                    "POST", other.uri + path, json={}, headers=headers, timeout=limits
                ) as answer,
                target.open("wb") as file,
            ):
                if answer.status_code != 200:
                    return None
                for piece in answer.iter_raw(1 << 20):
                    file.write(piece)
                return answer.headers[TOKEN]
        except httpx.ConnectError:
            self._away(other)
            return None
        except httpx.TransportError:  # the download was interrupted; the caller repeats it
            return None

    def _away(self, other: Other) -> None:
        known = self.failures.get(other.uri, {"count": 0})
        self.failures[other.uri] = {
            "count": known["count"] + 1,
            "latest_error": "Error in closure supplied to transport channel pool: "
            + unavailable(other.uri).removeprefix("Tonic status error: "),
            "latest_error_timestamp": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        }
