"""Listens on the machine's loopback and connects in another network.

`python -m sandbox.nodes.helpers.relay PID PORT TARGET`.

A socket belongs to the network in which it was made. So the listener is made here, then this process enters the
capsule's network, and its connections are made there. The machine's own network gets no link and no route.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import sys

CLONE_NEWNET = 0x40000000  # linux/sched.h
PIECE_BYTES = 1 << 16


def enter_network(pid: int) -> None:
    """Enter the network of a process, for everything that is connected from now on.

    Raises:
        OSError: there is no such process, or we may not.
    """
    libc = ctypes.CDLL(None, use_errno=True)  # os.setns is there from Python 3.12 on
    with open(f"/proc/{pid}/ns/net", "rb") as namespace:
        if libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))


async def relay(listener: socket.socket, port: int) -> None:
    """Carry every connection to this port of the network that we are in."""
    carrying: set[asyncio.Task[None]] = set()  # asyncio itself holds its tasks weakly

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        carrying.add(task)
        task.add_done_callback(carrying.discard)
        try:
            answer, inner = await asyncio.open_connection("127.0.0.1", port)
        except OSError:  # nobody listens there yet: the client is told by the end of its connection
            writer.close()
            return
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(_copy(reader, inner))
                both.create_task(_copy(answer, writer))
        except* OSError:  # one side is gone, so the other is of no use
            pass
        finally:
            inner.close()
            writer.close()

    server = await asyncio.start_server(carry, sock=listener)
    await server.serve_forever()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(PIECE_BYTES):
        writer.write(piece)
        await writer.drain()
    writer.write_eof()


def main() -> None:
    """Arguments: a process of the network to connect in; the port here; the port there."""
    pid, port, target = map(int, sys.argv[1:])
    listener = socket.create_server(("127.0.0.1", port), backlog=128)
    enter_network(pid)
    asyncio.run(relay(listener, target))


if __name__ == "__main__":
    main()
