"""Runs a command in a pod and streams its output, as `kubectl exec` does.

The package opens the connection; its frames are read here, since its own reader takes all that comes before it hands
anything on, and keeps a copy (kubernetes 37: `WSClient.update`): of a dump, the whole.
"""

from __future__ import annotations

import select
import ssl
import time
from collections.abc import Iterator, Sequence
from typing import Any

from kubernetes import client, stream
from kubernetes.client.exceptions import ApiException
from websocket import ABNF, WebSocket, WebSocketException

from calls import call
from cluster.command import CANCELLATION
from cluster.kube import Kube
from errors import TemporaryError

# The status of a command is lost or garbled by some runtimes (KWOK makes every one a 1): so the command says it itself.
DONE = "isa-cloud: the command succeeded"
TAIL_CHARACTERS = 2000
TAIL_BYTES = 64 << 10  # of what it says, kept
STDOUT, STDERR = 1, 2  # a frame's first byte (v4.channel.k8s.io)
# From a command's end to that of its output: after this time the rest is lost.
END_SECONDS = 30.0
POLL_SECONDS = 1.0  # a cancelled run waits no longer


def exec_stream(
    kube: Kube,
    namespace: str,
    pod: str,
    container: str,
    command: Sequence[str],
    *,
    stall: float,
    stdin: Iterator[bytes] | None = None,
) -> Iterator[bytes]:
    """Run a command and stream its standard output.

    Args:
        kube: the cluster.
        namespace: of the pod.
        pod: its name.
        container: of the pod; it must have `sh`.
        command: words; never a secret.
        stall: seconds without output after which the command counts as failed.
        stdin: input of the command; its end cannot be signalled.

    Raises:
        Cancelled: the run was cancelled; the command may run until its pod ends.
        TemporaryError: it failed, with the end of its error output; or sent no output for too long.
    """
    api = client.CoreV1Api(kube.target.connect())
    argv = ["sh", "-c", f'"$@" && echo "{DONE}" >&2', "sh", *command]
    name = " ".join(command[:3])
    try:
        channel = stream.stream(
            api.connect_get_namespaced_pod_exec,
            pod,
            namespace,
            container=container,
            command=argv,
            stdout=True,
            stderr=True,
            stdin=stdin is not None,
            tty=False,
            binary=True,
            _preload_content=False,
        )
    except ApiException as exc:
        raise TemporaryError(f"cannot run a command in {pod}: {exc.reason}") from exc
    frames = _Frames(channel.sock, stall)
    stderr = b""
    last_output = time.monotonic()
    try:
        with call(f"{name} in {pod}"):
            while not frames.ended:
                CANCELLATION.check(f"during {name} in {pod}")
                piece = next(stdin, None) if stdin is not None else None
                if piece is not None:
                    channel.write_stdin(piece)
                    last_output = time.monotonic()
                for origin, data in frames.arrived(0.0 if piece is not None else POLL_SECONDS):
                    CANCELLATION.check(f"during {name} in {pod}")
                    if origin == STDOUT:
                        yield data
                    elif origin == STDERR:
                        stderr = (stderr + data)[-TAIL_BYTES:]
                    last_output = time.monotonic()  # after the consumer, which may be slow
                silent = time.monotonic() - last_output
                if silent > stall:
                    raise TemporaryError(f"{name} in {pod} sent no output for {stall:.0f} s")
                if silent > END_SECONDS and not frames.ended and _well(stderr):
                    raise TemporaryError(
                        f"{name} in {pod} has exited, but its output stream is still open"
                    )
    except (WebSocketException, OSError) as exc:  # also: it ended while it was written to
        raise TemporaryError(f"{name} in {pod} was interrupted: {exc}: {_tail(stderr)}") from exc
    finally:
        channel.close()
    if not _well(stderr):
        raise TemporaryError(f"{name} in {pod} failed: {_tail(stderr)}")


def _tail(stderr: bytes) -> str:
    """Return the end of a command's error output, for a message."""
    return stderr.decode(errors="replace").strip()[-TAIL_CHARACTERS:]


def _well(stderr: bytes) -> bool:
    """Whether the command has reported success; earlier output may still arrive."""
    return stderr.rstrip().endswith(DONE.encode())


class _Frames:
    """What comes over a connection, taken from it one by one: who sends faster than that waits.

    Args:
        connection: to the API server.
        stall: seconds after which a frame that has begun, or one that is sent, is given up.

    Attributes:
        ended: whether the other side has closed the stream.
    """

    def __init__(self, connection: WebSocket, stall: float) -> None:
        self.ended = False
        self._connection = connection
        connection.settimeout(stall)

    def arrived(self, seconds: float) -> Iterator[tuple[int, bytes]]:
        """Channel and bytes of the frames that are there, or that come within so many seconds."""
        while not self.ended and self._readable(seconds):
            kind, frame = self._connection.recv_data_frame(True)
            if kind == ABNF.OPCODE_CLOSE:
                self.ended = True
            elif kind in (ABNF.OPCODE_BINARY, ABNF.OPCODE_TEXT) and len(frame.data) > 1:
                yield frame.data[0], frame.data[1:]
            seconds = 0.0

    def _readable(self, seconds: float) -> bool:
        raw: Any = self._connection.sock
        # what is decrypted already select does not see
        if isinstance(raw, ssl.SSLSocket) and raw.pending():
            return True
        return bool(select.select([raw], [], [], seconds)[0])
