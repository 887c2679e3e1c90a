"""Gives every pod name a loopback address of its own, for good: what a cluster's DNS does for a StatefulSet.

There is no DNS here. An engine's configuration names its peers (`nats-1.nats-headless`); the address behind such a name
must be known before the peer runs, and stay when the pod is made anew.
"""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path

from sandbox.paths import write_atomic

# Host parts of 127.N.0.0/16; .0. is left to tests and tools.
FIRST, LAST = 1 * 256 + 1, 250 * 256
NAME = (
    r"(?P<pod>[a-z0-9][-a-z0-9]*-\d+)\.[a-z0-9][-a-z0-9]*(?:\.[-a-z0-9]+\.svc(?:\.[-.a-z0-9]+)?)?"
)


class AddressBook:
    """Addresses by namespace and pod name, kept in a file.

    Args:
        file: where they are kept.
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
        """Address of a pod, given at the first call."""
        key = f"{namespace}/{pod}"
        with self._lock:
            if key not in self._hosts:
                taken = set(self._hosts.values())
                self._hosts[key] = next(host for host in range(FIRST, LAST) if _free(host, taken))
                write_atomic(self._file, json.dumps(self._hosts))
            host = self._hosts[key]
        return f"127.{self._network}.{host // 256}.{host % 256}"

    def forget(self, namespace: str, pod: str) -> None:
        """Give an address back, unless the pod's name may come again."""
        with self._lock:
            if not re.search(r"-\d+$", pod) and f"{namespace}/{pod}" in self._hosts:
                del self._hosts[f"{namespace}/{pod}"]
                write_atomic(self._file, json.dumps(self._hosts))

    def resolve(self, namespace: str, text: str) -> str:
        """Put addresses in the place of all `POD-N.SERVICE[.NAMESPACE.svc[.DOMAIN]]` of a text."""
        return re.sub(NAME, lambda match: self.of(namespace, match["pod"]), text)


def _free(host: int, taken: set[int]) -> bool:
    return host not in taken and host % 256 not in (0, 255)
