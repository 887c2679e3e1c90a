"""Replaces all keys of the live cluster by those of a backup. The masters may have other slots than at the backup.

Scratch engines serve the backup's shards. Each key is copied to the master that has its slot now. Before a master is
emptied, `refusals` asks every member whether it would refuse the keys, and `replace` writes a key to every master.

Writers are fenced by the rights of their users on every member. The fence is in memory only: a member that restarts has
its configured rights again.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import redis
from redis.crc import key_slot

from archive.backup.cleanup_journal import CleanupJournal
from archive.backup.manifest import Measure
from archive.backup.reader import SetReader, opened
from archive.streams.spool import Spool
from components.access import Access, Endpoint
from components.base import Live, RunningScratch
from components.questions import ask_members, words
from components.redis.client import KEY, PORT, REVERSIBLE, SECRET, STATEFULSET, connect, read_view
from components.redis.fingerprint import has_fields_apart, measure_rdb, together
from components.redis.keys.expiry import as_promised, measure_until_due
from components.redis.keys.rdb import UnknownFormat
from components.redis.keys.relay import BATCH_KEYS, Line, copy_keys, line
from components.redis.keys.replication import Replica
from components.redis.readiness import PROBE_EXPIRY_SECONDS, probe_key
from components.redis.replacement import limits
from components.redis.replacement.fence import USER, close, reopen
from components.redis.replacement.functions import place, read_libraries, slots_of
from components.redis.replacement.refusals import refusals
from components.redis.restore import FORM, unit_of
from errors import PermanentError, TemporaryError
from redaction import redact

EVERYTHING = "all keys"


def units(reader: SetReader) -> dict[str, int]:
    """One unit: keys cannot be restored in parts."""
    return {EVERYTHING: sum(reader.size(name) for name in reader.names(FORM))}


@contextmanager
def fence(access: Access, chosen: Iterable[str]) -> Iterator[str]:
    """Remove the right to write from every user but isa's own."""
    members = _members(access)
    with _explained():
        try:
            for member in members:
                with connect(access, member) as client:
                    close(client)
            yield "clients can read but not write (NOPERM)"
        finally:
            _open(access, members)


def replace(
    access: Access,
    served: RunningScratch | None,
    reader: SetReader,
    chosen: Iterable[str],
    cleanup: CleanupJournal,
) -> list[str]:
    """Remove all keys and functions, and copy those of the scratch engines.

    Steps that a master may refuse come first: a write to every master, then functions, then the removal of keys.

    Raises:
        PermanentError, TemporaryError: a member refuses, or went away.
    """
    assert served is not None  # LIVE.scratch
    password = redact.remember(secrets.token_hex(32))
    stall = access.settings.backup.stall_seconds
    members = _members(access)
    limits.sweep(access, members, cleanup)
    with _explained(), ExitStack() as stack:
        for member in members:
            with connect(access, member) as client:
                client.execute_command(f"ACL SETUSER {USER} reset on >{password} ~* &* +@all")
        slots = read_view(access, members[0]).slots()
        owners = {member.pod_ip: member for member in members}
        masters = {
            address: owners[address.rpartition(":")[0]] for address in sorted(set(slots.values()))
        }
        clients = {
            address: stack.enter_context(_client(member, USER, password))
            for address, member in masters.items()
        }
        libraries = _libraries(served, reader, slots)
        by_member = {masters[address].member: client for address, client in clients.items()}
        stack.enter_context(limits.lifted(by_member, cleanup))
        _try_writing(clients, slots)
        stack.enter_context(cleanup.replacing(chosen))
        _empty(clients, libraries)
        targets = {
            address: stack.enter_context(line(member, USER, password, stall))
            for address, member in masters.items()
        }
        _copy(served, {slot: targets[address] for slot, address in slots.items()}, stall)
    return []


def can_take(access: Access, reader: SetReader, chosen: Iterable[str]) -> list[str]:
    """Why the live cluster would refuse the backup.

    Raises:
        TemporaryError: a member cannot be asked.
    """
    with _explained():
        return [f"{EVERYTHING}: {why}" for why in refusals(access, reader, _members(access))]


def measure(access: Access, reader: SetReader, chosen: Iterable[str]) -> list[Measure]:
    """Measure all live masters together: their slots may differ from the backup's.

    Raises:
        PermanentError, TemporaryError: a member returns unreadable data, or went away.
    """
    try:
        apart = has_fields_apart(reader.manifest.fingerprint)
        with _explained():
            measures, due = measure_until_due(lambda due: _held(access, due, apart))
        return as_promised(measures, wanted(reader, chosen), lambda: _stored(reader, due, apart))
    except (UnknownFormat, EOFError) as exc:
        raise PermanentError(f"the keys were replaced and cannot be counted: {exc}") from exc


def wanted(reader: SetReader, chosen: Iterable[str]) -> list[Measure]:
    """The backup's fingerprint, with all shards combined."""
    return together(reader.manifest.fingerprint, EVERYTHING)


LIVE = Live(
    units,
    fence,
    replace,
    measure,
    writers="clients can read but not write, from before the safety backup until the comparison",
    wanted=wanted,
    can_take=can_take,
    scratch=True,
    fences=True,
)


