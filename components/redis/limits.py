"""Lifts the limits of a server that a key of a backup may not pass, for as long as a restore takes.

A key of 512 MB is sent as one argument, and the server closes a connection that sends a longer one than
`proto-max-bulk-len` (redis/redis src/networking.c, `processMultibulkBuffer`; what a master sends its replicas has no
limit). What the settings were is noted first, for the run after a killed one; a server that restarts has its file's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import redis

from archive.cleanup_journal import CleanupJournal, ServerLimits
from components.access import Access, Endpoint
from components.questions import ask_members
from components.redis.client import connect

NAMES = ("proto-max-bulk-len", "client-query-buffer-limit")
LIFTED = str(
    1 << 62
)  # no one else sets that, so isa set it and resets it; more than LONG_MAX is refused


def settings(client: Any) -> dict[str, str]:
    """The limits of a server."""
    found: dict[str, str] = {}
    for name in NAMES:
        found |= client.config_get(name)
    return found


def may_lift(client: Any) -> str:
    """Try whether the limits can be changed, by setting them to what they are; gives the server's refusal or ""."""
    try:
        for name, value in settings(client).items():
            client.config_set(name, value)
    except redis.ResponseError as exc:
        return str(exc)
    return ""


@contextmanager
def lifted(clients: Mapping[str, Any], cleanup: CleanupJournal) -> Iterator[None]:
    """Lift the limits of servers while entered; where that is refused they stay as they are.

    Args:
        clients: member → connection to it.
        cleanup: where is noted what the limits were.
    """
    able = {member: client for member, client in clients.items() if not may_lift(client)}
    were = {member: settings(client) for member, client in able.items()}
    held = ServerLimits.model_validate({"limits": were})
    cleanup.hold(held)
    try:
        for client in able.values():
            for name in NAMES:
                client.config_set(name, LIFTED)
        yield
    finally:
        with suppress(redis.RedisError):  # the note stays, and the next run tries again
            for member, client in able.items():
                _lower(client, were[member])
            cleanup.release(held)


def sweep(access: Access, members: list[Endpoint], cleanup: CleanupJournal) -> None:
    """Put back what a killed run lifted; a note stays as long as one of its members does not answer."""
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
    """Only what is still lifted: a member that has restarted has other settings, maybe newer ones."""
    for name, value in settings(client).items():
        if value == LIFTED and name in were:
            client.config_set(name, were[name])
