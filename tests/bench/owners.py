"""Measures what it costs that no code of an owner runs with a superuser's rights, in PostgreSQL: part of `make bench`.

Two things cost: dumps are restored in runs of one owner each, and tables whose owner's code a query would run, on a
primary all tables, are copied and hashed here instead of by the server. Each is measured beside the plain way, in
turns, on a scratch server, in wall time and in CPU seconds of the client programs, of this process and of the server.
"""

from __future__ import annotations

import os
import resource
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psycopg

from components.access import Access, Endpoint
from components.postgresql.client import MAINTENANCE, SUPERUSER, connect_superuser, where
from components.postgresql.connection.session import SESSION
from components.postgresql.dumps.filling import Server, fill, make_database, run
from components.postgresql.dumps.truncation import save_dump
from components.postgresql.measures.rows import measure_source
from components.postgresql.restore import RULES, SETTINGS
from sandbox.machine import postgres
from sandbox.machine.processes import Daemon
from tests.bench.deploy import Figure, publish, table

TABLES, ROWS, RUNS = 4, 300_000, 6  # the first run of each way warms up
OWNER, DATABASE = "shop", "shop"
START_SECONDS = 60.0
# Measured with 300,000 rows: 1.10 of the CPU for loading, 0.08 s of it for roles, checks and more runs of pg_restore,
# which more rows do not change; 1.14 of the CPU and 1.28 of the time for copying. The rest is for a machine in use.
OWNERS_MOST, COPY_MOST = 1.25, 1.5
HEAD = """# Rights of owners in PostgreSQL, measured

`make bench` on {cores} cores, {date:%Y-%m-%d}, load by others {load:.1f}: {tables} tables of
{rows:,} rows each, in turns.

"""
FILL = """
    CREATE TABLE s.bench{number} AS
    SELECT n, n * 7919 % 1000003 AS amount, 'customer ' || n % 50021 AS name, md5(n::text) AS token,
           now() + n * interval '1 s' AS at, repeat(chr((97 + n % 26)::int), 60) AS note
    FROM generate_series(1::bigint, {rows}) AS n
"""


@dataclass(frozen=True)
class Cost:
    """What one run cost.

    Attributes:
        wall: seconds.
        cpu: seconds, of the server, of this process and of its children.
    """

    wall: float
    cpu: float


def figures() -> list[Figure]:
    """Both costs, as ratios."""
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        work.chmod(0o755)
        with _scratch_server(work) as server:
            _fill(server)
            return [*_by_owner(server, work), *_by_copy(server, work)]


def _by_owner(server: Server, work: Path) -> list[Figure]:
    """Restoring a dump in runs of one owner each, against one pg_restore of the superuser."""
    stored = _pg_dump(server)
    plain_dump, dump = work / "stored.dump", work / "database.dump"
    plain_dump.write_bytes(stored)
    save_dump(cast(Any, SimpleNamespace(stream=lambda _: iter([stored]))), "", dump)

    def plain() -> None:
        options = ("--create", "--clean", "--if-exists", "--exit-on-error", "--jobs=2")
        target = where(server.node, MAINTENANCE)
        run(server.pg_restore(), *options, f"--dbname={target}", str(plain_dump))

    def by_owner() -> None:
        make_database(server, dump, "--clean", "--if-exists")
        fill(server, DATABASE, dump)

    costs = _in_turns(server, work, plain, by_owner)
    size = len(stored) / (1 << 20)
    name, what = "a dump, loaded as the owners of its tables", f"{size:.0f} MiB, as one superuser"
    return _figures(name, what, costs, OWNERS_MOST)


def _pg_dump(server: Server) -> bytes:
    """A dump as backups have it: written to a pipe, so that it does not say where its rows are."""
    words = ("--format=custom", "--compress=0", where(server.node, DATABASE))
    done = subprocess.run(
        [postgres.programs() / "pg_dump", *words], check=True, stdout=subprocess.PIPE
    )
    return done.stdout


def _by_copy(server: Server, work: Path) -> list[Figure]:
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

    costs = _in_turns(server, work, lambda: measured(True), lambda: measured(False))
    per_million = min(cost.wall for cost in costs[1]) / (TABLES * ROWS / 1e6)
    what = f"{per_million:.1f} s for a million rows; hashed by the server"
    return _figures("rows, copied and hashed by us as on a primary", what, costs, COPY_MOST)


def _in_turns(server: Server, work: Path, *ways: Callable[[], None]) -> list[list[Cost]]:
    """Cost of each run of each way; the server begins each without pages to write."""
    costs: list[list[Cost]] = [[] for _ in ways]
    postmaster = int((work / "data" / "postmaster.pid").read_text().split()[0])
    for number in range(RUNS):
        for way, found in list(zip(ways, costs, strict=True))[:: 1 if number % 2 else -1]:
            with _connected(server.node) as connection:
                connection.execute("CHECKPOINT")
            began, cpu = time.monotonic(), _cpu(postmaster)
            way()
            if number:
                found.append(Cost(time.monotonic() - began, _cpu(postmaster) - cpu))
    return costs


def _cpu(postmaster: int) -> float:
    """CPU seconds so far of this process, of children that ended, and of a server (proc_pid_stat(5))."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    ours = sum(one.ru_utime + one.ru_stime for one in usage)
    task = Path(f"/proc/{postmaster}/task/{postmaster}/children")
    ticks = _ticks(postmaster, 4) + sum(_ticks(int(pid), 2) for pid in task.read_text().split())
    return ours + ticks / os.sysconf("SC_CLK_TCK")


def _ticks(pid: int, fields: int) -> int:
    """utime, stime, and cutime, cstime of the children that it waited for; 0 of a process that has ended."""
    with suppress(OSError):
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, words[11 : 11 + fields]))
    return 0


def _figures(name: str, what: str, costs: list[list[Cost]], most: float) -> list[Figure]:
    """Wall time at best, which other work on the machine disturbs least, and the median of CPU seconds."""
    plain, ours = costs
    walls = [[cost.wall for cost in way] for way in (plain, ours)]
    cpus = [statistics.median(cost.cpu for cost in way) for way in (plain, ours)]
    at_best, middle = [min(wall) for wall in walls], [statistics.median(wall) for wall in walls]
    best_terms = f"at best {at_best[0]:.2f} s against {at_best[1]:.2f} s"
    terms = f"{what}: {best_terms}, median {middle[0]:.2f} s against {middle[1]:.2f} s"
    ratio, cpu = at_best[1] / at_best[0], cpus[1] / cpus[0]
    cpu_terms = f"median {cpus[0]:.2f} s against {cpus[1]:.2f} s"
    return [
        Figure(name, terms, f"{ratio:.2f} ×", f"≤ {most:.2f}", ratio <= most),
        Figure(f"{name}: CPU", cpu_terms, f"{cpu:.2f} ×", f"≤ {most:.2f}", cpu <= most),
    ]


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


def main() -> None:
    """Measure, and write docs/results/bench-owners.md."""
    load, cores, date = os.getloadavg()[0], len(os.sched_getaffinity(0)), datetime.now(UTC)
    found = figures()
    head = HEAD.format(cores=cores, date=date, load=load, tables=TABLES, rows=ROWS)
    publish("bench-owners.md", head + table(found) + "\n", found)


if __name__ == "__main__":
    main()
