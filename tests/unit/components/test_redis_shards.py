"""A set names shards by number, whatever slots they have, and tells an open slot with its cure."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
import redis

from archive.backup.cleanup_journal import CleanupJournal
from archive.backup.manifest import Manifest
from components.redis.backup import back_up
from components.redis.client import parse_ranges, ranges
from components.redis.readiness import ask
from components.redis.restore import scratch
from errors import TemporaryError

from .redis_double import three_shards


class Written:
    """Keeps the names of what is stored, and documents."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.documents: dict[str, Any] = {}
        self.cleanup = CleanupJournal()

    def spooled(self, source: Iterable[bytes], expected: int) -> Any:
        data = b"".join(source)

        @contextmanager
        def made() -> Any:
            yield SimpleNamespace(reader=lambda: io.BytesIO(data))

        return made()

    def add(self, name: str, *_: object) -> None:
        self.names.append(name)

    def add_json(self, name: str, unit: str, document: Any) -> None:
        self.documents[name] = json.loads(json.dumps(document))


def scattered(first: int) -> tuple[str, ...]:
    """Every third pair of slots, as a life of resharding leaves them: 2731 ranges."""
    return tuple(f"{n}-{n + 1}" if n < 16383 else "16383" for n in range(first, 16384, 6))


def test_a_shard_of_many_slot_ranges_has_a_short_name() -> None:
    cluster = three_shards()
    for number in range(3):
        cluster.servers[number].slots = scattered(2 * number)
    written = Written()
    with cluster.served() as access:
        taken = back_up(access, cast(Any, written))
    assert sorted(written.names) == ["shard-0.rdb", "shard-1.rdb", "shard-2.rdb"]
    units = [one["unit"] for one in taken.topology["shards"]]
    assert units == ["shard 0", "shard 1", "shard 2"]
    held = [parse_ranges(one["slots"]) for one in taken.topology["shards"]]
    assert set.union(*held) == set(range(16384))
    assert ranges(held[0]).startswith("0-1, 6-7, 12-13")


def test_a_text_of_a_tenant_that_is_no_utf_8_is_stored_byte_by_byte() -> None:
    cluster = three_shards()
    for server in cluster.servers:
        server.libraries = {"shop": "#!lua name=shop\n-- \udcff"}  # the byte 0xff
    written = Written()
    with cluster.served() as access:
        back_up(access, cast(Any, written))
    (library,) = written.documents["configuration.json"]["functions"]
    text = (
        dict(zip(library[::2], library[1::2], strict=True))
        if isinstance(library, list)
        else library
    )
    assert text["library_code"].encode(errors="surrogateescape").endswith(b"-- \xff")


def test_texts_that_cannot_be_read_cost_no_upload() -> None:
    cluster = three_shards()
    for server in cluster.servers:
        server.refused = {"ACL LIST": "ERR unknown command"}
    written = Written()
    with cluster.served() as access, pytest.raises(redis.ResponseError):
        back_up(access, cast(Any, written))
    assert written.names == []


def test_a_shard_is_taken_whose_form_only_new_replicas_read() -> None:
    cluster = three_shards()
    for server in cluster.servers:
        server.rdb = b"VALKEY080\x00\x01a\x01b\xff"
    with cluster.served() as access:
        taken = back_up(access, cast(Any, Written()))
    assert {(one.item, one.count) for one in taken.fingerprint} == {("strings", 1)}
    assert not taken.missing


@pytest.mark.parametrize(
    "names",
    [
        ["shard-0.rdb", "shard-1.rdb", "shard-10.rdb", "shard-2.rdb"],
        ["shard-0-5460.rdb", "shard-5461-10922.rdb", "shard-10923-16383+7.rdb"],
    ],
)
def test_new_and_older_names_of_shards_are_read(names: list[str]) -> None:
    artefacts = [SimpleNamespace(name=f"{name}.zst.age", format="RDB") for name in sorted(names)]
    made = scratch(cast(Any, None), cast(Manifest, SimpleNamespace(artefacts=artefacts)), "secret")
    assert sorted(name for one in made for name in one.placed) == sorted(names)
    if "shard-10.rdb" in names:
        assert [one.placed[0] for one in made][-1] == "shard-10.rdb"


def test_an_open_slot_is_told_with_its_number_and_its_cure() -> None:
    cluster = three_shards()
    cluster.servers[1].open = ("[7000->-id2]",)
    cluster.servers[2].open = ("[7000-<-id1]",)
    told = (
        "slot 7000 is migrating on redis-cluster-1, slot 7000 is importing on redis-cluster-2. "
        "If no resharding is running: `redis-cli --cluster fix redis-cluster-0:6379`"
    )
    with cluster.served() as access:
        (check,) = (one for one in ask(access).checks if one.name == "no slot is moving")
        assert not check.ok
        assert not check.critical
        assert check.hint == f"{told}. Backups wait until it is finished"
        with pytest.raises(TemporaryError) as refused:
            back_up(access, cast(Any, Written()))
    assert told in str(refused.value)
