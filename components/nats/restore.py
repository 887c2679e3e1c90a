"""Brings JetStream back, stream by stream, by the restore API that the `nats` tool uses.

One request for each chunk; the server gives up 5 s after the last one, and a restore that failed leaves a part of the
stream behind although it answers with an error (measured on 2.15.1): such a stream is deleted. In a proof streams have
one replica and follow no other stream: what they would take from it is not what they held. Nor is anything in them that
comes or goes by time, which would be the more the older the backup is: a limit of age, messages' own ends and
schedules, and the retention that ends with the last consumer's interest.
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

from archive.manifest import Manifest, Measure
from archive.reader import SetReader
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
from components.nats.consumers import (
    as_saved,
    consumers_of,
    make_missing_consumers,
    saved_consumers,
)
from components.nats.fingerprint import (
    has_configuration,
    has_expiring,
    has_expiring_consumers,
    measure_configuration,
    measures,
)
from components.nats.messages import OWN_TIMES, measure_messages
from config.backups import NatsAccount
from config.models import Settings
from errors import IsaError, PermanentError, TemporaryError

FORM, ARCHIVE, ABOUT = "nats stream backup", "stream.tar.s2", "backup.json"
CHUNK_BYTES = 512 << 10  # a server takes 1 MiB by default, and says how much
CHUNK_SECONDS, END_SECONDS = 30.0, 3600.0  # the end waits for the server to index what came
# the server that restores is not the one that we talk to, which hears of its subscription a moment later
HEARD_TRIES, HEARD_PAUSE_SECONDS = 40, 0.1
# What a proof leaves out: what ties a stream to where it came from, and what time does to its messages.
UNPROVEN = (
    "placement", "mirror", "sources", "republish", "max_age", *OWN_TIMES, "subject_delete_marker_ttl", *SET_LATER,
)  # fmt: skip
INTEREST = (
    "interest"  # retention that ends when the last consumer goes, an ephemeral one after seconds
)
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
    """One server with an account for each of the backup's."""
    users = _users(manifest)
    lines = "\n".join(
        ACCOUNT % (quoted(f"account of {user}"), quoted(user), quoted(password)) for user in users
    )
    secrets: dict[str, dict[str, str]] = {}
    for one in accounts(settings, manifest):
        secrets.setdefault(one.secret, {})[one.key] = password
    return (
        Scratch(
            "", STATEFULSET, "nats", ("nats-server", "--config", "/config/nats.conf"), CLIENT_PORT,
            files={"nats.conf": SETTINGS % (CLIENT_PORT, lines)}, secrets=secrets,
        ),
    )  # fmt: skip


def place(reader: SetReader, name: str, directory: Path) -> None:
    """Nothing: streams come over the network."""


def ask(access: Access, endpoint: Endpoint) -> str:
    """Version of a server whose JetStream answers."""
    with account(access, [endpoint], _own()) as connected:
        connected.run(call(connected.client, "INFO", timeout=access.timeout_seconds))
        info: Any = connected.client._server_info
        return f"NATS {info['version']}"


def load(access: Access, at: Mapping[str, Endpoint], reader: SetReader) -> None:
    """Restore all streams of all accounts.

    Raises:
        Damaged: an artefact is not what was stored.
        PermanentError: the server does not take a stream; what was there of it is deleted.
        TemporaryError: it went away.
    """
    servers = list(at.values())
    for declared in accounts(access.settings, reader.manifest):
        with account(access, servers, declared) as connected:
            for name in reader.names(FORM):
                folder = name.rpartition("/")[0]
                if folder.partition("/")[0] == declared.user:
                    backup, pieces = reader.json(f"{folder}/{ABOUT}"), reader.stream(name)
                    left = unproven(backup["config"])
                    config = {k: v for k, v in backup["config"].items() if k not in left}
                    restore_stream(connected, config, backup["state"], pieces)
                    saved = saved_consumers(reader, folder)
                    make_missing_consumers(connected, backup["config"], saved, num_replicas=1)


