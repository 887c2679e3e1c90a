"""What the gate says of NATS when servers die, and of a stream that has lost a replica."""

from __future__ import annotations

import asyncio

import nats
import pytest
from nats.js.api import StreamConfig

from cluster.credentials import read_secret
from components.access import Access
from components.nats.readiness import ask as ask_engine

from .live import Live, both, says, troubles

SERVERS = [f"nats-{n}" for n in range(3)]
C = "nats"


async def make_stream(live: Live, name: str) -> None:
    secret = read_secret(live.environment.kube, live.namespace, "nats-auth") or {}
    url = f"nats://{live.address('nats-0')}:4222"
    connection = await nats.connect(url, user="app", password=secret["app-password"])
    await connection.jetstream().add_stream(
        StreamConfig(name=name, subjects=[name], num_replicas=3)
    )
    await connection.close()


def leader(live: Live) -> str:
    return next(role.member for role in live.ask(C).roles if role.role == "leader")


def test_a_healthy_cluster_shows_a_leader_and_two_followers(live: Live) -> None:
    found = live.ask(C)
    assert found.state == "ready", troubles(found)
    assert sorted(role.role for role in found.roles) == ["follower", "follower", "leader"]


def test_a_dead_server_is_named_and_so_is_the_stream_that_misses_it(live: Live) -> None:
    asyncio.run(make_stream(live, "orders"))
    dead = next(server for server in SERVERS if server != leader(live))
    live.kill(dead)
    named = both(
        says("stream replicas are current", "APP/orders", dead, state="degraded"),
        says("servers answer", dead),
    )
    live.until(C, named, "degraded")


def test_a_dead_leader_is_replaced(live: Live) -> None:
    dead = leader(live)
    live.kill(dead)
    _, took = live.until(
        C, lambda f: f.state == "degraded" and leader(live) != dead, "led by another", 60
    )
    print(f"another leader after {took:.1f} s")


def test_two_dead_servers_leave_no_meta_leader(live: Live) -> None:
    live.kill("nats-0", "nats-1")
    live.until(C, says("meta leader", "no agreed leader", state="down"), "down")


def test_a_wrong_password_is_called_by_its_name(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Access(live.environment.settings, live.environment.kube) as access:
        monkeypatch.setattr(access, "secret", lambda name, key: "wrong")
        report = ask_engine(access)
    hints = {check.name: check.hint for check in report.checks if not check.ok}
    assert "refused the credentials" in hints["message stored and read through another server"]
