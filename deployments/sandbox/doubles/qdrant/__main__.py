"""One peer as a process: `python -m deployments.sandbox.doubles.qdrant --name N --data DIR --peers N=ADDRESS,…`."""

from __future__ import annotations

import argparse
import os
import threading
from pathlib import Path

from deployments.sandbox.doubles.qdrant.peer import Peer
from deployments.sandbox.doubles.qdrant.server import servers


def main() -> None:
    """Serve until killed; keys come by the environment, as the real server's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--peers", required=True)
    given = parser.parse_args()
    given.data.mkdir(parents=True, exist_ok=True)
    peers = dict(pair.split("=") for pair in given.peers.split(","))
    peer = Peer(given.name, peers, given.data)
    key = os.environ.get("QDRANT__SERVICE__API_KEY", "")
    public, internal = servers(peer, key, os.environ.get("QDRANT__SERVICE__READ_ONLY_API_KEY", ""))
    for task in (internal.serve_forever, peer.beat):
        threading.Thread(target=task, daemon=True).start()
    public.serve_forever()


if __name__ == "__main__":
    main()
