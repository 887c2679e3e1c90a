"""The nodes' network: a bridge in the control plane's capsule; for each node a link into it and a range for its pods.

Plain routes, no overlay. Nothing of it exists in the machine's own network: no two sandboxes meet, and nothing outside
the machine can be reached.
"""

from __future__ import annotations

import subprocess

from errors import PermanentError
from sandbox.nodes.capsules.capsule import Capsule

CONTROL_ADDRESS = "10.90.0.1"
BRIDGE = "isa0"
PODS = "10.91.0.0/16"
SERVICES = "10.96.0.0/16"
DNS_ADDRESS = "10.96.0.10"


def address(number: int) -> str:
    """Of the node with this number, from 1."""
    return f"10.90.0.{10 + number}"


def pods(number: int) -> str:
    """Range of the pods' addresses on a node."""
    return f"10.91.{number}.0/24"


def make_bridge(control: Capsule) -> None:
    """Give the control plane its bridge and address.

    The default route leads nowhere: kubelet and API server look for one to find their address.
    """
    _ip(
        control,
        f"link add {BRIDGE} type bridge",
        f"addr add {CONTROL_ADDRESS}/24 dev {BRIDGE}",
        f"link set {BRIDGE} up",
        f"route add default via 10.90.0.254 dev {BRIDGE} onlink",
    )


def connect(control: Capsule, node: Capsule, number: int) -> None:
    """Link a new node to the bridge, and route its pods."""
    _ip(
        control,
        f"link add node{number} type veth peer name eth0 netns {node.pid}",
        f"link set node{number} master {BRIDGE} up",
        f"route add {pods(number)} via {address(number)}",
    )
    _ip(
        node,
        f"addr add {address(number)}/24 dev eth0",
        "link set eth0 up",
        f"route add default via {CONTROL_ADDRESS}",
    )


def introduce(node: Capsule, other: int) -> None:
    """Route another node's pods on a node."""
    _ip(node, f"route replace {pods(other)} via {address(other)}")


def cut(control: Capsule, number: int) -> None:
    """Pull the cable of a node: it stays up, with its pods, and reaches nobody."""
    _ip(control, f"link set node{number} down")


def reconnect(control: Capsule, number: int) -> None:
    """Plug it in again."""
    _ip(control, f"link set node{number} up")


def _ip(capsule: Capsule, *lines: str) -> None:
    done = subprocess.run(
        capsule.network_command("ip", "-batch", "-"),
        input="\n".join(lines),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise PermanentError(f"network of node {capsule.name}: {done.stderr.strip()}")
