"""A restore into the live cluster knows what it would refuse before anything goes, and moves keys of any size."""

from __future__ import annotations

import hashlib
import socket
import threading
import tracemalloc
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
from redis.crc import key_slot

from archive.backup.cleanup_journal import CleanupJournal, HalfReplaced, ServerLimits
from archive.backup.reader import SetReader
from components.access import Access, Endpoint
from components.base import RunningScratch
from components.redis.keys.relay import Line, copy_keys
from components.redis.live import EVERYTHING, can_take, replace
from components.redis.replacement import limits
from errors import PermanentError, TemporaryError

from .redis_double import LIBRARY, Cluster, Server, three_shards

MIB = 1 << 20
SLOTS = ("0-5460", "5461-10922", "10923-16383")
KEYS = {f"key:{number}".encode(): bytes([number]) * 100 for number in range(60)}


class Notes(list[Any]):
    """What stands on the Lease, each time that it was written."""

    def cleanup(self, earlier: Iterable[Any] = ()) -> CleanupJournal:
        return CleanupJournal(list(earlier), lambda held: self.append(list(held)))


def set_of(
    libraries: Mapping[int, Mapping[str, str]] | None = None,
    memory: int = 1000,
    slots: Iterable[str] = SLOTS,
    rdb: bytes = b"REDIS0012\xff",
) -> SetReader:
    """A set of three shards, as its manifest describes it."""
    topology = [
        {"unit": f"shard {n}", "slots": text, "memory": memory} for n, text in enumerate(slots)
    ]
    artefacts = [
        SimpleNamespace(
            name=f"shard-{n}.rdb.zst.age", unit=f"shard {n}", format="RDB", plain_size=9
        )
        for n in range(len(topology))
    ]
    fingerprint = [
        SimpleNamespace(unit=f"shard {n}", item="functions", names=names)
        for n, names in (libraries or {}).items()
    ]
    manifest = SimpleNamespace(
        id="redis-set", topology={"shards": topology}, artefacts=artefacts, fingerprint=fingerprint
    )
    reader = SetReader(cast(Any, None), cast(Any, manifest), "")
    cast(Any, reader).stream = lambda name: iter([rdb])
    return reader


@contextmanager
def scratch(
    keys: Mapping[bytes, bytes], libraries: Mapping[int, str] | None = None
) -> Iterator[RunningScratch]:
    """The set's shards, each in a server by itself."""
    servers = [Server(number) for number in range(3)]
    for name, value in keys.items():
        shard = next(n for n, text in enumerate(SLOTS) if key_slot(name) <= int(text.split("-")[1]))
        servers[shard].keys[name] = (value, 0)
    for number, code in (libraries or {}).items():
        servers[number].libraries["shop"] = code
    with Cluster(servers).served() as access:
        at = {
            f"shard-{s.number}": e for s, e in zip(servers, access.endpoints("", 0, 0), strict=True)
        }
        yield RunningScratch(access, at)


def held(cluster: Cluster) -> dict[bytes, bytes]:
    return {name: value for one in cluster.servers[:3] for name, (value, _) in one.keys.items()}


def restore(
    access: Access, served: RunningScratch, cleanup: CleanupJournal, reader: SetReader | None = None
) -> None:
    replace(access, served, reader or set_of(), [EVERYTHING], cleanup)


@pytest.fixture
def cluster() -> Cluster:
    made = three_shards()
    made.servers[0].keys[b"{7}old"] = (b"1", 0)
    return made


# ---------------------------------------------------------------------- large keys
def test_a_key_longer_than_the_limit_is_restored_and_the_limit_is_put_back(
    cluster: Cluster,
) -> None:
    for server in cluster.servers:
        server.config["proto-max-bulk-len"] = str(MIB)
    large = {**KEYS, b"large": bytes(3 * MIB)}
    notes = Notes()
    with cluster.served() as access, scratch(large) as served:
        assert can_take(access, set_of(), [EVERYTHING]) == []
        restore(access, served, notes.cleanup())
    assert held(cluster) == large
    assert {server.config["proto-max-bulk-len"] for server in cluster.servers} == {str(MIB)}
    first = notes[0][0].limits
    assert sorted(first) == ["redis-cluster-0", "redis-cluster-1", "redis-cluster-2"]
    assert first["redis-cluster-0"]["proto-max-bulk-len"] == str(MIB)
    assert notes[-1] == []


