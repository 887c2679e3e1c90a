"""A live restore deletes no stream before it is known that JetStream takes what comes in its place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from components.nats.capacity import overlap, refusals, restored_first
from components.nats.client import Refused
from components.nats.resources import Server, StoredStream, account_of, server_of
from errors import TemporaryError

CONFIG = {
    "name": "ORDERS",
    "subjects": ["orders.*"],
    "num_replicas": 3,
    "storage": "file",
    "max_bytes": -1,
    "max_msg_size": 1000,
}
UNLIMITED = {"max_memory": -1, "max_storage": -1, "max_streams": -1, "max_ack_pending": -1}
INFO = {"memory": 0, "storage": 600, "streams": 2, "limits": UNLIMITED}
MEMBERS = ("nats-0", "nats-1", "nats-2")


def server(name: str, **changes: Any) -> Server:
    """As `/varz` of a server of 2.15.1 describes it, with 1000 bytes of room of which 200 are used."""
    limits = {"max_ack_pending": changes.pop("max_ack_pending", 0)}
    stats = {"storage": changes.pop("storage", 200), "memory": 0, "api": {"level": 5}}
    stats |= {"reserved_storage": changes.pop("reserved", 0), "reserved_memory": 0}
    config = {"max_memory": 500, "max_storage": 1000}
    varz = {
        "server_name": name,
        "version": "2.15.1",
        "max_payload": 1 << 20,
        "cluster": {"name": "nats"},
        "jetstream": {"config": config, "stats": stats, "limits": limits},
    }
    return server_of({**varz, **changes})


def servers(**changes: Any) -> list[Server]:
    return [server(name, **changes) for name in MEMBERS]


def live(name: str, size: int = 200, **changes: Any) -> dict[str, Any]:
    """A stream as `STREAM.LIST` describes it."""
    config = {**CONFIG, "name": name, "subjects": [f"{name.lower()}.*"], **changes}
    peers = [{"name": peer} for peer in MEMBERS[1:]]
    return {
        "config": config,
        "state": {"bytes": size},
        "cluster": {"leader": MEMBERS[0], "replicas": peers},
    }


def stored(
    size: int = 200, largest: int = 0, version: str = "2.15.1", **changes: Any
) -> StoredStream:
    """A set's stream of so many bytes."""
    numbers = tuple(int(part) for part in version.split(".")[:2])
    consumers = changes.pop("consumers", ())
    config = {**CONFIG, **changes}
    unit = f"stream app/{config['name']}"
    return StoredStream(unit, config, {"bytes": size}, consumers, largest, numbers)


class JetStream:
    """Refuses one configuration in the way of `checkStreamCfg`, when it is asked to restore a stream that is there.

    Args:
        refusal: what it refuses; its key → value.
        code: of the refusal.
    """

    def __init__(self, code: int = 0, *, unavailable: bool = False, **refusal: Any) -> None:
        self.refusal, self.code, self.unavailable = refusal, code, unavailable
        self.asked: list[Mapping[str, Any]] = []

    def dry_run(self, stream: StoredStream, config: Mapping[str, Any]) -> None:
        self.asked.append(config)
        if self.code and self.refusal.items() <= dict(config).items():
            raise Refused("RESTORE", self.code, "no", unavailable=self.unavailable)


def refused(
    *streams: StoredStream,
    there: tuple[dict[str, Any], ...] = (live("ORDERS"),),
    info: dict[str, Any] = INFO,
    on: list[Server] | None = None,
    by: JetStream | None = None,
) -> list[str]:
    by = by or JetStream()
    account = account_of({**info}, there)
    return refusals(streams or (stored(),), account, on or servers(), by.dry_run)


def limited(**limits: int) -> dict[str, Any]:
    return {**INFO, "limits": {**UNLIMITED, **limits}}


def test_a_stream_that_replaces_itself_is_taken() -> None:
    assert refused() == []


def test_jetstream_is_asked_about_both_configurations_that_a_restore_sends() -> None:
    server = JetStream()
    refused(by=server)
    assert server.asked == [restored_first(CONFIG), CONFIG]
    assert "max_msg_size" not in server.asked[0]


def test_its_own_words_are_the_reason() -> None:
    assert refused(by=JetStream(10052, num_replicas=3)) == ["stream app/ORDERS: no (10052)"]


def test_a_refusal_that_passes_is_no_reason() -> None:
    with pytest.raises(TemporaryError):
        refused(by=JetStream(10008, unavailable=True))


def test_a_stream_that_is_not_there_is_not_tried_for_it_would_begin() -> None:
    server = JetStream()
    assert refused(there=(), by=server) == []
    assert server.asked == []


def test_a_message_beyond_the_servers_limit_is_known_before() -> None:
    small = servers(max_payload=1000)
    (reason,) = refused(stored(largest=1001), on=small)
    assert reason == (
        "stream app/ORDERS: it has a message of 1001 bytes, but the servers accept 1000 (max_payload)"
    )
    assert refused(stored(largest=1000), on=small) == []


def test_replicas_need_as_many_servers() -> None:
    two = [server(name) for name in MEMBERS[:2]]
    (reason,) = refused(on=two)
    assert "3 replicas, and 2 servers" in reason
    assert refused(stored(num_replicas=2), on=two) == []


