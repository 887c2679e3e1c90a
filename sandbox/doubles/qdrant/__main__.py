"""One peer as a process: `python -m sandbox.doubles.qdrant --name N --data DIR --peers N=ADDRESS,…`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from sandbox.doubles.qdrant.api.server import servers
from sandbox.doubles.qdrant.peer import Peer
from sandbox.doubles.qdrant.peers.replication import Replication

BEAT_SECONDS = 0.5
FLUSH_SECONDS = 5.0  # as the real server's flush_interval_sec


def main() -> None:
    """Serve until killed. API keys come from the environment, as for the real server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--peers", required=True)
    given = parser.parse_args()
    given.data.mkdir(parents=True, exist_ok=True)
    peers = dict(pair.split("=") for pair in given.peers.split(","))
    peer = Peer(given.name, peers, given.data)
    replication = Replication(peer)
    key = os.environ.get("QDRANT__SERVICE__API_KEY", "")
    public, internal = servers(
        replication, key, os.environ.get("QDRANT__SERVICE__READ_ONLY_API_KEY", "")
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    tasks = (
        internal.serve_forever,
        lambda: _repeat(peer.look_around, BEAT_SECONDS),
        lambda: _repeat(replication.repair, BEAT_SECONDS),
        lambda: _repeat(peer.flush, FLUSH_SECONDS),
    )
    for task in tasks:
        threading.Thread(target=task, daemon=True).start()
    try:
        public.serve_forever()
    finally:
        peer.close()


def _repeat(task: Callable[[], object], seconds: float) -> None:
    """Run forever, also after an error: a peer without this loop is worse than one that logs errors."""
    while True:
        try:
            task()
        except Exception:
            traceback.print_exc()
        time.sleep(seconds)


if __name__ == "__main__":
    main()
