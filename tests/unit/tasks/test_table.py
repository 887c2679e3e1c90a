"""The live table while the server is away: nodes go on, and the last lines are there at the end."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator

import pytest

from operations.runner.progress import DONE, INSTALLING, NodeProgress
from tasks.pages import table
from tasks.pages.table import LiveTable


class Server:
    """Stands where the artifact is written; away, it answers nobody."""

    def __init__(self) -> None:
        self.written: list[list[dict[str, object]]] = []
        self.here = threading.Event()
        self.asked = threading.Event()

    def write(self, data: str) -> bool:
        self.asked.set()
        if self.here.is_set():
            self.written.append(json.loads(data))
        return self.here.is_set()

    def insist(self, data: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self.write(data) and time.monotonic() < deadline:
            time.sleep(0.005)

    @property
    def notes(self) -> list[object]:
        return [rows[0]["note"] for rows in self.written]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    made = Server()
    monkeypatch.setattr(table, "Artifact", lambda *_: made)
    monkeypatch.setattr(table, "get_run_logger", lambda: logging.getLogger("test"))
    monkeypatch.setattr(table, "RETRY_SECONDS", 0.005)
    monkeypatch.setattr(table, "CANCELLED_SECONDS", 0.05)
    yield made


def line(note: str, phase: str = INSTALLING) -> list[NodeProgress]:
    return [NodeProgress("redis", phase, note=note)]


def test_a_server_that_is_away_holds_no_node_up_and_gets_the_newest_lines(server: Server) -> None:
    with LiveTable("deploy-test", "Deploy") as live:
        live.publish(line("first"))
        assert server.asked.wait(20)
        began = time.monotonic()
        for number in range(100):
            live.publish(line(f"{number}", INSTALLING if number % 2 else "gate"))
        assert time.monotonic() - began < 5  # it waits for nobody
        server.here.set()
        live.publish(line("last", DONE))
    assert server.notes[-1] == "last"
    assert len(server.notes) < 20  # what nobody could read is not made up for


def test_a_server_that_comes_back_after_the_last_node_has_the_table(server: Server) -> None:
    back = threading.Timer(0.1, server.here.set)
    with LiveTable("deploy-test", "Deploy") as live:
        live.publish(line("only", DONE))
        back.start()
    assert server.notes[-1] == "only"


def test_a_note_alone_is_written_at_the_end(server: Server) -> None:
    server.here.set()
    with LiveTable("deploy-test", "Deploy") as live:
        live.publish(line("first"))
        live.publish(line("second"))  # too soon to be worth a request
    assert server.notes[-1] == "second"


def test_a_cancelled_run_does_not_wait_for_the_server(server: Server) -> None:
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), LiveTable("deploy-test", "Deploy") as live:
        live.publish(line("first"))
        raise KeyboardInterrupt
    assert time.monotonic() - began < 20
    assert server.written == []
