"""Whether something of ours called an address that it must not call."""

from __future__ import annotations

import socket


def called(listener: socket.socket) -> bool:
    """Whether somebody has called since the last question."""
    try:
        listener.accept()[0].close()
    except BlockingIOError:
        return False
    return True
