"""Replaces all keys of the live cluster by those of a set, whatever slots its masters have.

The set's shards are served by scratch engines; from there each key goes, in the server's own serialised form, to the
master that has its slot now (DUMP, RESTORE: https://redis.io/docs/latest/commands/restore/). Writers are fenced by
their users' rights on every member, for the time being only: a member that restarts has its configured rights again.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import redis
from redis.crc import key_slot

from archive.leftovers import Leftovers
from archive.manifest import Measure
from archive.reader import SetReader, opened
from archive.spool import Spool
from components.access import Access, Endpoint
from components.base import Live, Served
from components.questions import ask_members, words
from components.redis.client import KEY, PORT, SECRET, STATEFULSET, connect, read_view
from components.redis.expiry import as_promised, measure_until_due
from components.redis.fence import USER, close, reopen
from components.redis.fingerprint import has_fields_apart, measure_rdb, together
from components.redis.rdb import UnknownFormat
from components.redis.replication import Replica
from components.redis.restore import FORM
from errors import PermanentError, TemporaryError
from redaction import redact

BATCH = 500
EVERYTHING = "all keys"


def units(reader: SetReader) -> dict[str, int]:
    """One unit: a key has no other place than its slot."""
    return {EVERYTHING: sum(reader.size(name) for name in reader.names(FORM))}


@contextmanager
def fence(access: Access, chosen: Iterable[str]) -> Iterator[str]:
    """Take the right to write from everybody but a user of our own."""
    members = _members(access)
    with _explained():
        try:
            for member in members:
                with connect(access, member) as client:
                    close(client)
            yield "clients can read and not write (NOPERM)"
        finally:
            _open(access, members)


def replace(
    access: Access,
    served: Served | None,
    reader: SetReader,
    chosen: Iterable[str],
    leftovers: Leftovers,
) -> list[str]:
    """Remove all keys and functions, and copy those that the scratch engines serve.

    Raises:
        PermanentError, TemporaryError: a member refuses, or went away.
    """
    assert served is not None  # LIVE.scratch
    password = redact.remember(secrets.token_hex(32))
    own = served.access.secret(SECRET, KEY)
    with _explained(), ExitStack() as stack:
        members = _members(access)
        for member in members:
            with connect(access, member) as client:
                client.execute_command(f"ACL SETUSER {USER} reset on >{password} ~* &* +@all")
        slots = read_view(access, members[0]).slots()
        owners = {m.pod_ip: m for m in members}
        masters = {
            address: stack.enter_context(
                _client(owners[address.rpartition(":")[0]], USER, password)
            )
            for address in set(slots.values())
        }
        stack.enter_context(leftovers.replacing(chosen))
        for master in masters.values():
            master.execute_command("FLUSHALL SYNC")
        functions = b""
        for endpoint in served.at.values():
            source = stack.enter_context(_client(endpoint, "default", own))
            functions = functions or source.execute_command("FUNCTION DUMP")
            for names in _batches(source):
                _copy(source, names, {n: masters[slots[key_slot(n)]] for n in names})
        for master in masters.values():
            if functions:
                master.execute_command("FUNCTION RESTORE", functions, "FLUSH")
    return []


def measure(access: Access, reader: SetReader, chosen: Iterable[str]) -> list[Measure]:
    """What the live masters hold now, as one: their slots may be others than the set's.

    Raises:
        PermanentError, TemporaryError: a member gives what cannot be counted, or went away.
    """
    try:
        apart = has_fields_apart(reader.manifest.fingerprint)
        with _explained():
            found, due = measure_until_due(lambda due: _held(access, due, apart))
        return as_promised(found, wanted(reader, chosen), lambda: _stored(reader, due, apart))
    except (UnknownFormat, EOFError) as exc:
        raise PermanentError(f"the keys were replaced and cannot be counted: {exc}") from exc


def wanted(reader: SetReader, chosen: Iterable[str]) -> list[Measure]:
    """The set's fingerprint, as one."""
    return together(reader.manifest.fingerprint, EVERYTHING)


LIVE = Live(
    units,
    fence,
    replace,
    measure,
    writers="clients can read, and cannot write, from before the safety backup until the comparison",
    wanted=wanted,
    scratch=True,
    fences=True,
)


# ---------------------------------------------------------------------- inside
def _open(access: Access, members: list[Endpoint]) -> None:
    """Give everybody the right to write again: on all members that there are, whatever has become of one."""

    def open_one(member: Endpoint) -> None:
        with connect(access, member) as client:
            reopen(client)

    answers = ask_members(members, open_one)
    if answers.bad:
        raise TemporaryError(
            f"Redis: clients may still not write to {words(answers.bad)}. A member that restarts lets them again"
        )


def _copy(source: Any, names: list[bytes], owners: Mapping[bytes, Any]) -> None:
    pipe = source.pipeline(transaction=False)
    for name in names:
        pipe.execute_command("DUMP", name)
        pipe.execute_command("PEXPIRETIME", name)
    answers = pipe.execute()
    targets: dict[Any, Any] = {}
    for number, name in enumerate(names):
        value, expires = answers[2 * number : 2 * number + 2]
        if value is None:
            continue
        owner = owners[name]
        target = targets.setdefault(owner, owner.pipeline(transaction=False))
        target.execute_command("RESTORE", name, max(0, expires), value, "REPLACE", "ABSTTL")
    for target in targets.values():
        target.execute()


def _batches(source: Any) -> Iterator[list[bytes]]:
    cursor = 0
    while True:
        cursor, names = source.scan(cursor, count=BATCH)
        if names:
            yield list(names)
        if cursor == 0:
            return


def _held(access: Access, due: int, apart: bool) -> list[Measure]:
    """The live masters' keys."""
    found: list[Measure] = []
    members = _members(access)
    slots = read_view(access, members[0]).slots()
    for member in members:
        if any(address.rpartition(":")[0] == member.pod_ip for address in set(slots.values())):
            replica = Replica(access, member, access.settings.backup.stall_seconds)
            with Spool(replica, access.settings.backup.spool) as spool:
                for _ in spool:
                    pass
                with spool.reader() as file:
                    found += measure_rdb(file, EVERYTHING, due, fields_apart=apart)
    return together(found, EVERYTHING)


def _stored(reader: SetReader, due: int, apart: bool) -> list[Measure]:
    """The set's keys, of all shards."""
    found: list[Measure] = []
    for name in reader.names(FORM):
        with opened(reader.stream(name)) as file:
            found += measure_rdb(file, EVERYTHING, due, fields_apart=apart)
    return together(found, EVERYTHING)


def _members(access: Access) -> list[Endpoint]:
    members = access.endpoints(STATEFULSET, access.settings.components.redis.members, PORT)
    away = [member.member for member in members if not member.host]
    if away:
        raise TemporaryError(f"Redis: {', '.join(away)} does not run: all members must be fenced")
    return members


@contextmanager
def _client(endpoint: Endpoint, user: str, password: str) -> Iterator[Any]:
    client = redis.Redis(
        host=endpoint.host, port=endpoint.port, username=user, password=password, socket_timeout=60
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
