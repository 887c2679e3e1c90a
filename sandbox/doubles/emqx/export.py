"""Data export and import: the archive's layout is EMQX's (apps/emqx_management/src/emqx_mgmt_data_backup.erl, 5.8)."""

from __future__ import annotations

import io
import json
import re
import socket
import tarfile
import zlib
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from components.emqx.exports.mnesia import Atom, records
from sandbox.doubles.emqx.backups import Backups
from sandbox.doubles.emqx.mnesia import backup
from sandbox.doubles.emqx.retainer import Kept, Retainer
from sandbox.doubles.emqx.state import State

VERSION = "5.8.9"
EDITION = "ce"  # the name in archives; the API uses Opensource
SUFFIX = ".tar.gz"
# file below mnesia/ → table of the double
TABLES = {
    "emqx_authn_mnesia": "mqtt_users",
    "emqx_admin": "dashboard_users",
    "emqx_app": "api_keys",
    "emqx_acl": "acl",
}
BANS = ("emqx_banned", "emqx_banned_rules")
BANNED_BY_RULE = (
    "clientid_re",
    "username_re",
    "peerhost_net",
)  # table/1 in apps/emqx/src/emqx_banned.erl
CONFIGURED = ("connectors", "actions", "sources", "bridges")
SET_AT_RUN_TIME = ("authorization", "retainer")
ADMINISTRATORS = ("emqx_admin", "emqx_app")  # left out for an API key
RETAINED = "emqx_retainer_message"


def write(state: State, retainer: Retainer, backups: Backups, everything: bool) -> str:
    """Write an archive of configuration, users and retained messages.

    Args:
        everything: include dashboard users and API keys.

    Returns:
        Its file name.

    Raises:
        TimeoutError: the broker did not return its retained messages.
    """
    now = datetime.now(UTC)
    name = f"emqx-export-{now:%Y-%m-%d-%H-%M-%S}.{now.microsecond // 1000:03d}"
    tables = state.tables
    configuration: dict[str, Any] = {"rule_engine": {"rules": tables["rules"]}}
    for section in CONFIGURED:
        kinds = configuration.setdefault(section, {})
        for identity, made in tables[section].items():
            kind, _, given_name = identity.partition(":")
            kinds.setdefault(kind, {})[given_name] = made
    configuration |= {key: tables[key] for key in SET_AT_RUN_TIME if tables[key]}
    lines = [f"{key} = {json.dumps(value)}\n" for key, value in configuration.items()]
    files = {
        "META.hocon": f'version = "{VERSION}"\nedition = "{EDITION}"\n'.encode(),
        "cluster.hocon": "".join(lines).encode(),
    }
    if retainer.enabled and retainer.built_in:
        files[f"mnesia/{RETAINED}"] = backup(RETAINED, _retained_rows(retainer.all()))
    for file, table in TABLES.items():
        if everything or file not in ADMINISTRATORS:
            files[f"mnesia/{file}"] = json.dumps(tables[table]).encode()
    for number, file in enumerate(BANS):
        rows = {k: b for k, b in tables["banned"].items() if (b["as"] in BANNED_BY_RULE) == number}
        files[f"mnesia/{file}"] = json.dumps(rows).encode()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for path, data in files.items():
            entry = tarfile.TarInfo(f"{name}/{path}")
            entry.size, entry.mtime = len(data), int(now.timestamp())
            archive.addfile(entry, io.BytesIO(data))
    backups.write(f"{name}{SUFFIX}", packed.getvalue())
    return f"{name}{SUFFIX}"


