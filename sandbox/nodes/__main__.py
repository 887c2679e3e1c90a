"""`python -m sandbox.nodes up|down|status`: a cluster of real nodes on this machine."""

from __future__ import annotations

import argparse
import json
import sys

from errors import IsaError
from sandbox.nodes.cluster import Nodes
from sandbox.nodes.control_plane import NAMES
from sandbox.nodes.images.engines import RUNNING
from sandbox.nodes.platform import Platform


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.nodes", description=__doc__)
    parser.add_argument("command", choices=["up", "down", "status"])
    parser.add_argument("--name", default="nodes")
    parser.add_argument("--count", type=int, default=3)
    arguments = parser.parse_args()
    if not 1 <= arguments.count <= len(NAMES):
        parser.error(f"--count: 1 to {len(NAMES)}")
    nodes = Nodes(arguments.name, arguments.count)
    if arguments.command == "down":
        nodes.down()
        return
    if arguments.command == "up":
        nodes.up()
        Platform(nodes, RUNNING).up()
    print(json.dumps(nodes.status(), indent=1))


if __name__ == "__main__":
    try:
        main()
    except IsaError as exc:
        sys.exit(str(exc))
