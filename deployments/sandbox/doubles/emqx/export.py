"""Data export and import: the archive's layout is EMQX's (apps/emqx_management/src/emqx_mgmt_data_backup.erl, 5.8)."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deployments.sandbox.doubles.emqx.broker import Broker
from deployments.sandbox.doubles.emqx.state import State

VERSION = "5.8.9"
# file below mnesia/ → table of ours
TABLES = {
    "emqx_authn_mnesia": "mqtt_users",
    "emqx_admin": "dashboard_users",
    "emqx_app": "api_keys",
    "emqx_banned": "banned",
}
ADMINISTRATORS = ("emqx_admin", "emqx_app")  # left out for an API key
RETAINED = "emqx_retainer_message"


def write(state: State, broker: Broker, directory: Path, everything: bool) -> Path:
    """Write an archive of configuration, users and retained messages.

    Args:
        everything: whether dashboard users and API keys go in.
    """
    now = datetime.now(UTC)
    name = f"emqx-export-{now:%Y-%m-%d-%H-%M-%S}.{now.microsecond // 1000:03d}"
    retained = [
        {"topic": topic, "payload": base64.b64encode(payload).decode(), "qos": qos}
        for topic, (payload, qos) in sorted(broker.retained().items())
    ]
    files = {
        "META.hocon": f'version = "{VERSION}"\nedition = "Opensource"\n',
        "cluster.hocon": json.dumps({"rule_engine": {"rules": state.tables["rules"]}}, indent=1),
        f"mnesia/{RETAINED}": json.dumps(retained),
    }
    for file, table in TABLES.items():
        if everything or file not in ADMINISTRATORS:
            files[f"mnesia/{file}"] = json.dumps(state.tables[table])
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / f"{name}.tar.gz"
    fresh = target.with_suffix(".part")
    with tarfile.open(fresh, "w:gz") as archive:
        for path, text in files.items():
            entry = tarfile.TarInfo(f"{name}/{path}")
            entry.size, entry.mtime = len(text.encode()), int(now.timestamp())
            archive.addfile(entry, io.BytesIO(text.encode()))
    fresh.rename(target)
    return target


def read(file: Path, state: State, broker: Broker) -> None:
    """Bring back what an archive has: what exists is replaced, what it lacks stays.

    Raises:
        ValueError: it is no export.
    """
    found: dict[str, Any] = {}
    try:
        with tarfile.open(file) as archive:
            for entry in archive:
                stream = archive.extractfile(entry)
                if stream is not None:
                    found[entry.name.partition("/")[2]] = stream.read().decode()
    except (tarfile.TarError, EOFError, OSError) as exc:
        raise ValueError(f"bad backup archive: {exc}") from exc
    if "META.hocon" not in found:
        raise ValueError("bad backup archive: no META.hocon")

    def edit(tables: dict[str, Any]) -> None:
        tables["rules"] |= json.loads(found["cluster.hocon"])["rule_engine"]["rules"]
        for name, table in TABLES.items():
            tables[table] |= json.loads(found.get(f"mnesia/{name}", "{}"))

    state.change(edit)
    for message in json.loads(found.get(f"mnesia/{RETAINED}", "[]")):
        broker.publish(message["topic"], base64.b64decode(message["payload"]), message["qos"], True)
