"""Members of Neo4j as far as the gate asks them: queries are known by their words, nodes lie in a list.

It stands where the driver connects (`neo4j.GraphDatabase.driver`), so that everything above it is the product's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

from neo4j.exceptions import Neo4jError, ServiceUnavailable

from components.access import Access, Endpoint

Row = dict[str, Any]


unavailable: Callable[[str], Exception] = (
    ServiceUnavailable  # which the driver leaves without types
)


def refusal(code: str, message: str = "no") -> Neo4jError:
    """What the driver raises of an answer that is a failure."""
    made: Neo4jError = Neo4jError._hydrate_neo4j(code=code, message=message)
    return made


def database(name: str, member: str, **change: Any) -> Row:
    """A row of SHOW DATABASES: each member sees the copies of all."""
    return {
        "name": name, "address": f"{member}.neo4j.svc:7687", "role": "primary", "writer": False,
        "requestedStatus": "online", "currentStatus": "online", "statusMessage": "", "replicationLag": 0, **change,
    }  # fmt: skip


@dataclass
class Cluster:
    """Some members.

    Attributes:
        members: their pods.
        edition: `community` or `enterprise`.
        databases: what all of them see.
        servers: what SHOW SERVERS tells.
        away: pods that take no connection.
        fails: words of a query → what it raises.
        tokens: of the gate's nodes.
        forgets: whether what is written cannot be read.
        said: pod, database and query.
        read_at: bookmarks and mode of sessions.
    """

    members: tuple[str, ...] = ("neo4j-1-0", "neo4j-2-0", "neo4j-3-0")
    edition: str = "enterprise"
    databases: list[Row] = field(default_factory=list)
    servers: list[Row] = field(default_factory=list)
    away: set[str] = field(default_factory=set)
    fails: dict[str, Exception] = field(default_factory=dict)
    tokens: list[str] = field(default_factory=list)
    forgets: bool = False
    said: list[tuple[str, str, str]] = field(default_factory=list)
    sessions: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        names = [pod.removesuffix("-0") for pod in self.members]
        self.databases = self.databases or [
            database(name, member, writer=member == names[0])
            for name in ("system", "neo4j")
            for member in names
        ]
        self.servers = self.servers or [
            {"name": "", "address": f"{name}:7687", "state": "Enabled", "health": "Available"}
            for name in names
        ]

    def driver(self, uri: str, **given: Any) -> Driver:
        """As `neo4j.GraphDatabase.driver`."""
        assert given["auth"] == ("neo4j", "pass/word")
        return Driver(self, uri.removeprefix("bolt://").partition(":")[0])

    def access(self) -> Access:
        """The way in, as components get it."""
        wanted = SimpleNamespace(members=len(self.members), edition=self.edition)
        return cast(
            Access,
            SimpleNamespace(
                timeout_seconds=4.0,
                settings=SimpleNamespace(components=SimpleNamespace(neo4j=wanted)),
                endpoint=lambda pod, port: Endpoint(pod, pod, port, "", ""),
                secret=lambda *_: "neo4j/pass/word",
            ),
        )

    def answer(self, pod: str, where: str, text: str, values: dict[str, Any]) -> list[Row]:
        self.said.append((pod, where, " ".join(text.split())))
        for words, error in self.fails.items():
            if words in text:
                raise error
        if "SHOW DATABASES" in text:
            return self.databases
        if "SHOW SERVERS" in text:
            return self.servers
        if text.startswith("CREATE"):
            self.tokens.append(values["token"])
        elif "count(n)" in text:
            return [{"found": 0 if self.forgets else self.tokens.count(values["token"])}]
        elif text.endswith("DELETE n"):
            self.tokens.remove(values["token"])
        return []


class Driver:
    """A connection to one member, and its sessions."""

    def __init__(self, cluster: Cluster, pod: str) -> None:
        self._cluster, self._pod = cluster, pod
        self._where = ""

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def close(self) -> None:
        pass

    def session(self, **given: Any) -> Driver:
        self._where = given["database"]
        self._cluster.sessions.append({"pod": self._pod, **given})
        return self

    def last_bookmarks(self) -> Any:
        return "behind the write"

    def run(self, query: Any, **values: Any) -> Result:
        if self._pod in self._cluster.away:
            raise unavailable("connection refused")
        assert query.timeout == 4.0
        return Result(self._cluster.answer(self._pod, self._where, query.text, values))


class Result(list[Row]):
    """Rows of an answer."""

    def consume(self) -> None:
        """Nothing is left to be read."""

    def single(self, strict: bool) -> Row:
        (row,) = self
        return row