def test_what_a_killed_restore_has_lifted_the_next_run_puts_back(cluster: Cluster) -> None:
    before = dict.fromkeys(limits.NAMES, str(MIB))
    noted = ServerLimits.model_validate(
        {"limits": {"redis-cluster-0": before, "redis-cluster-2": before}}
    )
    for server in cluster.servers[:2]:
        server.config["proto-max-bulk-len"] = limits.LIFTED
    cluster.servers[2].config["proto-max-bulk-len"] = "777"
    notes = Notes()
    with cluster.served() as access:
        limits.sweep(access, access.endpoints("", 0, 0), notes.cleanup([noted]))
    lengths = [server.config["proto-max-bulk-len"] for server in cluster.servers[:3]]
    assert lengths == [
        str(MIB),
        limits.LIFTED,
        "777",
    ]  # the second is nobody's note, the third was set since
    assert notes == [[]]


def test_a_note_stays_while_its_member_does_not_answer(cluster: Cluster) -> None:
    noted = ServerLimits(limits={"redis-cluster-0": {}})
    notes = Notes()
    away = [Endpoint("redis-cluster-0", "127.0.0.1", 1, "10.0.0.1", "")]
    with cluster.served() as access:
        limits.sweep(access, away, notes.cleanup([noted]))
    assert notes == []


def test_a_limit_that_may_not_be_changed_refuses_a_longer_key_only(cluster: Cluster) -> None:
    for server in cluster.servers:
        server.config["proto-max-bulk-len"] = str(MIB)
        server.refused["CONFIG SET"] = "NOPERM no permissions to run 'config|set'"

    def rdb(size: int) -> bytes:
        return b"REDIS0012\x00\x05large\x80" + size.to_bytes(4, "big") + bytes(size) + b"\xff"

    with cluster.served() as access:
        told = can_take(access, set_of(rdb=rdb(2 * MIB)), [EVERYTHING])
        assert len(told) == 3
        assert told[0].startswith(
            f"{EVERYTHING}: key 'large' has {2 * MIB + 16} bytes, but proto-max-bulk-len of"
        )
        assert can_take(access, set_of(rdb=rdb(1000)), [EVERYTHING]) == []
        with scratch(KEYS) as served:
            restore(access, served, CleanupJournal())
    assert held(cluster) == KEYS


