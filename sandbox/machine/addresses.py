"""Gives every sandbox its own loopback network and block of ports, so that several can run side by side."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from errors import PermanentError
from sandbox.machine.paths import locked, state_dir, write_atomic

# All of 127.0.0.0/8 is loopback on Linux. The first networks are left for other programs.
FIRST, LAST = 20, 250
PORT_BASE, PORTS_EACH = 21000, 20


@dataclass(frozen=True)
class Addresses:
    """The addresses of a sandbox, all on loopback.

    Attributes:
        number: N of its pod network 127.N.0.0/16.
        etcd, etcd_peer, apiserver, kwok, object_store, object_store_console, prefect, prefect_database: ports.
    """

    number: int
    etcd: int
    etcd_peer: int
    apiserver: int
    kwok: int
    object_store: int
    object_store_console: int
    prefect: int
    prefect_database: int

    @property
    def pod_network(self) -> str:
        """CIDR from which pods get their addresses."""
        return f"127.{self.number}.0.0/16"

    @classmethod
    def of(cls, number: int) -> Addresses:
        """The addresses that belong to a number."""
        base = PORT_BASE + (number - FIRST) * PORTS_EACH
        return cls(number, *range(base, base + 8))

    def ports(self) -> Iterator[int]:
        """All its ports."""
        return (port for name, port in asdict(self).items() if name != "number")

    def by_part(self) -> dict[str, tuple[int, ...]]:
        """Ports of each process of the cluster."""
        return {
            "etcd": (self.etcd, self.etcd_peer),
            "kube-apiserver": (self.apiserver,),
            "kwok": (self.kwok,),
            "object-store": (self.object_store, self.object_store_console),
        }


def allocate(name: str) -> Addresses:
    """The addresses of a sandbox: its earlier ones, or the first free ones.

    Raises:
        PermanentError: all networks are taken.
    """
    root = state_dir()
    with locked(root / "addresses.lock"):
        file = root / name / "addresses.json"
        if file.exists():
            return Addresses.of(int(json.loads(file.read_text(encoding="utf-8"))["number"]))
        taken = {
            int(json.loads(other.read_text(encoding="utf-8"))["number"])
            for other in root.glob("*/addresses.json")
        }
        for number in range(FIRST, LAST):
            addresses = Addresses.of(number)
            if number not in taken and all(is_free(port) for port in addresses.ports()):
                write_atomic(file, json.dumps({"number": number}))
                return addresses
    raise PermanentError(f"all sandbox networks are taken: remove old ones under {root}")


def release(directory: Path) -> None:
    """Release the addresses of a sandbox."""
    (directory / "addresses.json").unlink(missing_ok=True)


def is_free(port: int) -> bool:
    """Whether a port of 127.0.0.1 is free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