def test_a_place_that_no_server_has_any_more_is_no_place() -> None:
    tagged = [server(name, tags=["ssd"] if name != "nats-0" else []) for name in MEMBERS]
    (reason,) = refused(stored(placement={"tags": ["SSD"]}), on=tagged)
    assert "2 servers with JetStream answer where it has to be placed" in reason
    assert refused(stored(placement={"tags": ["SSD"]}, num_replicas=2), on=tagged) == []
    assert refused(stored(placement={"cluster": "nats"})) == []
    assert len(refused(stored(placement={"cluster": "other"}))) == 1


def test_what_the_old_stream_takes_is_room_for_the_new_one() -> None:
    assert refused(stored(1000)) == []
    (reason,) = refused(stored(1001))
    assert reason.startswith(
        "stream app/ORDERS: it needs 1001 bytes on 3 servers (file): nats-0 has 1000"
    )
    (reason,) = refused(stored(801), there=())
    assert "nats-0 has 800" in reason


def test_bytes_that_are_reserved_are_no_room() -> None:
    full = servers(reserved=900)
    assert len(refused(stored(10, max_bytes=101), there=(), on=full)) == 1
    assert refused(stored(10, max_bytes=100), there=(), on=full) == []


def test_streams_of_one_set_share_the_room() -> None:
    first, second = stored(500, name="A", subjects=["a"]), stored(301, name="B", subjects=["b"])
    (reason,) = refused(first, second, there=())
    assert reason.startswith("stream app/B: it needs 301 bytes")


def test_memory_is_room_of_its_own() -> None:
    assert len(refused(stored(501, storage="memory"))) == 1
    assert refused(stored(500, storage="memory")) == []


def test_an_account_has_limits_over_all_replicas_and_a_tier_over_each() -> None:
    assert refused(stored(300), info=limited(max_storage=900)) == []
    (reason,) = refused(stored(301), info=limited(max_storage=900))
    assert reason.endswith("the account may store 900 bytes (storage) and would use 903")
    tier = {"R3": {"storage": 600, "streams": 2, "limits": {**UNLIMITED, "max_storage": 300}}}
    assert refused(stored(300), info={"tiers": tier}) == []
    assert len(refused(stored(301), info={"tiers": tier})) == 1
    (reason,) = refused(stored(num_replicas=1), info={"tiers": tier})
    assert "no limits for streams with 1 replicas" in reason


def test_an_account_that_has_as_many_streams_as_it_may_takes_those_that_replace_one() -> None:
    full = limited(max_streams=2)
    assert refused(info=full) == []
    (reason,) = refused(there=(), info=full)
    assert reason.endswith("the account may have 2 streams and has 2")


def test_a_consumer_beyond_the_limit_would_end_the_restore() -> None:
    consumers = ({"name": "bills", "config": {"max_ack_pending": 500}},)
    for account, on in ((limited(max_ack_pending=100), None), (INFO, servers(max_ack_pending=100))):
        (reason,) = refused(stored(consumers=consumers), info=account, on=on)
        assert reason.endswith("consumer bills has max_ack_pending 500, but 100 is the limit")
    assert refused(stored(consumers=consumers), info=limited(max_ack_pending=500)) == []


def test_a_subject_that_another_stream_has_taken_since_is_named() -> None:
    (reason,) = refused(there=(live("ORDERS"), live("PAID", subjects=["orders.paid"])))
    assert reason.endswith("its subject orders.* overlaps with orders.paid of stream PAID")


def test_streams_of_one_set_may_have_changed_their_subjects_with_each_other() -> None:
    there = (live("A", subjects=["b"]), live("B", subjects=["c"]))
    a, b = stored(name="A", subjects=["a"]), stored(name="B", subjects=["b"])
    assert refused(a, b, there=there) == []
    (reason,) = refused(b, a, there=there)
    assert "overlaps with b of stream A" in reason


def test_the_stream_of_a_gate_is_in_nobodys_way() -> None:
    probe = live("isa-cloud-probe-1-x", subjects=["isa-cloud-probe.x"])
    assert refused(stored(subjects=[">"]), there=(live("ORDERS"), probe)) == []


def test_a_live_stream_without_a_leader_may_be_replaced() -> None:
    account = account_of({**INFO}, (), ["ORDERS"])
    assert refusals([stored()], account, servers(), JetStream().dry_run) == []


def test_older_servers_read_no_snapshot_of_a_newer_one() -> None:
    older = servers(version="2.14.5")
    (reason,) = refused(on=older)
    assert reason.endswith("its snapshot is from NATS 2.15, which 2.14 cannot read")
    assert refused(stored(version="2.14.5"), on=older) == []
    (reason,) = refused(stored(metadata={"_nats.req.level": "6"}))
    assert "level 6" in reason


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.c", False),
        ("a.*", "*.b", True),
        ("a.*", "a.b.c", False),
        ("a.>", "a", False),
        ("a.>", "a.b.c", True),
        (">", "a", True),
        ("*.x", "a.>", True),
    ],
)
def test_subjects_overlap_where_one_message_may_have_both(one: str, other: str, both: bool) -> None:
    assert overlap(one, other) is both
    assert overlap(other, one) is both
