"""The worst moments of each engine, in which a run is held until the test has done to it what it wants to do."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from redis.exceptions import NoPermissionError

from cluster.kube import Manifest
from components.neo4j.editions.offline import DUMPER, POD, RELEASE
from components.postgresql import client as postgresql
from components.redis import client as redis
from sandbox.machine.processes import Daemon
from tests.losses import LOSSES

from ..conftest import Backups, until

Reached = Callable[[], bool]
PAUSED = "SELECT count(*) FROM pg_control_system() WHERE pg_is_in_recovery() AND pg_is_wal_replay_paused()"


def _count(access: Any, node: Any, text: str) -> int:
    with postgresql.connect_long(access, node, "isa") as connection:
        row = connection.execute(text.encode()).fetchone()
        return int(row[0]) if row else 0


def _nodes(access: Any) -> list[Any]:
    return list(access.endpoints(postgresql.STATEFULSET, 3, postgresql.PORT))


def primary_of(access: Any) -> Any:
    """PostgreSQL's node that takes writes."""
    return next(n for n in _nodes(access) if not postgresql.node_status(access, n).standby)


def paused(backups: Backups) -> bool:
    """Whether any standby's replay is."""
    with backups.access() as access:
        return any(_count(access, node, PAUSED) for node in _nodes(access))


@contextmanager
def replica_waits(backups: Backups) -> Iterator[Reached]:
    """A member takes its time before it makes the RDB that it was asked for."""
    with backups.access() as access, ExitStack() as stack:
        members = access.endpoints(redis.STATEFULSET, 6, redis.PORT)
        clients = [stack.enter_context(redis.connect(access, member)) for member in members]

        def delay(seconds: int) -> None:
            for client in clients:
                client.config_set("repl-diskless-sync-delay", seconds)

        def waits() -> bool:
            said = [client.execute_command("INFO", "replication") for client in clients]
            return any("wait_bgsave" in str(one) for one in said)

        delay(120)
        try:
            yield waits
        finally:
            delay(0)
            until(lambda: not waits(), "no member has anything to do for us")


def fenced(backups: Backups) -> bool:
    """Whether clients of Redis may not write."""
    with backups.access() as access:
        try:
            LOSSES["redis"][1](access)()
        except NoPermissionError:
            return True
    return False


@contextmanager
def member_stopped(backups: Backups) -> Iterator[Reached]:
    """Neo4j's one member takes its time to stop before it is dumped."""
    held: list[int] = []

    def stops() -> bool:
        if statefulset(backups)["spec"]["replicas"] != 0:
            return False
        if not held:
            with suppress(AssertionError):  # it has stopped already
                held.extend(backups.live.pids(POD))
            _signal(held, signal.SIGSTOP)
        return True

    try:
        yield stops
    finally:
        _signal(held, signal.SIGCONT)


def statefulset(backups: Backups) -> Manifest:
    """Neo4j's."""
    found = backups.environment.kube.get("apps/v1", "StatefulSet", RELEASE, backups.live.namespace)
    assert found is not None
    return found


def neo4j_whole(backups: Backups) -> bool:
    """Whether it is to run again, and nothing of ours is on its volume."""
    dumper = backups.environment.kube.get("v1", "Pod", DUMPER, backups.live.namespace)
    return statefulset(backups)["spec"]["replicas"] == 1 and dumper is None


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


@contextmanager
def store_hangs(backups: Backups) -> Iterator[None]:
    """The object store takes connections and answers nothing."""
    pid = Daemon("object-store", backups.sandbox.directory / "run").pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