def test_no_more_than_a_piece_of_a_key_is_held_here() -> None:
    size, piece = 64 * MIB, bytes(64 << 10)
    (ours, source), (other, target) = socket.socketpair(), socket.socketpair()
    received = hashlib.sha256()

    def give() -> None:
        source.recv(4096)
        source.sendall(b":-1\r\n$%d\r\n" % size)
        for _ in range(size // len(piece)):
            source.sendall(piece)
        source.sendall(b"\r\n")

    def take() -> None:
        left, tail = -1, b""
        while left:
            data = target.recv(len(piece))
            if left < 0:
                head, _, data = data.partition(b"$%d\r\n" % size)
                assert head == b"*6\r\n$7\r\nRESTORE\r\n$1\r\nk\r\n$1\r\n0\r\n"
                left = size
            tail = data[left:]
            received.update(data[:left])
            left -= len(data[:left])
        while not tail.endswith(b"ABSTTL\r\n"):
            tail += target.recv(64)
        assert tail == b"\r\n$7\r\nREPLACE\r\n$6\r\nABSTTL\r\n"
        target.sendall(b"+OK\r\n")

    threads = [threading.Thread(target=what, daemon=True) for what in (give, take)]
    for thread in threads:
        thread.start()
    endpoint = Endpoint("redis-cluster-0", "", 0, "", "")
    tracemalloc.start()
    to = Line(endpoint, other)
    copy_keys(Line(endpoint, ours), {b"k": size}, {b"k": to})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    for thread in threads:
        thread.join(10)
    assert received.hexdigest() == hashlib.sha256(bytes(size)).hexdigest()
    assert peak < 8 * MIB


# ---------------------------------------------------------------------- known before anything is emptied
@pytest.mark.parametrize(
    "error", ["MISCONF Errors writing to the AOF file", "NOREPLICAS Not enough good replicas"]
)
def test_a_master_that_refuses_writes_is_known_before_another_one_is_emptied(
    error: str, cluster: Cluster
) -> None:
    cluster.servers[2].refused["SET "] = error
    notes = Notes()
    with (
        cluster.served() as access,
        scratch(KEYS) as served,
        pytest.raises(PermanentError, match=error[:8]),
    ):
        restore(access, served, notes.cleanup())
    assert held(cluster) == {b"{7}old": b"1"}
    assert not any(isinstance(one, HalfReplaced) for note in notes for one in note)


def test_slots_without_a_master_are_refused(cluster: Cluster) -> None:
    cluster.servers[2].slots = ("10923-16000",)
    with cluster.served() as access:
        assert can_take(access, set_of(), [EVERYTHING]) == [
            f"{EVERYTHING}: slots 16001-16383 have no master"
        ]


def test_an_open_slot_is_refused_with_its_cure(cluster: Cluster) -> None:
    cluster.servers[1].open = ("[7000->-id2]",)
    with cluster.served() as access:
        (told,) = can_take(access, set_of(), [EVERYTHING])
    assert told.startswith(f"{EVERYTHING}: slot 7000 is migrating on redis-cluster-1. ")
    assert "redis-cli --cluster fix" in told


def test_a_command_that_was_renamed_is_refused(cluster: Cluster) -> None:
    cluster.servers[0].renamed = {"flushall"}
    with cluster.served() as access:
        (told,) = can_take(access, set_of(), [EVERYTHING])
    assert (
        told
        == f"{EVERYTHING}: redis-cluster-0 has no command FLUSHALL: renamed in its configuration"
    )


@pytest.mark.parametrize(
    ("maxmemory", "policy", "told"),
    [
        (0, "noeviction", ""),
        (101 * MIB, "noeviction", ""),
        (100 * MIB - 1000, "noeviction", ""),  # filled to its limit, about
        (
            99 * MIB,
            "noeviction",
            "would need 100 MiB, but its maxmemory is 99 MiB: it would refuse keys (noeviction)",
        ),
        (99 * MIB, "allkeys-lru", "it would evict keys (allkeys-lru)"),
    ],
)
def test_a_set_that_needs_more_memory_than_a_master_may_use_is_refused(
    maxmemory: int, policy: str, told: str, cluster: Cluster
) -> None:
    cluster.servers[1].config |= {"maxmemory": str(maxmemory), "maxmemory-policy": policy}
    with cluster.served() as access:
        found = can_take(access, set_of(memory=100 * MIB - 1_000_000), [EVERYTHING])
    assert len(found) == bool(told)
    assert all(told in one and "redis-cluster-1" in one for one in found)


def test_a_master_needs_the_share_of_the_slots_that_it_has_now(cluster: Cluster) -> None:
    cluster.servers[0].slots, cluster.servers[1].slots = ("0-2729",), ("2730-10922",)
    for server in cluster.servers[:3]:
        server.config["maxmemory"] = str(120 * MIB)
    with cluster.served() as access:
        (told,) = can_take(access, set_of(memory=100 * MIB), [EVERYTHING])
    assert "redis-cluster-1 would need 151 MiB" in told


def test_a_member_that_is_away_cannot_be_asked(cluster: Cluster) -> None:
    with cluster.served() as access:
        cluster.servers[4].port = 1
        with pytest.raises(TemporaryError, match="redis-cluster-4"):
            can_take(access, set_of(), [EVERYTHING])


# ---------------------------------------------------------------------- functions
def code(answer: str) -> str:
    return LIBRARY.format(name="shop", answer=answer)


def test_a_library_goes_to_the_masters_that_have_its_shards_slots_now(cluster: Cluster) -> None:
    cluster.servers[2].libraries["old"] = "#!lua name=old\n"
    cluster.servers[0].slots, cluster.servers[1].slots = ("0-2729",), ("2730-10922",)
    with cluster.served() as access, scratch(KEYS, {0: code("1")}) as served:
        restore(access, served, CleanupJournal())
    libraries = [server.libraries for server in cluster.servers[:3]]
    assert libraries == [{"shop": code("1")}, {"shop": code("1")}, {}]


def test_the_bytes_of_a_library_that_are_no_utf_8_come_back(cluster: Cluster) -> None:
    odd = code("'\udcff'")  # the byte 0xff, as the server double keeps it
    with cluster.served() as access, scratch(KEYS, {0: odd}) as served:
        restore(access, served, CleanupJournal())
    assert cluster.servers[0].libraries == {"shop": odd}


def test_two_libraries_of_one_name_stay_apart_where_their_slots_do(cluster: Cluster) -> None:
    with cluster.served() as access, scratch(KEYS, {0: code("1"), 1: code("2")}) as served:
        restore(access, served, CleanupJournal())
    assert [server.libraries.get("shop") for server in cluster.servers[:3]] == [
        code("1"),
        code("2"),
        None,
    ]


def test_two_libraries_of_one_name_on_one_master_are_refused_before_anything_goes(
    cluster: Cluster,
) -> None:
    cluster.servers[0].slots, cluster.servers[1].slots = ("0-2729",), ("2730-10922",)
    reader = set_of({0: {"shop": "aa"}, 1: {"shop": "bb"}})
    with cluster.served() as access, scratch(KEYS, {0: code("1"), 1: code("2")}) as served:
        (told,) = can_take(access, reader, [EVERYTHING])
        assert "function library shop differs between shard 0 and shard 1" in told
        with pytest.raises(PermanentError, match="function library shop differs"):
            restore(access, served, CleanupJournal())
    assert held(cluster) == {b"{7}old": b"1"}
