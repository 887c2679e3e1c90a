"""Data export and import: the archive's layout is EMQX's (apps/emqx_management/src/emqx_mgmt_data_backup.erl, 5.8)."""

from __future__ import annotations

import base64
import io
import json
import re
import tarfile
import zlib
from datetime import UTC, datetime
from typing import Any

from deployments.sandbox.doubles.emqx.backups import Backups
from deployments.sandbox.doubles.emqx.broker import Broker
from deployments.sandbox.doubles.emqx.state import State

VERSION = "5.8.9"
EDITION = "ce"  # as archives say it; the API says Opensource
SUFFIX = ".tar.gz"
# file below mnesia/ → table of ours
TABLES = {
    "emqx_authn_mnesia": "mqtt_users",
    "emqx_admin": "dashboard_users",
    "emqx_app": "api_keys",
    "emqx_banned": "banned",
    "emqx_acl": "acl",
}
CONFIGURED = ("connectors", "actions", "bridges")
ADMINISTRATORS = ("emqx_admin", "emqx_app")  # left out for an API key
RETAINED = "emqx_retainer_message"


def write(state: State, broker: Broker, backups: Backups, everything: bool) -> str:
    """Write an archive of configuration, users and retained messages.

    Args:
        everything: whether dashboard users and API keys go in.

    Returns:
        Its file name.

    Raises:
        TimeoutError: the broker did not tell its retained messages.
    """
    now = datetime.now(UTC)
    name = f"emqx-export-{now:%Y-%m-%d-%H-%M-%S}.{now.microsecond // 1000:03d}"
    retained = [
        {"topic": topic, "payload": base64.b64encode(payload).decode(), "qos": qos}
        for topic, (payload, qos) in sorted(broker.retained().items())
    ]
    tables = state.tables
    configuration: dict[str, Any] = {"rule_engine": {"rules": tables["rules"]}}
    for section in CONFIGURED:
        kinds = configuration.setdefault(section, {})
        for identity, made in tables[section].items():
            kind, _, given_name = identity.partition(":")
            kinds.setdefault(kind, {})[given_name] = made
    files = {
        "META.hocon": f'version = "{VERSION}"\nedition = "{EDITION}"\n',
        "cluster.hocon": json.dumps(configuration, indent=1),
        f"mnesia/{RETAINED}": json.dumps(retained),
    }
    for file, table in TABLES.items():
        if everything or file not in ADMINISTRATORS:
            files[f"mnesia/{file}"] = json.dumps(tables[table])
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for path, text in files.items():
            entry = tarfile.TarInfo(f"{name}/{path}")
            entry.size, entry.mtime = len(text.encode()), int(now.timestamp())
            archive.addfile(entry, io.BytesIO(text.encode()))
    backups.write(f"{name}{SUFFIX}", packed.getvalue())
    return f"{name}{SUFFIX}"


def check(name: str, content: bytes) -> dict[str, str]:
    """What an archive has: path below its directory → text.

    Raises:
        ValueError: it is no export, of a renamed file, or newer than this; the words are EMQX's.
    """
    found: dict[str, str] = {}
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
                    found[path] = stream.read().decode()
    except (tarfile.TarError, EOFError, OSError, zlib.error, UnicodeDecodeError) as exc:
        raise ValueError(f"bad backup archive: {exc}") from exc
    meta = dict(re.findall(r'(version|edition) = "([^"]*)"', found.get("META.hocon", "")))
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


def has_administrators(found: dict[str, str]) -> bool:
    """Whether dashboard users or API keys are in an archive."""
    return any(f"mnesia/{name}" in found for name in ADMINISTRATORS)


def restore(found: dict[str, str], state: State, broker: Broker) -> None:
    """Bring back what an archive has: what exists is replaced, what it lacks stays."""
    configuration = json.loads(found.get("cluster.hocon", "{}"))

    def edit(tables: dict[str, Any]) -> None:
        tables["rules"] |= configuration.get("rule_engine", {}).get("rules", {})
        for section in CONFIGURED:
            for kind, named in configuration.get(section, {}).items():
                tables[section] |= {f"{kind}:{name}": made for name, made in named.items()}
        for name, table in TABLES.items():
            tables[table] |= json.loads(found.get(f"mnesia/{name}", "{}"))

    state.change(edit)
    messages = json.loads(found.get(f"mnesia/{RETAINED}", "[]"))
    if messages:
        broker.publish(
            [(m["topic"], base64.b64decode(m["payload"]), m["qos"], True) for m in messages]
        )


def _minor(version: str) -> tuple[int, int]:
    try:
        major, minor, *_ = version.split(".")
        return int(major), int(minor)
    except ValueError:
        raise ValueError(
            "invalid backup archive content: wrong EMQX version value in META.hocon"
        ) from None
