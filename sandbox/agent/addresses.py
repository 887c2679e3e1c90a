"""Gives every pod name a fixed loopback address, in place of a cluster's DNS.

An engine's configuration names its peers (`nats-1.nats-headless`). The address of such a name must be known before the
peer runs, and must stay the same when the pod is created again.
"""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path

from sandbox.machine.paths import write_atomic

# Host parts of 127.N.0.0/16; .0. is reserved for tests and tools.
FIRST, LAST = 1 * 256 + 1, 250 * 256
NAME = (
    r"(?P<pod>[a-z0-9][-a-z0-9]*-\d+)\.[a-z0-9][-a-z0-9]*(?:\.[-a-z0-9]+\.svc(?:\.[-.a-z0-9]+)?)?"
)


class AddressBook:
    """Addresses by namespace and pod name, kept in a file.

    Args:
        file: the file with the addresses.
        network: N of 127.N.0.0/16.
    """

    def __init__(self, file: Path, network: int) -> None:
        self._file = file
        self._network = network
        self._lock = threading.Lock()
        self._hosts: dict[str, int] = (
            json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        )

    def of(self, namespace: str, pod: str) -> str:
        """The address of a pod. It is assigned at the first call."""
        key = f"{namespace}/{pod}"
        with self._lock:
            if key not in self._hosts:
                taken = set(self._hosts.values())
                self._hosts[key] = next(host for host in range(FIRST, LAST) if _free(host, taken))
                write_atomic(self._file, json.dumps(self._hosts))
            host = self._hosts[key]
        return f"127.{self._network}.{host // 256}.{host % 256}"

    def forget(self, namespace: str, pod: str) -> None:
        """Release an address, unless a pod with this name may be created again."""
        with self._lock:
            if not re.search(r"-\d+$", pod) and f"{namespace}/{pod}" in self._hosts:
                del self._hosts[f"{namespace}/{pod}"]
                write_atomic(self._file, json.dumps(self._hosts))

    def resolve(self, namespace: str, text: str) -> str:
        """Replace all names `POD-N.SERVICE[.NAMESPACE.svc[.DOMAIN]]` in a text by addresses."""
        return re.sub(NAME, lambda match: self.of(namespace, match["pod"]), text)


def _free(host: int, taken: set[int]) -> bool:
    return host not in taken and host % 256 not in (0, 255)
