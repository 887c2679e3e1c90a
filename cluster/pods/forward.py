"""Forwards ports of pods to loopback through the API server, as `kubectl port-forward` does."""

from __future__ import annotations

import logging
import select
import socket
import threading
from contextlib import closing, suppress

from kubernetes import client, stream

from cluster.kube import Kube

log = logging.getLogger(__name__)

CHUNK = 64 * 1024
LOOPBACK = "127.0.0.1"


class Forwards:
    """Open forwards of one user; close it when done.

    Args:
        kube: the cluster.
    """

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._listeners: dict[tuple[str, str, int], socket.socket] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()

    def open(self, namespace: str, pod: str, port: int) -> tuple[str, int]:
        """Listen on loopback for connections to a pod's port; returns host and port to connect to."""
        key = (namespace, pod, port)
        with self._lock:
            if key not in self._listeners:
                listener = socket.create_server((LOOPBACK, 0))
                self._listeners[key] = listener
                threading.Thread(target=self._accept, args=(listener, key), daemon=True).start()
            return LOOPBACK, self._listeners[key].getsockname()[1]

    def close(self) -> None:
        """End all."""
        self._closed.set()
        for listener in self._listeners.values():
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def _accept(self, listener: socket.socket, key: tuple[str, str, int]) -> None:
        while not self._closed.is_set():
            try:
                local, _ = listener.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._serve, args=(local, key), daemon=True).start()

    def _serve(self, local: socket.socket, key: tuple[str, str, int]) -> None:
        namespace, pod, port = key
        # each forward gets a client of its own: the package patches the client that it streams with
        api = client.CoreV1Api(self._kube.target.connect())
        with local:
            try:
                forward = stream.portforward(
                    api.connect_get_namespaced_pod_portforward, pod, namespace, ports=str(port)
                )
            except Exception as exc:  # the caller sees its connection closed
                log.debug("port-forward to %s:%d in %s failed: %s", pod, port, namespace, exc)
                return
            remote = forward.socket(port)
            with closing(remote):  # it only looks like a socket
                self._pump(local, remote)

    def _pump(self, one: socket.socket, other: socket.socket) -> None:
        peers = {one: other, other: one}
        while peers and not self._closed.is_set():
            readable, _, _ = select.select([one, other], [], [], 1.0)
            for source in readable:
                try:
                    data = source.recv(CHUNK)
                    if not data:
                        return
                    peers[source].sendall(data)
                except OSError:
                    return
