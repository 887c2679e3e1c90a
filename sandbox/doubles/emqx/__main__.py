"""One node as a process: `python -m sandbox.doubles.emqx --name N --data DIR --host H --peers N=IP,…`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path

from sandbox.doubles.emqx.api.server import servers
from sandbox.doubles.emqx.api.wire import Node
from sandbox.doubles.emqx.broker import Broker, password_hash
from sandbox.doubles.emqx.retainer import Retainer, seconds
from sandbox.doubles.emqx.state import State


def main() -> None:
    """Serve until killed. The configuration comes from EMQX's environment variables."""
    parser = argparse.ArgumentParser(description=__doc__)
    for option in ("--name", "--data", "--host", "--peers"):
        parser.add_argument(option, required=True)
    given = parser.parse_args()
    data = Path(given.data)
    data.mkdir(parents=True, exist_ok=True)
    peers = dict(pair.split("=") for pair in given.peers.split(","))
    anonymous = os.environ.get("EMQX_AUTHENTICATION__1__BACKEND") != "built_in_database"
    cookie = os.environ["EMQX_NODE__COOKIE"]
    state = State(given.name, peers, data / "state.json", cookie, lambda: broker.reload())
    broker = Broker(state, data, anonymous)
    node = Node(state, broker, data, given.host, cookie, anonymous)
    api, internal = servers(node, cookie)
    threading.Thread(target=internal.serve_forever, daemon=True).start()
    state.join()
    _first_user(state)
    signal.signal(signal.SIGTERM, lambda *_: broker.stop())
    interval = seconds(os.environ.get("EMQX_SYS_TOPICS__SYS_MSG_INTERVAL", "1m"))
    for task in (api.serve_forever, state.beat, partial(_system_topics, node.retainer, interval)):
        threading.Thread(target=task, daemon=True).start()
    sys.exit(broker.run())


def _system_topics(retainer: Retainer, interval: float) -> None:
    """Retain the node's own messages, for the first time after one interval (emqx_sys.erl)."""
    while True:
        time.sleep(interval)
        try:
            retainer.tell_of_itself()
        except TimeoutError:  # other changes take long
            continue


def _first_user(state: State) -> None:
    """Create the dashboard's user at the first start. Its password is then kept in the data, as in EMQX."""
    name = os.environ.get("EMQX_DASHBOARD__DEFAULT_USERNAME", "admin")
    password = os.environ.get("EMQX_DASHBOARD__DEFAULT_PASSWORD", "public")
    if state.name.endswith("-0") and not state.tables["dashboard_users"]:
        made = {"password_hash": password_hash(password), "description": ""}
        state.change(lambda tables: tables["dashboard_users"].setdefault(name, made))


if __name__ == "__main__":
    main()
