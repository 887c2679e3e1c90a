"""A cluster of Redis servers as threads: as much of the protocol and of the commands as this project speaks.

Replies are those of redis/redis 8: src/networking.c (`processMultibulkBuffer`: an argument longer than
`proto-max-bulk-len` closes the connection), src/cluster.c (`clusterGenNodeDescription`, `restoreCommand`),
src/functions.c, src/acl.c, src/config.c.
"""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

from redis.crc import key_slot

from components.access import Access, Endpoint

EMPTY_RDB = b"REDIS0012\xff" + bytes(8)
LIBRARY = "#!lua name={name}\nredis.register_function('{name}', function() return {answer} end)"


class Refused(Exception):
    """An error reply."""


@dataclass
class Server:
    """One member.

    Attributes:
        number: from 0.
        slots: as `CLUSTER NODES` writes them, `0-5460`.
        master: number of its master; None of a master.
        open: slots on their way, as `CLUSTER NODES` writes them.
        keys: name → what DUMP gives of it, and Unix time in ms at which it expires.
        libraries: name → code.
        config: settings.
        memory: fields of `INFO memory`.
        refused: commands that are answered with an error, by their first words.
        renamed: commands that it does not know.
        said: commands that it was given.
        rdb: what a replica gets.
    """

    number: int
    slots: tuple[str, ...] = ()
    master: int | None = None
    open: tuple[str, ...] = ()
    keys: dict[bytes, tuple[bytes, int]] = field(default_factory=dict)
    libraries: dict[str, str] = field(default_factory=dict)
    config: dict[str, str] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    renamed: set[str] = field(default_factory=set)
    said: list[str] = field(default_factory=list)
    rdb: bytes = EMPTY_RDB
    port: int = 0
    cluster: Cluster = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.config = {
            "proto-max-bulk-len": str(512 << 20),
            "client-query-buffer-limit": str(1 << 30),
            "maxmemory": "0",
            "maxmemory-policy": "noeviction",
        } | self.config
        self.memory = {"used_memory": 2_000_000, "used_memory_startup": 1_000_000} | self.memory

    @property
    def name(self) -> str:
        return f"redis-cluster-{self.number}"

    @property
    def ip(self) -> str:
        return f"10.0.0.{self.number + 1}"

    def reply(self, words: list[bytes]) -> Any:
        said = " ".join(word.decode("latin-1") for word in words)
        self.said.append(said)
        for begin, error in self.refused.items():
            if said.upper().startswith(begin):
                raise Refused(error)
        first = words[0].decode().lower()
        if first in self.renamed:
            raise Refused(f"ERR unknown command '{first}'")
        return getattr(self, f"on_{first}", self.on_other)(*words[1:])

    # ------------------------------------------------------------------ about itself
    def on_other(self, *_: bytes) -> Any:
        return "OK"

    def on_hello(self, *_: bytes) -> Any:
        return {b"server": b"redis", b"version": b"8.2.1", b"proto": 3}

    def on_cluster(self, what: bytes, *_: bytes) -> Any:
        if what.upper() == b"INFO":
            return b"cluster_state:ok\r\n"
        lines = []
        for one in self.cluster.servers:
            me = "myself," if one is self else ""
            role = "master -" if one.master is None else f"slave id{one.master}"
            ranges = " ".join([*one.slots, *(one.open if one is self else ())])
            lines.append(
                f"id{one.number} {one.ip}:6379@16379 {me}{role} 0 0 1 connected {ranges}".rstrip()
            )
        return ("\n".join(lines) + "\n").encode()

    def on_info(self, what: bytes = b"") -> Any:
        if what == b"memory":
            fields: dict[str, Any] = dict(self.memory)
        elif self.master is None:
            fields = {"role": "master"}
        else:
            fields = {
                "role": "slave",
                "master_host": self.cluster.servers[self.master].ip,
                "master_link_status": "up",
                "slave_read_repl_offset": 7,
                "slave_repl_offset": 7,
            }
        fields |= {"redis_version": "8.2.1"}
        return "".join(f"{key}:{value}\r\n" for key, value in fields.items()).encode()

    def on_config(self, what: bytes, name: bytes, value: bytes = b"") -> Any:
        if what.upper() == b"SET":
            self.config[name.decode()] = value.decode()
            return "OK"
        found = self.config if name == b"*" else {name.decode(): self.config[name.decode()]}
        return {key.encode(): value.encode() for key, value in found.items()}

    def on_command(self, _: bytes, *names: bytes) -> Any:
        return [None if n.decode().lower() in self.renamed else [n, -1, [], 0, 0, 0] for n in names]

    def on_acl(self, what: bytes, *_: bytes) -> Any:
        return [b"user default on #00 ~* &* +@all"] if what.upper() == b"LIST" else "OK"

    def on_module(self, *_: bytes) -> Any:
        return []

    # ------------------------------------------------------------------ keys
    def on_scan(self, *_: bytes) -> Any:
        return [b"0", list(self.keys)]

    def on_memory(self, _: bytes, name: bytes, *__: bytes) -> Any:
        return len(self.keys[name][0]) if name in self.keys else None

    def on_pexpiretime(self, name: bytes) -> Any:
        return (self.keys[name][1] or -1) if name in self.keys else -2

    def on_dump(self, name: bytes) -> Any:
        return self.keys[name][0] if name in self.keys else None

    def on_restore(self, name: bytes, expires: bytes, value: bytes, *_: bytes) -> Any:
        self._write(name, value, int(expires))
        return "OK"

    def on_set(self, name: bytes, value: bytes, *_: bytes) -> Any:
        self._write(name, value, 0)
        return "OK"

    def on_get(self, name: bytes) -> Any:
        return self.keys.get(name, (None, 0))[0]

    def on_del(self, name: bytes) -> Any:
        self._owned(name)
        return sum(one.keys.pop(name, None) is not None for one in self._copies())

    def on_wait(self, *_: bytes) -> Any:
        return len(self._copies()) - 1

    def on_flushall(self, *_: bytes) -> Any:
        self.keys.clear()
        return "OK"

    def on_function(self, what: bytes, *words: bytes) -> Any:
        if what.upper() == b"LIST":
            return [
                {
                    b"library_name": name.encode(),
                    b"library_code": code.encode(errors="surrogateescape"),
                }
                for name, code in self.libraries.items()
            ]
        if what.upper() == b"FLUSH":
            self.libraries.clear()
            return "OK"
        code = words[-1].decode(errors="surrogateescape")
        name = code.partition("name=")[2].partition("\n")[0]
        self.libraries[name] = code
        return name.encode()

    def on_psync(self, *_: bytes) -> Any:
        versions = [
            said.split(" ")[2] for said in self.said if said.startswith("REPLCONF version ")
        ]
        if self.rdb.startswith(b"VALKEY") and not versions:
            return b"+FULLRESYNC 0123 7\r\n$EOF:%b\r\n" % bytes(40), None
        return b"+FULLRESYNC 0123 7\r\n$%d\r\n%b" % (len(self.rdb), self.rdb), None

    # ------------------------------------------------------------------ inside
    def _write(self, name: bytes, value: bytes, expires: int) -> None:
        self._owned(name)
        for one in self._copies():
            one.keys[name] = (value, expires)

    def _owned(self, name: bytes) -> None:
        slot = key_slot(name)
        for part in self.slots:
            low, _, high = part.partition("-")
            if int(low) <= slot <= int(high or low):
                return
        if self.cluster.servers[0].slots:  # a server by itself takes any key
            raise Refused(f"MOVED {slot} 10.0.0.9:6379")

    def _copies(self) -> list[Server]:
        return [self, *(one for one in self.cluster.servers if one.master == self.number)]


