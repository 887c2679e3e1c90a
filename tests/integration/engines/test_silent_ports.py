"""Ports that are closed, and ports that accept and never answer: a clear word within the time limit, each engine."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from components import COMPONENTS
from components.access import Access, Endpoint

from .live import Live


@pytest.fixture
def mute() -> Iterator[int]:
    """A port that accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        yield server.getsockname()[1]


def hints(
    live: Live, component: str, port: int, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, float]:
    """All that the engine's checks complain of when each member listens at that port."""

    def there(self: Access, pod: str, _: int) -> Endpoint:
        return Endpoint(pod, "127.0.0.1", port, "127.0.0.1", "node-1")

    monkeypatch.setattr(Access, "endpoint", there)
    started = time.monotonic()
    with Access(live.environment.settings, live.environment.kube) as access:
        report = COMPONENTS[component].ask(access)
    assert any(check.critical and not check.ok for check in report.checks)
    return " ".join(
        check.hint for check in report.checks if not check.ok
    ), time.monotonic() - started


@pytest.mark.parametrize(
    "component", ["postgresql", "redis", "nats", "minio", "qdrant", "neo4j", "emqx"]
)
def test_a_closed_port_is_called_closed(
    component: str, engines: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, seconds = hints(engines, component, 9, monkeypatch)
    assert "nothing listens there" in said
    assert seconds < 15


@pytest.mark.parametrize(
    "component", ["postgresql", "redis", "nats", "minio", "qdrant", "neo4j", "emqx"]
)
def test_a_port_that_never_answers_is_told_within_the_limit(
    component: str, engines: Live, mute: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, seconds = hints(engines, component, mute, monkeypatch)
    assert "does not answer" in said
    assert seconds < 15
