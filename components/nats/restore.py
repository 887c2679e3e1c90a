"""Restores JetStream stream by stream, by the restore API that the `nats` tool uses.

Each chunk is one request. The server gives up 5 s after the last one. A restore that fails with an error still leaves a
part of the stream (measured on 2.15.1), so that stream is deleted.

In a scratch engine a stream has one replica and follows no other stream, because it would copy messages that it did not
hold. Settings that add or remove messages over time are left out as well, because an old backup would lose messages:
`max_age`, lifetimes and schedules of messages, and retention `interest`.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nats.errors import Error as NatsError
from nats.errors import NoRespondersError

from archive.backup.manifest import Manifest, Measure
from archive.backup.reader import SetReader
from components.access import Access, Endpoint
from components.base import Restore, Scratch
from components.nats.capacity import SET_LATER
from components.nats.client import (
    CLIENT_PORT,
    KEY,
    SECRET,
    STATEFULSET,
    USER,
    Account,
    Refused,
    account,
    call,
    call_when_placed,
    listed,
)
from components.nats.fingerprint import (
    has_configuration,
    has_expiring,
    has_expiring_consumers,
    measure_configuration,
    measures,
)
from components.nats.streams.consumers import (
    as_saved,
    consumers_of,
    make_missing_consumers,
    saved_consumers,
)
from components.nats.streams.messages import OWN_TIMES, measure_messages
from config.models import Settings
from config.sections.backups import NatsAccount
from errors import IsaError, PermanentError, TemporaryError

FORM, ARCHIVE, ABOUT = "nats stream backup", "stream.tar.s2", "backup.json"
CHUNK_BYTES = 512 << 10  # a server's max_payload is 1 MiB by default
CHUNK_SECONDS, END_SECONDS = 30.0, 3600.0  # at the end the server indexes the whole stream
# Another server may do the restore; the server we are connected to learns of its subscription a moment later.
HEARD_TRIES, HEARD_PAUSE_SECONDS = 40, 0.1
# Settings left out in a scratch engine: placement, other streams, and everything that expires messages.
UNPROVEN = (
    "placement", "mirror", "sources", "republish", "max_age", *OWN_TIMES, "subject_delete_marker_ttl", *SET_LATER,
)  # fmt: skip
# Retention that drops all messages when the last consumer is deleted; an ephemeral one is deleted after seconds.
INTEREST = "interest"
SETTINGS = """
host: 0.0.0.0
port: %d
max_payload: 64MB
jetstream { store_dir: "/scratch/jetstream", max_file_store: 1000TB }
accounts {
%s
}
"""
ACCOUNT = "  %s { jetstream: enabled, users: [ { user: %s, password: %s } ] }"


def scratch(settings: Settings, manifest: Manifest, password: str) -> tuple[Scratch, ...]:
    """One server with all accounts of the backup."""
    users = _users(manifest)
    lines = "\n".join(
        ACCOUNT % (quoted(f"account of {user}"), quoted(user), quoted(password)) for user in users
    )
    secrets: dict[str, dict[str, str]] = {}
    for declared in accounts(settings, manifest):
        secrets.setdefault(declared.secret, {})[declared.key] = password
    return (
        Scratch(
            "", STATEFULSET, "nats", ("nats-server", "--config", "/config/nats.conf"), CLIENT_PORT,
            files={"nats.conf": SETTINGS % (CLIENT_PORT, lines)}, secrets=secrets,
        ),
    )  # fmt: skip


def place(reader: SetReader, name: str, directory: Path) -> None:
    """Nothing to place: streams are restored over the network."""


def ask(access: Access, endpoint: Endpoint) -> str:
    """The server's version, once its JetStream answers."""
    with account(access, [endpoint], _own()) as connected:
        connected.run(call(connected.client, "INFO", timeout=access.timeout_seconds))
        info: Any = connected.client._server_info
        return f"NATS {info['version']}"


def load(access: Access, at: Mapping[str, Endpoint], reader: SetReader) -> None:
    """Restore all streams of all accounts.

    Raises:
        Damaged: an artefact differs from what was stored.
        PermanentError: the server refuses a stream; the incomplete stream is deleted.
        TemporaryError: the server went away.
    """
    servers = list(at.values())
    for declared in accounts(access.settings, reader.manifest):
        with account(access, servers, declared) as connected:
            for name in reader.names(FORM):
                folder = name.rpartition("/")[0]
                if folder.partition("/")[0] == declared.user:
                    backup, pieces = reader.json(f"{folder}/{ABOUT}"), reader.stream(name)
                    omitted = unproven(backup["config"])
                    config = {k: v for k, v in backup["config"].items() if k not in omitted}
                    restore_stream(connected, config, backup["state"], pieces)
                    saved = saved_consumers(reader, folder)
                    make_missing_consumers(connected, backup["config"], saved, num_replicas=1)