# ---------------------------------------------------------------------- inside
def _open(access: Access, members: list[Endpoint]) -> None:
    """Restore the rights of all users on every member, even if one of the members fails."""

    def open_one(member: Endpoint) -> None:
        with connect(access, member) as client:
            reopen(client)

    answers = ask_members(members, open_one)
    if answers.bad:
        raise TemporaryError(
            f"Redis: clients may still be unable to write to {words(answers.bad)}. A restart of the member ends that"
        )


def _libraries(
    served: RunningScratch, reader: SetReader, slots: Mapping[int, str]
) -> dict[str, dict[str, str]]:
    """Function libraries of each master, by its address.

    Raises:
        PermanentError: two shards have different libraries of one name, and a master has slots of both.
    """
    shards = {}
    for name, endpoint in served.at.items():
        with _client(endpoint, "default", served.access.secret(SECRET, KEY)) as client:
            shards[unit_of(reader, name)] = read_libraries(client)
    masters: dict[str, set[int]] = {}
    for slot, address in slots.items():
        masters.setdefault(address, set()).add(slot)
    placement = place(shards, slots_of(reader.manifest), masters)
    if placement.conflicts:
        raise PermanentError(f"Redis: nothing was replaced: {'; '.join(placement.conflicts)}")
    return placement.of


def _try_writing(clients: Mapping[str, Any], slots: Mapping[int, str]) -> None:
    """Write a key to every master. One may refuse (MISCONF, NOREPLICAS, READONLY); then no master is emptied."""
    for address, client in clients.items():
        slot = next(slot for slot, owner in slots.items() if owner == address)
        key = probe_key(secrets.token_hex(8), slot)
        client.set(key, "restore", ex=PROBE_EXPIRY_SECONDS)
        client.delete(key)


def _empty(clients: Mapping[str, Any], libraries: Mapping[str, Mapping[str, str]]) -> None:
    """Replace the functions of every master, then remove all keys. No key is lost if a library is refused."""
    for address, client in clients.items():
        client.execute_command("FUNCTION FLUSH")
        for code in libraries[address].values():
            client.execute_command("FUNCTION LOAD", code)
    for client in clients.values():
        client.execute_command("FLUSHALL SYNC")


def _copy(served: RunningScratch, owners: Mapping[int, Line], stall: float) -> None:
    """Copy all keys of the scratch engines to the owners of their slots."""
    password = served.access.secret(SECRET, KEY)
    for endpoint in served.at.values():
        with (
            _client(endpoint, "default", password) as scanned,
            line(endpoint, "default", password, stall) as source,
        ):
            for sizes in _batches(scanned):
                copy_keys(source, sizes, {name: owners[key_slot(name)] for name in sizes})


def _batches(source: Any) -> Iterator[dict[bytes, int]]:
    """The keys of a server in batches: key → bytes in memory."""
    cursor = 0
    while True:
        cursor, names = source.scan(cursor, count=BATCH_KEYS)
        pipe = source.pipeline(transaction=False)
        for name in names:
            pipe.memory_usage(name)
        yield {name: size for name, size in zip(names, pipe.execute(), strict=True) if size}
        if cursor == 0:
            return


def _held(access: Access, due: int, apart: bool) -> list[Measure]:
    """The live masters' keys."""
    measures: list[Measure] = []
    members = _members(access)
    slots = read_view(access, members[0]).slots()
    for member in members:
        if any(address.rpartition(":")[0] == member.pod_ip for address in set(slots.values())):
            replica = Replica(access, member, access.settings.backup.stall_seconds)
            with Spool(replica, access.settings.backup.spool) as spool:
                for _ in spool:
                    pass
                with spool.reader() as file:
                    measures += measure_rdb(file, EVERYTHING, due, fields_apart=apart)
    return together(measures, EVERYTHING)


def _stored(reader: SetReader, due: int, apart: bool) -> list[Measure]:
    """The backup's keys, of all shards."""
    measures: list[Measure] = []
    for name in reader.names(FORM):
        with opened(reader.stream(name)) as file:
            measures += measure_rdb(file, EVERYTHING, due, fields_apart=apart)
    return together(measures, EVERYTHING)


def _members(access: Access) -> list[Endpoint]:
    members = access.endpoints(STATEFULSET, access.settings.components.redis.members, PORT)
    stopped = [member.member for member in members if not member.host]
    if stopped:
        raise TemporaryError(
            f"Redis: {', '.join(stopped)} is not running: all members must be fenced"
        )
    return members


@contextmanager
def _client(endpoint: Endpoint, user: str, password: str) -> Iterator[Any]:
    client = redis.Redis(
        host=endpoint.host,
        port=endpoint.port,
        username=user,
        password=password,
        socket_timeout=60,
        encoding_errors=REVERSIBLE,
    )
    try:
        yield client
    finally:
        client.close()


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except redis.ResponseError as exc:
        raise PermanentError(f"Redis: {exc}") from exc
    except redis.RedisError as exc:
        raise TemporaryError(f"Redis: {exc}") from exc