def check(name: str, content: bytes) -> dict[str, bytes]:
    """The content of an archive: path below its directory → bytes.

    Raises:
        ValueError: it is not an export, was renamed, or is newer than this version; with EMQX's message.
    """
    found: dict[str, bytes] = {}
    if not name.endswith(SUFFIX):
        raise ValueError(f"invalid backup name: file name must have {SUFFIX} extension")
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
            for entry in archive:
                root, _, path = entry.name.partition("/")
                if root != name.removesuffix(SUFFIX):
                    raise ValueError(
                        "invalid backup archive content: all files in the archive must be under"
                        " <backup name> directory"
                    )
                stream = archive.extractfile(entry)
                if stream is not None:
                    found[path] = stream.read()
    except (tarfile.TarError, EOFError, OSError, zlib.error) as exc:
        raise ValueError(f"bad backup archive: {exc}") from exc
    meta = dict(re.findall(r'(version|edition) = "([^"]*)"', found.get("META.hocon", b"").decode()))
    if set(meta) != {"version", "edition"}:
        raise ValueError("invalid backup archive file: missing META.hocon")
    if meta["edition"] not in ("ce", "ee"):
        raise ValueError("invalid backup archive content: wrong EMQX edition value in META.hocon")
    if meta["edition"] == "ee":
        raise ValueError("importing EMQX Enterprise data backup to EMQX is not allowed")
    if _minor(meta["version"]) > _minor(VERSION):
        raise ValueError(
            f'[warning] Backup version "{meta["version"]}" is newer than EMQX version "{VERSION}",'
            " import is not allowed."
        )
    return found


def has_administrators(found: dict[str, bytes]) -> bool:
    """Whether an archive has dashboard users or API keys."""
    return any(f"mnesia/{name}" in found for name in ADMINISTRATORS)


def restore(found: dict[str, bytes], state: State, retainer: Retainer) -> None:
    """Import an archive: existing entries are replaced, entries that it lacks stay."""
    lines = found.get("cluster.hocon", b"").decode().splitlines()
    pairs = (line.partition(" = ") for line in lines)
    configuration: dict[str, Any] = {key: json.loads(value) for key, _, value in pairs}

    def edit(tables: dict[str, Any]) -> None:
        tables["rules"] |= configuration.get("rule_engine", {}).get("rules", {})
        for section in CONFIGURED:
            for kind, named in configuration.get(section, {}).items():
                tables[section] |= {f"{kind}:{name}": made for name, made in named.items()}
        for name, table in (*TABLES.items(), *((name, "banned") for name in BANS)):
            tables[table] |= json.loads(found.get(f"mnesia/{name}", b"{}"))
        for key in SET_AT_RUN_TIME:
            tables[key] |= configuration.get(key, {})

    state.change(edit)
    for named in configuration.get("connectors", {}).values():
        for connector in named.values():
            _start(connector)
    table = found.get(f"mnesia/{RETAINED}")
    if table:
        retainer.restore(
            {
                message[6].decode(): Kept(message[7], message[2], expiry)
                for _, _, message, expiry in records(io.BytesIO(table), RETAINED)
            }
        )


def _start(connector: dict[str, Any]) -> None:
    """Connect to a connector's server, as EMQX does when it imports an enabled connector (emqx_connector.erl:
    post_config_update/5). Names are not resolved.
    """
    at = re.search(
        r"(\d+\.\d+\.\d+\.\d+):(\d+)", str(connector.get("server") or connector.get("url"))
    )
    if at and connector.get("enable", True):
        with suppress(OSError), socket.create_connection((at[1], int(at[2])), timeout=2):
            pass


def _retained_rows(messages: dict[str, Kept]) -> list[tuple[Any, ...]]:
    """Records of the table: words of the topic, message, expiry (emqx_retainer_mnesia.erl, emqx_message.hrl)."""
    return [
        (
            [word.encode() if word else Atom("") for word in topic.split("/")],
            (
                Atom("message"), bytes(16), one.qos, b"client", {Atom("retain"): Atom("true")}, {},
                topic.encode(), one.payload, 1_700_000_000_000, {},
            ),
            one.expiry,
        )
        for topic, one in sorted(messages.items())
    ]  # fmt: skip


def _minor(version: str) -> tuple[int, int]:
    try:
        major, minor, *_ = version.split(".")
        return int(major), int(minor)
    except ValueError:
        raise ValueError(
            "invalid backup archive content: wrong EMQX version value in META.hocon"
        ) from None