def unproven(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Settings that a stream does not get in a scratch engine."""
    kept_by_consumers = config.get("retention") == INTEREST
    return (*UNPROVEN, "retention") if kept_by_consumers else UNPROVEN


def restore_stream(
    connected: Account, config: Mapping[str, Any], state: Mapping[str, Any], pieces: Iterable[bytes]
) -> None:
    """Restore one stream, with one replica.

    Args:
        connected: the account; it has no stream of this name.
        config: the configuration to restore with.
        state: the stream's state in the backup.
        pieces: the snapshot's bytes.

    Raises:
        Damaged, PermanentError, TemporaryError: the restore failed; the incomplete stream was deleted.
    """
    name, begun = config["name"], False
    request = {"config": {**config, "num_replicas": 1}, "state": state}
    chunk_bytes = min(CHUNK_BYTES, connected.client.max_payload)

    async def send(subject: str, data: bytes, seconds: float) -> None:
        answer = await _heard(connected, subject, data, seconds)
        error = (json.loads(answer) if answer else {}).get("error")
        if error:
            failure = f"JetStream refused stream {name} ({error.get('err_code', 0)})"
            raise PermanentError(failure, said=str(error["description"]))

    try:
        opened = call_when_placed(
            connected, f"STREAM.RESTORE.{name}", request, timeout=CHUNK_SECONDS
        )
        begun = True
        for piece in pieces:
            for start in range(0, len(piece), chunk_bytes):
                chunk = piece[start : start + chunk_bytes]
                connected.run(send(opened["deliver_subject"], chunk, CHUNK_SECONDS))
        connected.run(send(opened["deliver_subject"], b"", END_SECONDS))
    except BaseException as exc:
        if begun:
            _delete(connected, name)
        if isinstance(exc, NatsError):
            raise TemporaryError(f"NATS, stream {name}: {exc}") from exc
        raise


def measure(
    access: Access, at: Mapping[str, Endpoint], reader: SetReader
) -> Mapping[str, list[Measure]]:
    """Measure every stream of the server.

    Raises:
        TemporaryError: the server went away.
    """
    results: list[Measure] = []
    seconds = access.timeout_seconds
    folders = {reader.unit(name): name.rpartition("/")[0] for name in reader.names(FORM)}
    for declared in accounts(access.settings, reader.manifest):
        with account(access, list(at.values()), declared) as connected:
            client = connected.client
            for name in connected.run(listed(client, "STREAM.NAMES", "streams", timeout=seconds)):
                info = connected.run(call(client, f"STREAM.INFO.{name}", timeout=seconds))
                state, unit = info["state"], f"stream {declared.user}/{name}"
                folder = folders.get(unit, "")
                saved = saved_consumers(reader, folder) if folder else []
                current = consumers_of(connected, str(name))
                consumers = as_saved(info["config"], current, saved)
                expiring_apart = has_expiring(reader.manifest, unit)
                stats = connected.run(
                    measure_messages(client, str(name), state, apart=expiring_apart)
                )
                results += measures(
                    unit,
                    state,
                    consumers,
                    stats,
                    consumers_apart=has_expiring_consumers(reader.manifest, unit),
                )
                if has_configuration(reader.manifest, unit):
                    config = reader.json(f"{folder}/{ABOUT}")["config"]
                    unproven_settings = {
                        key: config[key] for key in unproven(config) if key in config
                    }
                    results.append(
                        measure_configuration(unit, {**info["config"], **unproven_settings}, config)
                    )
    return {"": results}


RESTORE = Restore(scratch, place, ask, load, measure)


# ---------------------------------------------------------------------- inside
async def _heard(connected: Account, subject: str, data: bytes, seconds: float) -> bytes:
    for _ in range(HEARD_TRIES):
        try:
            return bytes((await connected.client.request(subject, data, timeout=seconds)).data)
        except NoRespondersError:  # the subscription is not known yet
            await asyncio.sleep(HEARD_PAUSE_SECONDS)
    return bytes((await connected.client.request(subject, data, timeout=seconds)).data)


def _delete(connected: Account, name: str) -> None:
    try:
        connected.run(call(connected.client, f"STREAM.DELETE.{name}", timeout=CHUNK_SECONDS))
    except (IsaError, NatsError, Refused):
        return


def quoted(text: str) -> str:
    """A string of the server's configuration (nats-server, conf/lex.go: lexDubQuotedString)."""
    escaped = re.sub(r'["\\\x00-\x1f\x7f]', lambda match: f"\\x{ord(match[0]):02x}", text)
    return f'"{escaped}"'


def _own() -> NatsAccount:
    return NatsAccount(user=USER, secret=SECRET, key=KEY)


def accounts(settings: Settings, manifest: Manifest) -> list[NatsAccount]:
    """The accounts of the backup's users. A user that the settings no longer name gets a Secret of its own."""
    declared = {account.user: account for account in (_own(), *settings.backup.nats.accounts)}
    fallbacks = (
        NatsAccount(user=user, secret=f"user-{number}", key="password")
        for number, user in enumerate(_users(manifest))
    )
    return [declared.get(fallback.user, fallback) for fallback in fallbacks]


def _users(manifest: Manifest) -> list[str]:
    """The users of the backup's accounts, and always the platform's own user: it asks for the server's version."""
    users = (unit.partition("/")[0] for unit in manifest.topology["streams"])
    return list(dict.fromkeys([USER, *users]))
