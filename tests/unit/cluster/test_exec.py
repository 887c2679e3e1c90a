"""Commands in pods, over a real websocket; what answers is no API server, but speaks as one does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.sync.server import Server, ServerConnection, serve
from websockets.typing import Subprotocol

from cluster.kube import Kube
from cluster.pods import exec
from cluster.pods.exec import DONE, exec_stream
from config.models import KubernetesSettings
from errors import TemporaryError

OUT, ERR = b"\x01", b"\x02"
MIB = 1 << 20
CLUSTER = """\
current-context: here
contexts: [{name: here, context: {cluster: one, user: me}}]
clusters: [{name: one, cluster: {server: "%s"}}]
users: [{name: me, user: {}}]
"""
Script = Callable[[ServerConnection], None]


@contextmanager
def pod(script: Script, directory: Path) -> Iterator[KubernetesSettings]:
    """A cluster whose pods do as the script says."""
    server: Server = serve(
        script,
        "127.0.0.1",
        0,
        subprotocols=[Subprotocol("v4.channel.k8s.io")],
        compression=None,
        max_size=None,
    )
    address = f"http://127.0.0.1:{server.socket.getsockname()[1]}"
    file = directory / "kubeconfig"
    file.write_text(CLUSTER % address)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield KubernetesSettings(
            kubeconfig=file, namespace="engines", control_namespace="control", verify_namespace="v"
        )
    finally:
        server.shutdown()
        thread.join()


def run(
    settings: KubernetesSettings, *, stall: float = 20, stdin: Iterator[bytes] | None = None
) -> Iterator[bytes]:
    kube = Kube.connect(settings)
    return exec_stream(kube, "engines", "neo4j-1-0", "neo4j", ["dump"], stall=stall, stdin=stdin)


def test_output_is_handed_on_and_the_end_is_told(tmp_path: Path) -> None:
    def writes(peer: ServerConnection) -> None:
        peer.send(OUT + b"one ")
        peer.send(ERR + b"a warning\n")
        peer.send(OUT + b"two")
        peer.send(ERR + DONE.encode() + b"\n")

    with pod(writes, tmp_path) as settings:
        assert b"".join(run(settings)) == b"one two"


def test_a_command_that_writes_faster_than_it_is_read_waits(tmp_path: Path) -> None:
    sent: list[int] = []

    def writes(peer: ServerConnection) -> None:
        for number in range(200):
            peer.send(OUT + bytes(MIB))
            sent.append(number)
        peer.send(ERR + DONE.encode())

    with pod(writes, tmp_path) as settings:
        pieces = run(settings)
        taken = len(next(pieces))
        time.sleep(0.5)
        assert len(sent) < 50  # what the sockets hold
        assert taken + sum(map(len, pieces)) == 200 * MIB


def test_a_command_that_ends_badly_says_why(tmp_path: Path) -> None:
    def fails(peer: ServerConnection) -> None:
        peer.send(OUT + b"half of a dump")
        peer.send(ERR + b"the database is in use")

    with (
        pod(fails, tmp_path) as settings,
        pytest.raises(TemporaryError, match="the database is in use"),
    ):
        list(run(settings))


def test_a_command_that_falls_silent_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exec, "POLL_SECONDS", 0.05)
    over = threading.Event()

    def hangs(peer: ServerConnection) -> None:
        peer.send(OUT + b"half of a dump")
        over.wait(60)

    with pod(hangs, tmp_path) as settings:
        pieces = run(settings, stall=0.2)
        assert next(pieces) == b"half of a dump"
        with pytest.raises(TemporaryError, match="sent no output"):
            next(pieces)
        over.set()


def test_a_command_whose_output_has_no_end_is_given_up_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exec, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(exec, "END_SECONDS", 0.2)
    over = threading.Event()

    def loses_its_end(peer: ServerConnection) -> None:
        peer.send(OUT + b"a dump")
        peer.send(ERR + DONE.encode())
        over.wait(60)

    with pod(loses_its_end, tmp_path) as settings:
        pieces = run(settings)
        assert next(pieces) == b"a dump"
        with pytest.raises(TemporaryError, match="its output stream is still open"):
            next(pieces)
        over.set()


def test_a_command_that_answers_while_it_reads_is_read_meanwhile(tmp_path: Path) -> None:
    def echoes(peer: ServerConnection) -> None:
        left = 40 * MIB
        while left:
            piece = peer.recv()
            assert isinstance(piece, bytes)
            peer.send(OUT + piece[1:])
            left -= len(piece) - 1
        peer.send(ERR + DONE.encode())

    with pod(echoes, tmp_path) as settings:
        pieces = run(settings, stdin=iter([bytes(MIB)] * 40))
        assert sum(map(len, pieces)) == 40 * MIB
