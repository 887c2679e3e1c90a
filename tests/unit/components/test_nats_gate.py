"""The gate of NATS: a meta leader, peers and streams that are current, and a message that travels."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from types import SimpleNamespace
from typing import Any, cast

import pytest
from nats.js.errors import NoStreamResponseError

from components.base import Check, Report, Role, Workload
from components.nats import readiness
from components.nats.readiness import settings_read, workloads
from components.questions import PROBE

from .nats_double import MEMBERS, Access, JetStream, meta


class Servers(Access):
    """Three servers and their JetStream."""

    def __init__(self) -> None:
        super().__init__()
        self.jetstream = JetStream()

    def ask(self) -> Report:
        return readiness.ask(cast(Any, self))

    def bad(self) -> dict[str, Check]:
        return {check.name: check for check in self.ask().checks if not check.ok}

    def has(self, *streams: dict[str, Any], server: str = MEMBERS[0], account: str = "APP") -> None:
        """Streams that a server tells of."""
        details = [{"name": account, "stream_detail": list(streams)}]
        self.said[server] = {"meta_cluster": meta(), "account_details": details}


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Servers:
    made = Servers()
    monkeypatch.setattr(readiness, "connect", made.jetstream.connect)
    return made


def stream(leader: str = MEMBERS[0], name: str = "ORDERS", **peer: Any) -> dict[str, Any]:
    replica = {"name": MEMBERS[1], "current": True, **peer}
    return {"name": name, "cluster": {"leader": leader, "replicas": [replica]}}


def test_a_healthy_cluster_answers_every_check(servers: Servers) -> None:
    servers.has(stream())
    report = servers.ask()
    assert [(one.name, one.ok, one.hint, one.critical) for one in report.checks] == [
        ("servers answer", True, "3 of 3", False),
        ("meta leader", True, "nats-0", True),
        ("peers are current", True, "3 servers", False),
        ("every stream has a leader", True, "", True),
        ("stream replicas are current", True, "", False),
        (
            "message stored and read through another server",
            True,
            "stored through nats-0, read through nats-2",
            True,
        ),
    ]
    assert report.roles == (
        Role("nats-0", "leader"),
        Role("nats-1", "follower", "0 op"),
        Role("nats-2", "follower", "0 op"),
    )
    assert servers.jetstream.connected == ["nats-0:4222", "nats-2:4222"]
    assert servers.jetstream.closed == 2
    assert set(servers.paths) == {"8222/jsz?accounts=true&streams=true&config=true"}


def test_all_members_of_the_settings_are_wanted() -> None:
    settings = SimpleNamespace(components=SimpleNamespace(nats=SimpleNamespace(members=3)))
    assert workloads(cast(Any, settings)) == (Workload("StatefulSet", "nats", 3),)


def test_a_server_tells_when_it_has_read_its_settings(servers: Servers) -> None:
    times = {name: f"2026-01-0{at}T00:00:00Z" for at, name in enumerate(MEMBERS, 1)}
    servers.said = {name: {"config_load_time": at} for name, at in times.items()}
    servers.up = MEMBERS[:2]
    read = settings_read(cast(Any, servers))
    assert read == {name: times[name] for name in MEMBERS[:2]}
    assert set(servers.paths) == {"8222/varz"}


def test_a_server_that_is_away_is_named_and_its_peers_do_without_it(servers: Servers) -> None:
    servers.up = MEMBERS[:2]
    servers.said = {name: {"meta_cluster": meta(n2={"offline": True})} for name in MEMBERS}
    found = servers.bad()
    assert list(found) == ["servers answer", "peers are current"]
    assert found["servers answer"].hint.startswith("nats-2: ")
    assert found["peers are current"].hint == "nats-2: is offline"
    assert not found["peers are current"].critical
    assert servers.jetstream.connected == ["nats-0:4222", "nats-1:4222"]


def test_without_jetstream_there_is_no_leader_and_nothing_is_stored(servers: Servers) -> None:
    servers.said = {name: {"server_id": "x"} for name in MEMBERS}
    report = servers.ask()
    found = {check.name: check for check in report.checks}
    assert not found["meta leader"].ok and found["meta leader"].critical
    assert found["meta leader"].hint == "no server has JetStream's meta group"
    assert not found["peers are current"].ok
    assert servers.jetstream.connected == []
    assert report.roles == ()


def test_servers_that_name_different_leaders_have_none(servers: Servers) -> None:
    servers.said = {MEMBERS[2]: {"meta_cluster": meta("")}, MEMBERS[1]: {"meta_cluster": meta()}}
    check = servers.bad()["meta leader"]
    assert check.hint == (
        "no agreed leader (nats-0, none): fewer than 2 of 3 servers can reach each other"
    )
    assert servers.jetstream.connected == []


def test_a_meta_group_that_nobody_leads_has_no_leader(servers: Servers) -> None:
    servers.said = {name: {"meta_cluster": {"leader": ""}} for name in MEMBERS}
    assert "no agreed leader (none)" in servers.bad()["meta leader"].hint


def test_a_peer_that_the_meta_group_does_not_know_is_missed(servers: Servers) -> None:
    alone = {"leader": "nats-0", "replicas": [{"name": "nats-1", "current": True}]}
    servers.said = {name: {"meta_cluster": alone} for name in MEMBERS}
    assert servers.bad()["peers are current"].hint == "the meta group: has 2 of 3 servers"
    servers.said = {name: {"meta_cluster": {"leader": "nats-0"}} for name in MEMBERS}
    assert servers.bad()["peers are current"].hint == "the meta group: has 1 of 3 servers"


@pytest.mark.parametrize(
    ("peer", "hint"),
    [
        ({"current": False, "lag": 11, "active": 1_000_000}, "is 11 operations behind"),
        ({"current": False, "lag": 10, "active": 1_000_000}, ""),  # at work
        ({"current": False, "lag": 10, "active": 2_000_000_000}, ""),
        ({"current": False, "lag": 10, "active": 2_000_000_001}, "is 10 operations behind"),
        ({"current": False, "lag": 0, "active": 0}, "is 0 operations behind"),  # never heard of
        ({"current": False}, "is 0 operations behind"),
        ({"current": True, "lag": 4000}, ""),
        ({"current": True, "offline": True}, "is offline"),
    ],
)
def test_a_peer_is_behind_that_is_silent_or_far_behind(
    peer: dict[str, Any], hint: str, servers: Servers
) -> None:
    servers.said = {name: {"meta_cluster": meta(n1=peer)} for name in MEMBERS}
    checks = {check.name: check.hint for check in servers.ask().checks}
    assert checks["peers are current"] == (f"nats-1: {hint}" if hint else "3 servers")


def test_a_followers_lag_is_shown(servers: Servers) -> None:
    servers.said = {name: {"meta_cluster": meta(n2={"lag": 7})} for name in MEMBERS}
    assert servers.ask().roles[2] == Role("nats-2", "follower", "7 op")


def test_a_stream_that_nobody_leads_is_down(servers: Servers) -> None:
    servers.has(stream(leader=""), stream(name="OTHER"))
    (check,) = servers.bad().values()
    assert (check.name, check.critical) == ("every stream has a leader", True)
    assert check.hint == "APP/ORDERS: has no leader: a majority of its replicas is away"


def test_a_stream_has_a_leader_if_one_server_knows_it(servers: Servers) -> None:
    servers.has({"name": "ORDERS"}, server=MEMBERS[1])  # it has lost sight of it
    servers.has(stream(leader=MEMBERS[2]), server=MEMBERS[2])
    assert servers.bad() == {}


def test_a_replica_counts_as_its_leader_sees_it(servers: Servers) -> None:
    late: dict[str, Any] = {"current": False, "lag": 20}
    servers.has(stream(leader=MEMBERS[0], **late), server=MEMBERS[1])  # a follower's own view
    assert servers.bad() == {}
    servers.has(stream(leader=MEMBERS[0], **late), server=MEMBERS[0])
    (check,) = servers.bad().values()
    assert (check.name, check.critical) == ("stream replicas are current", False)
    assert check.hint == "APP/ORDERS: nats-1 is 20 operations behind"


def test_the_streams_of_rounds_under_way_are_not_looked_at(servers: Servers) -> None:
    servers.has(stream(leader="", name=f"{PROBE}-1-a"), stream(name="ORDERS"))
    assert servers.bad() == {}


def test_streams_behind_one_of_a_round_are_looked_at(servers: Servers) -> None:
    servers.has(stream(name=f"{PROBE}-1-a"), stream(leader="", name="ORDERS"))
    assert list(servers.bad()) == ["every stream has a leader"]


def test_a_message_that_comes_back_as_another_is_down(servers: Servers) -> None:
    class Mixed(JetStream):
        def _msg(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
            return {"message": {"data": b64encode(b"another").decode()}}

    servers.jetstream.__class__ = Mixed
    (check,) = servers.bad().values()
    assert check.critical
    assert check.hint == "nats-2 returned another message than was stored"
    assert servers.jetstream.streams == {}


def test_the_stream_of_a_round_is_small_short_lived_and_has_all_replicas(servers: Servers) -> None:
    servers.ask()
    (made,) = servers.jetstream.made
    assert made["subjects"] == [f"{PROBE}.{made['name']}"]
    assert made["num_replicas"] == 3
    assert (made["storage"], made["max_bytes"]) == ("file", 1 << 20)
    assert made["max_age"] == 300 * 10**9  # what a killed round leaves is empty by then
    assert "not in backups" in made["description"]


def test_a_server_that_has_not_heard_of_the_stream_yet_is_asked_again(servers: Servers) -> None:
    class Late(JetStream):
        unheard = 2

        def jetstream(self, timeout: float) -> Any:
            inner = super().jetstream(timeout)

            async def publish(subject: str, token: bytes) -> Any:
                if Late.unheard:
                    Late.unheard -= 1
                    raise NoStreamResponseError
                return await inner.publish(subject, token)

            return SimpleNamespace(publish=publish)

    servers.jetstream.__class__ = Late
    assert servers.bad() == {}


def test_a_server_that_never_hears_of_the_stream_is_down_within_the_limit(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Deaf(JetStream):
        def jetstream(self, timeout: float) -> Any:
            async def publish(subject: str, token: bytes) -> Any:
                raise NoStreamResponseError

            return SimpleNamespace(publish=publish)

    servers.jetstream.__class__ = Deaf
    servers.timeout_seconds = 0.1
    (check,) = servers.bad().values()
    assert check.critical
    assert servers.jetstream.closed == 2


def test_too_few_servers_for_any_stream_is_down(servers: Servers) -> None:
    servers.jetstream.refuses = dict.fromkeys((2, 3), (10005, "no suitable peers for placement"))
    servers.up = MEMBERS[:2]
    check = servers.bad()["message stored and read through another server"]
    assert "no suitable peers" in check.hint
    assert [made["num_replicas"] for made in servers.jetstream.made] == [3, 2]


def test_an_account_that_may_have_no_more_streams_is_unknown(servers: Servers) -> None:
    servers.jetstream.refuses = {3: (10027, "maximum number of streams reached")}
    (check,) = (one for one in servers.ask().checks if one.unknown)
    assert check.hint == (
        "the account has reached its limit of streams: maximum number of streams reached (10027)"
    )


def test_a_connection_is_closed_although_the_second_one_fails(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected: list[str] = []

    async def connect(access: Any, to: list[Any], **given: Any) -> JetStream:
        connected.append(to[0].member)
        if len(connected) == 2:
            raise ConnectionRefusedError(111, "Connection refused")
        await asyncio.sleep(0)
        return servers.jetstream

    monkeypatch.setattr(readiness, "connect", connect)
    (check,) = servers.bad().values()
    assert "nothing listens there" in check.hint
    assert servers.jetstream.closed == 1