def unproven(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Settings that a stream does not get in a proof."""
    kept_by_consumers = config.get("retention") == INTEREST
    return (*UNPROVEN, "retention") if kept_by_consumers else UNPROVEN


def restore_stream(
    to: Account, config: Mapping[str, Any], state: Mapping[str, Any], pieces: Iterable[bytes]
) -> None:
    """Restore one stream, with one replica.

    Args:
        to: account that it goes into, and that has none of its name.
        config: that it is restored with.
        state: as the backup has it.
        pieces: of its snapshot.

    Raises:
        Damaged, PermanentError, TemporaryError: there is no such stream afterwards.
    """
    name, begun = config["name"], False
    request = {"config": {**config, "num_replicas": 1}, "state": state}
    chunk_bytes = min(CHUNK_BYTES, to.client.max_payload)

    async def send(subject: str, data: bytes, seconds: float) -> None:
        answer = await _heard(to, subject, data, seconds)
        error = (json.loads(answer) if answer else {}).get("error")
        if error:
            what = f"JetStream refused stream {name} ({error.get('err_code', 0)})"
            raise PermanentError(what, said=str(error["description"]))

    try:
        opened = call_when_placed(to, f"STREAM.RESTORE.{name}", request, timeout=CHUNK_SECONDS)
        begun = True
        for piece in pieces:
            for start in range(0, len(piece), chunk_bytes):
                chunk = piece[start : start + chunk_bytes]
                to.run(send(opened["deliver_subject"], chunk, CHUNK_SECONDS))
        to.run(send(opened["deliver_subject"], b"", END_SECONDS))
    except BaseException as exc:
        if begun:
            _delete(to, name)
        if isinstance(exc, NatsError):
            raise TemporaryError(f"NATS, stream {name}: {exc}") from exc
        raise


def measure(
    access: Access, at: Mapping[str, Endpoint], reader: SetReader
) -> Mapping[str, list[Measure]]:
    """What the streams hold that the server lists.

    Raises:
        TemporaryError: the server went away.
    """
    found: list[Measure] = []
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
                there = consumers_of(connected, str(name))
                consumers = as_saved(info["config"], there, saved)
                apart = has_expiring(reader.manifest, unit)
                seen = connected.run(measure_messages(client, str(name), state, apart=apart))
                found += measures(
                    unit,
                    state,
                    consumers,
                    seen,
                    consumers_apart=has_expiring_consumers(reader.manifest, unit),
                )
                if has_configuration(reader.manifest, unit):
                    config = reader.json(f"{folder}/{ABOUT}")["config"]
                    left = {key: config[key] for key in unproven(config) if key in config}
                    found.append(measure_configuration(unit, {**info["config"], **left}, config))
    return {"": found}


RESTORE = Restore(scratch, place, ask, load, measure)


# ---------------------------------------------------------------------- inside
async def _heard(to: Account, subject: str, data: bytes, seconds: float) -> bytes:
    for _ in range(HEARD_TRIES):
        try:
            return bytes((await to.client.request(subject, data, timeout=seconds)).data)
        except NoRespondersError:  # so no server has it
            await asyncio.sleep(HEARD_PAUSE_SECONDS)
    return bytes((await to.client.request(subject, data, timeout=seconds)).data)


def _delete(to: Account, name: str) -> None:
    try:
        to.run(call(to.client, f"STREAM.DELETE.{name}", timeout=CHUNK_SECONDS))
    except (IsaError, NatsError, Refused):
        return


def quoted(text: str) -> str:
    """A string of the server's configuration (nats-server, conf/lex.go: lexDubQuotedString)."""
    escaped = re.sub(r'["\\\x00-\x1f\x7f]', lambda found: f"\\x{ord(found[0]):02x}", text)
    return f'"{escaped}"'


def _own() -> NatsAccount:
    return NatsAccount(user=USER, secret=SECRET, key=KEY)


def accounts(settings: Settings, manifest: Manifest) -> list[NatsAccount]:
    """How the backup's users are reached; those that the settings do not have any more by a Secret of their own."""
    declared = {account.user: account for account in (_own(), *settings.backup.nats.accounts)}
    gone = (
        NatsAccount(user=user, secret=f"user-{number}", key="password")
        for number, user in enumerate(_users(manifest))
    )
    return [declared.get(one.user, one) for one in gone]


def _users(manifest: Manifest) -> list[str]:
    """The users whose accounts the backup has; our own too, which asks whether the server is there."""
    named = (unit.partition("/")[0] for unit in manifest.topology["streams"])
    return list(dict.fromkeys([USER, *named]))
