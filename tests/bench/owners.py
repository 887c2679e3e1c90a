"""Measures what it costs that no code of an owner runs with a superuser's rights, in a proof of PostgreSQL.

Two things cost: dumps are restored in runs of one owner each, and tables whose owner's code a query would run are
copied and hashed here instead of by the server. Each is measured beside the plain way, in turns, on a scratch server.
"""

from __future__ import annotations

import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psycopg

from components.access import Access, Endpoint
from components.postgresql.client import MAINTENANCE, SUPERUSER, connect_superuser, where
from components.postgresql.filling import Server, fill, make_database, run
from components.postgresql.restore import RULES, SETTINGS
from components.postgresql.rows import measure_source
from components.postgresql.session import SESSION
from sandbox import postgres
from sandbox.processes import Daemon
from tests.bench.deploy import Figure

TABLES, ROWS, RUNS = 4, 300_000, 6  # the first run of each way warms up
OWNER, DATABASE = "shop", "shop"
START_SECONDS = 60.0
FILL = """
    CREATE TABLE s.bench{number} AS
    SELECT n, n * 7919 % 1000003 AS amount, 'customer ' || n % 50021 AS name, md5(n::text) AS token,
           now() + n * interval '1 s' AS at, repeat(chr((97 + n % 26)::int), 60) AS note
    FROM generate_series(1::bigint, {rows}) AS n
"""


def figures() -> list[Figure]:
    """Both costs, as ratios."""
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        work.chmod(0o755)
        with _scratch_server(work) as server:
            _fill(server)
            return [_by_owner(server, work), _by_copy(server)]


def _by_owner(server: Server, work: Path) -> Figure:
    """Restoring a dump in runs of one owner each, against one pg_restore of the superuser."""
    dump = work / "database.dump"
    words = ("--format=custom", "--compress=0", f"--file={dump}", where(server.node, DATABASE))
    subprocess.run([postgres.programs() / "pg_dump", *words], check=True)

    def plain() -> None:
        options = ("--create", "--clean", "--if-exists", "--exit-on-error", "--jobs=2")
        run(server.pg_restore(), *options, f"--dbname={where(server.node, MAINTENANCE)}", str(dump))

    def by_owner() -> None:
        make_database(server, dump, "--clean", "--if-exists")
        fill(server, DATABASE, dump)

    first, second = _in_turns(server, plain, by_owner)
    size = dump.stat().st_size / (1 << 20)
    return _figure(
        "PostgreSQL's dumps, loaded as their owners",
        f"{size:.0f} MiB, as one superuser",
        first,
        second,
        1.25,
    )


def _by_copy(server: Server) -> Figure:
    """Copying rows and hashing them here, against the server's own hash."""

    def measured(still: bool) -> None:
        with (
            connect_superuser(server.node, DATABASE, "", *SESSION) as connection,
            connection.transaction(),
        ):
            found = list(
                measure_source(
                    connection, "shop", still=still, failed=lambda *_: None, dropped=lambda _: None
                )
            )
            assert sum(one.count for one in found) == TABLES * ROWS

    first, second = _in_turns(server, lambda: measured(True), lambda: measured(False))
    per_million = min(second) / (TABLES * ROWS / 1e6)
    return _figure(
        "PostgreSQL's rows, copied and hashed by us",
        f"{per_million:.1f} s for a million rows; hashed by the server", first, second, 3.0,
    )  # fmt: skip


def _in_turns(server: Server, *ways: Callable[[], None]) -> list[list[float]]:
    """Seconds of each run of each way; the server begins each without pages to write."""
    seconds: list[list[float]] = [[] for _ in ways]
    for number in range(RUNS):
        for way, found in list(zip(ways, seconds, strict=True))[:: 1 if number % 2 else -1]:
            with _connected(server.node) as connection:
                connection.execute("CHECKPOINT")
            began = time.monotonic()
            way()
            if number:
                found.append(time.monotonic() - began)
    return seconds


def _figure(name: str, what: str, plain: list[float], ours: list[float], most: float) -> Figure:
    ratio, middle = min(ours) / min(plain), statistics.median(ours) / statistics.median(plain)
    terms = (
        f"{what}: at best {min(plain):.2f} s against {min(ours):.2f} s, "
        f"median {statistics.median(plain):.2f} s against {statistics.median(ours):.2f} s ({middle:.2f} ×)"
    )
    return Figure(name, terms, f"{ratio:.2f} ×", f"≤ {most:.2f}", ratio <= most)


@contextmanager
def _scratch_server(work: Path) -> Iterator[Server]:
    """An empty server with the settings of a proof's."""
    data, config = work / "data", work / "postgresql.conf"
    postgres.initialise(data, SUPERUSER, "bench")
    (data / "pg_hba.conf").write_text(RULES, encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    lines = [
        line for line in SETTINGS.splitlines() if not line.startswith(("port", "listen_addresses"))
    ]
    config.write_text(
        "\n".join([*lines, f"port = {port}", "listen_addresses = '127.0.0.1'"]), encoding="utf-8"
    )
    node = Endpoint("bench", "127.0.0.1", port, "127.0.0.1", "")
    backup = SimpleNamespace(programs=[postgres.programs()])
    access = cast(Access, SimpleNamespace(settings=SimpleNamespace(backup=backup)))
    daemon = Daemon("server", work)
    words = (
        "-D",
        str(data),
        "-c",
        f"config_file={config}",
        "-c",
        f"hba_file={data / 'pg_hba.conf'}",
    )
    daemon.start(postgres.unprivileged(str(postgres.programs() / "postgres"), *words))
    try:
        yield Server(access, node, _version(node), "")
    finally:
        daemon.stop()


def _version(node: Endpoint) -> int:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with _connected(node) as connection:
                return connection.info.server_version
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _fill(server: Server) -> None:
    with _connected(server.node) as connection:
        connection.execute(f"CREATE ROLE {OWNER} LOGIN")
        connection.execute(f"CREATE DATABASE {DATABASE} OWNER {OWNER}")
    with _connected(server.node, OWNER, DATABASE) as connection:
        connection.execute("CREATE SCHEMA s")
        for number in range(TABLES):
            connection.execute(FILL.format(number=number, rows=ROWS).encode())
            connection.execute(f"ALTER TABLE s.bench{number} ADD PRIMARY KEY (n)".encode())


def _connected(
    node: Endpoint, user: str = SUPERUSER, database: str = SUPERUSER
) -> psycopg.Connection[Any]:
    return psycopg.connect(
        host=node.host, port=node.port, user=user, dbname=database, autocommit=True
    )
