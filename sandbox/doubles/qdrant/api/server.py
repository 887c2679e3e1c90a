"""The table of the public API's routes on 6333, and the two servers of a peer."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import partial
from http.server import ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

from sandbox.doubles.qdrant.api.internal import Internal
from sandbox.doubles.qdrant.api.snapshots import Snapshots
from sandbox.doubles.qdrant.api.stored import Stored
from sandbox.doubles.qdrant.api.structure import Structure
from sandbox.doubles.qdrant.errors import Refused
from sandbox.doubles.qdrant.peers.network import P2P_PORT
from sandbox.doubles.qdrant.peers.replication import Replication

HTTP_PORT = 6333


class Handler(Structure, Stored, Snapshots):
    """One request of the public API."""

    def route(self, path: str) -> Any:
        """Call the route of a path."""
        for method, pattern, action in ROUTES:
            match = re.fullmatch(pattern, path)
            if match and method == self.command:
                return action(self, *(unquote(part) for part in match.groups()))
        raise Refused(404, "", plain=True)


class Server(ThreadingHTTPServer):
    """A server with a long queue of connections: a dropped one would be retried only after a second."""

    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log an error, unless the client has disconnected, as killed peers do."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def servers(replication: Replication, key: str, read_key: str) -> tuple[Server, Server]:
    """The two servers of a peer, bound."""
    at = replication.peer.me.address
    return (
        Server((at, HTTP_PORT), partial(Handler, replication, (key, read_key))),
        Server((at, P2P_PORT), partial(Internal, replication)),
    )


Action = Callable[..., Any]
C = "/collections/([^/]+)"
S = f"{C}/shards/(\\d+)"
ROUTES: tuple[tuple[str, str, Action], ...] = (
    ("GET", "/", Handler.about),
    ("GET", "/(?:healthz|livez)", Handler.healthy),
    ("GET", "/readyz", Handler.is_ready),
    ("GET", "/cluster", Handler.cluster),
    ("GET", "/collections", Handler.collections),
    ("POST", "/collections/aliases", Handler.change_aliases),
    ("GET", "/aliases", Handler.aliases),
    ("PUT", C, Handler.create),
    ("GET", C, Handler.describe),
    ("PATCH", C, Handler.alter),
    ("DELETE", C, Handler.drop),
    ("PUT", f"{C}/shards", Handler.make_key),
    ("GET", f"{C}/exists", Handler.exists),
    ("GET", f"{C}/cluster", Handler.layout),
    ("GET", f"{C}/aliases", Handler.aliases),
    ("PUT", f"{C}/index", Handler.index),
    ("PUT", f"{C}/points", Handler.upsert),
    ("POST", f"{C}/points", Handler.retrieve),
    ("POST", f"{C}/points/delete", Handler.delete_points),
    ("POST", f"{C}/points/count", Handler.count),
    ("POST", f"{C}/points/scroll", Handler.scroll),
    ("POST", f"{C}/points/query", Handler.query_points),
    ("GET", f"{C}/snapshots", Handler.collection_snapshots),
    ("POST", f"{C}/snapshots", Handler.make_collection_snapshot),
    ("PUT", f"{C}/snapshots/recover", Handler.recover_collection),
    ("POST", "/snapshots", Handler.make_full_snapshot),
    ("POST", f"{S}/snapshots/upload", Handler.upload_shard),
    ("POST", f"{S}/snapshots", Handler.make_shard_snapshot),
    ("GET", f"{S}/snapshots", Handler.shard_snapshots),
    ("GET", f"{S}/snapshot", Handler.stream_shard_snapshot),
    ("GET", f"{S}/snapshots/([^/]+)", Handler.shard_snapshot),
    ("DELETE", f"{S}/snapshots/([^/]+)", Handler.drop_shard_snapshot),
)