@dataclass
class Cluster:
    """Several members, served while entered."""

    servers: list[Server]

    def __post_init__(self) -> None:
        for server in self.servers:
            server.cluster = self

    @contextmanager
    def served(self) -> Iterator[Access]:
        running = []
        for server in self.servers:
            made = _Listener(("127.0.0.1", 0), _Connection)
            made.server_double = server
            server.port = made.server_address[1]
            threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()
            running.append(made)
        try:
            yield self.access()
        finally:
            for made in running:
                made.shutdown()
                made.server_close()

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint(s.name, "127.0.0.1", s.port, s.ip, f"node-{s.number}") for s in self.servers
        ]

    def access(self, **backup: Any) -> Access:
        redis = SimpleNamespace(members=len(self.servers))
        settings = SimpleNamespace(
            components=SimpleNamespace(redis=redis),
            backup=SimpleNamespace(stall_seconds=5.0, **backup),
        )
        made = SimpleNamespace(
            settings=settings,
            timeout_seconds=4.0,
            endpoints=lambda *_: self.endpoints(),
            secret=lambda *_: "password",
        )
        return cast(Access, made)


def three_shards(of: type[Server] = Server) -> Cluster:
    """Three masters with a replica each."""
    slots = ("0-5460", "5461-10922", "10923-16383")
    masters = [of(number, slots=(slots[number],)) for number in range(3)]
    return Cluster([*masters, *(of(number + 3, master=number) for number in range(3))])


class _Listener(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
    server_double: Server


class _Connection(socketserver.StreamRequestHandler):
    server: _Listener

    def handle(self) -> None:
        double, resp3 = self.server.server_double, False
        while line := self.rfile.readline():
            words = []
            for _ in range(int(line[1:])):
                size = int(self.rfile.readline()[1:])
                if size > int(double.config["proto-max-bulk-len"]):
                    self.wfile.write(b"-ERR Protocol error: invalid bulk length\r\n")
                    return
                words.append(self.rfile.read(size))
                self.rfile.read(2)
            try:
                answer = double.reply(words)
            except Refused as exc:
                answer = exc
            if isinstance(answer, tuple):  # as it is, and no more
                self.wfile.write(answer[0])
                return
            resp3 = resp3 or words[0].upper() == b"HELLO"
            self.wfile.write(_encoded(answer, resp3))


def _encoded(answer: Any, resp3: bool) -> bytes:
    if answer is None:
        return b"_\r\n" if resp3 else b"$-1\r\n"
    if isinstance(answer, Refused):
        return f"-{answer}\r\n".encode()
    if isinstance(answer, str):
        return f"+{answer}\r\n".encode()
    if isinstance(answer, int):
        return b":%d\r\n" % answer
    if isinstance(answer, dict):
        flat = [part for pair in answer.items() for part in pair]
        head = b"%%%d\r\n" % len(answer) if resp3 else b"*%d\r\n" % len(flat)
        return head + b"".join(_encoded(one, resp3) for one in flat)
    if isinstance(answer, list):
        return b"*%d\r\n" % len(answer) + b"".join(_encoded(one, resp3) for one in answer)
    return b"$%d\r\n%b\r\n" % (len(answer), answer)
