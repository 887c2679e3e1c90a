"""Runs a command in a pod, and hands on what it writes: what `kubectl exec` does."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from kubernetes import client, stream
from kubernetes.client.exceptions import ApiException
from websocket import WebSocketException

from cluster.command import CANCELLATION
from cluster.kube import connect_client
from config.models import KubernetesSettings
from errors import TemporaryError

# The status of a command is lost or garbled by some runtimes (KWOK makes every one a 1): so the command says it itself.
DONE = "isa-cloud: the command ended well"
TAIL_CHARACTERS = 2000


def exec_stream(
    settings: KubernetesSettings,
    pod: str,
    container: str,
    command: Sequence[str],
    *,
    stall: float,
    stdin: Iterator[bytes] | None = None,
) -> Iterator[bytes]:
    """Run a command and hand on its standard output as it comes.

    Args:
        settings: which cluster.
        pod: in the engines' namespace.
        container: of the pod; it must have `sh`.
        command: words; never a secret.
        stall: seconds without a sign after which it is given up.
        stdin: what the command reads; it is never told that this has ended.

    Raises:
        Cancelled: the run was cancelled; what the command does goes on until its pod ends.
        TemporaryError: it failed, with the end of what it said; or fell silent.
    """
    api = client.CoreV1Api(connect_client(settings))
    words = ["sh", "-c", f'"$@" && echo "{DONE}" >&2', "sh", *command]
    name = " ".join(command[:3])
    try:
        channel = stream.stream(
            api.connect_get_namespaced_pod_exec,
            pod,
            settings.namespace,
            container=container,
            command=words,
            stdout=True,
            stderr=True,
            stdin=stdin is not None,
            tty=False,
            binary=True,
            _preload_content=False,
        )
    except ApiException as exc:
        raise TemporaryError(f"no command can be run in {pod}: {exc.reason}") from exc
    said = b""
    heard = time.monotonic()
    try:
        while channel.is_open():
            CANCELLATION.check(f"during {name} in {pod}")
            piece = next(stdin, None) if stdin is not None else None
            if piece is not None:
                channel.write_stdin(piece)
                heard = time.monotonic()
            channel.update(timeout=0 if piece is not None else 1)
            if channel.peek_stderr():
                said += channel.read_stderr()
                heard = time.monotonic()
            if channel.peek_stdout():
                yield channel.read_stdout()
                heard = time.monotonic()
            if time.monotonic() - heard > stall:
                raise TemporaryError(f"{name} in {pod} was silent for {stall:.0f} s")
        if channel.peek_stdout():
            yield channel.read_stdout()
        said += channel.read_stderr() if channel.peek_stderr() else b""
    except WebSocketException as exc:  # the command ended while it was still being written to
        said += channel.read_stderr() if channel.peek_stderr() else b""
        last = said.decode(errors="replace").strip()[-TAIL_CHARACTERS:]
        raise TemporaryError(f"{name} in {pod} broke off: {exc}: {last}") from exc
    finally:
        channel.close()
    text = said.decode(errors="replace").strip()
    if not text.endswith(DONE):
        raise TemporaryError(f"{name} in {pod} failed: {text[-TAIL_CHARACTERS:]}")
