"""Raises the limits of a server for the length of an argument during a restore.

RESTORE sends a key of up to 512 MB as one argument. The server closes a connection whose argument is longer than
`proto-max-bulk-len` (redis/redis src/networking.c, `processMultibulkBuffer`; a master's own replicas have no limit).

The old limits are recorded first, so that the run after a killed one can set them again. A server that restarts reads
its file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import redis

from archive.backup.cleanup_journal import CleanupJournal, ServerLimits
from components.access import Access, Endpoint
from components.questions import ask_members
from components.redis.client import connect

NAMES = ("proto-max-bulk-len", "client-query-buffer-limit")
# Only isa uses this value, so isa may reset it. More than LONG_MAX is refused.
LIFTED = str(1 << 62)


def settings(client: Any) -> dict[str, str]:
    """The limits of a server."""
    limits: dict[str, str] = {}
    for name in NAMES:
        limits |= client.config_get(name)
    return limits


def may_lift(client: Any) -> str:
    """Test whether the limits can be changed, by setting them to their current values. Returns the refusal, or ""."""
    try:
        for name, value in settings(client).items():
            client.config_set(name, value)
    except redis.ResponseError as exc:
        return str(exc)
    return ""


@contextmanager
def lifted(clients: Mapping[str, Any], cleanup: CleanupJournal) -> Iterator[None]:
    """Raise the limits of servers inside the block. Limits that cannot be changed stay as they are.

    Args:
        clients: member → connection.
        cleanup: records the old limits.
    """
    able = {member: client for member, client in clients.items() if not may_lift(client)}
    old_limits = {member: settings(client) for member, client in able.items()}
    note = ServerLimits.model_validate({"limits": old_limits})
    cleanup.hold(note)
    try:
        for client in able.values():
            for name in NAMES:
                client.config_set(name, LIFTED)
        yield
    finally:
        with suppress(
            redis.RedisError
        ):  # the journal keeps its entry, and the next run tries again
            for member, client in able.items():
                _lower(client, old_limits[member])
            cleanup.release(note)


def sweep(access: Access, members: list[Endpoint], cleanup: CleanupJournal) -> None:
    """Reset limits that a killed run raised. An entry of the journal is kept until all its members answer."""
    for held in cleanup.earlier(ServerLimits):

        def put_back(member: Endpoint, were: Mapping[str, Any] = held.limits) -> None:
            with connect(access, member) as client:
                _lower(client, were[member.member])

        answers = ask_members(
            [member for member in members if member.member in held.limits], put_back
        )
        if not answers.bad:
            cleanup.release(held)


def _lower(client: Any, were: Mapping[str, str]) -> None:
    """Reset limits that are still raised. A member that has restarted has read its own settings."""
    for name, value in settings(client).items():
        if value == LIFTED and name in were:
            client.config_set(name, were[name])
