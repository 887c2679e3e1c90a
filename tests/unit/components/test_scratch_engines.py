"""What scratch engines are configured with, so that no data of a tenant makes one call out or run code of its own.

The network is in tests/unit/production/test_network.py, EMQX's export in test_emqx_isolation.py.
"""

from __future__ import annotations

import io
import re
import zipfile
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from components.minio import restore as minio
from components.minio.admin.exports import ELSEWHERE, LIFECYCLE
from components.nats import restore as nats
from components.neo4j import restore as neo4j
from components.qdrant import restore as qdrant
from components.redis import restore as redis
from tests import hostile
from tests.archives import zipped

SETTINGS: Any = SimpleNamespace(
    licences=SimpleNamespace(neo4j="yes"),
    backup=SimpleNamespace(nats=SimpleNamespace(accounts=())),
)


def manifest(**more: Any) -> Any:
    return SimpleNamespace(artefacts=[], topology={"streams": {}}, **more)


def test_redis_cannot_send_keys_to_another_server_nor_load_code() -> None:
    shard = SimpleNamespace(format="RDB", name="shard-0.rdb.zst.age")
    (server,) = redis.scratch(SETTINGS, SimpleNamespace(artefacts=[shard]), "p")  # type: ignore[arg-type]
    lines = server.files["redis.conf"].split("\n")
    assert {'rename-command MIGRATE ""', "enable-module-command no", "replicaof 127.0.0.1 1"} <= {
        *lines
    }
    assert not [line for line in lines if line.startswith(("loadmodule", "cluster", "include"))]


def test_neo4j_has_no_plugins_and_loads_from_no_file_and_no_address() -> None:
    (server,) = neo4j.scratch(SETTINGS, manifest(), "")
    lines = dict(line.split("=", 1) for line in server.files["neo4j.conf"].split() if "=" in line)
    assert lines["internal.dbms.cypher_ip_blocklist"] == "0.0.0.0/0,::/0"
    assert lines["dbms.security.allow_csv_import_from_file_urls"] == "false"
    assert lines["server.directories.plugins"].startswith("/scratch/")
    assert lines["dbms.usage_report.enabled"] == "false"
    assert not {key for key in lines if "unrestricted" in key or "jvm" in key}


def test_minio_gets_no_setting_that_names_another_server(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, bytes] = {}
    monkeypatch.setattr(minio, "connect", lambda *_, **__: None)
    monkeypatch.setattr(minio, "import_zip", lambda _, __, path, body: given.update({path: body}))
    monkeypatch.setattr(minio, "complete", lambda *_: None)
    files = {f"b/{name}": b"x" for name in (*ELSEWHERE, LIFECYCLE, "policy.json", "tagging.xml")}
    artefacts = {minio.SETTINGS: zipped(files), minio.RIGHTS: zipped({"iam/users.json": b"{}"})}
    reader: Any = SimpleNamespace(
        json=lambda _: {},
        read=artefacts.__getitem__,
        chain=(None,),
        manifest=SimpleNamespace(needs=()),
    )
    access: Any = SimpleNamespace(settings=SimpleNamespace(backup=SimpleNamespace(spool=None)))
    monkeypatch.setattr(minio, "held_bytes", lambda *_: nullcontext({}))
    minio.load(access, {"": None}, reader)  # type: ignore[dict-item]
    with zipfile.ZipFile(io.BytesIO(given[minio.IMPORT_SETTINGS])) as archive:
        assert set(archive.namelist()) == {"b/policy.json", "b/tagging.xml"}


def test_minio_and_qdrant_report_nothing_to_their_makers() -> None:
    (server,) = minio.scratch(SETTINGS, manifest(), "p")
    assert (server.environ["MINIO_UPDATE"], server.environ["MINIO_BROWSER"]) == ("off", "off")
    (peer,) = qdrant.scratch(SETTINGS, manifest(), "p")
    assert peer.environ["QDRANT__TELEMETRY_DISABLED"] == "true"


def test_nats_follows_no_other_stream_and_knows_no_other_server() -> None:
    config = {"mirror": {}, "sources": [], "republish": {}, "placement": {}, "name": "s"}
    assert {"mirror", "sources", "republish", "placement"} <= set(nats.unproven(config))
    (server,) = nats.scratch(SETTINGS, manifest(), "p")
    text = server.files["nats.conf"]
    assert not re.search(r"\b(leafnodes|gateway|cluster|routes|resolver|include|remotes)\b", text)


@hostile.each(lambda name: hostile.unicode_text(name) and name.partition("/")[0].strip() != "")
def test_a_users_name_is_one_string_of_nats_configuration(name: str) -> None:
    streams: dict[str, Any] = {f"{name}/s": {}}
    (server,) = nats.scratch(SETTINGS, SimpleNamespace(topology={"streams": streams}), "p")  # type: ignore[arg-type]
    text = nats.quoted(name)
    assert not re.search(r'["\\\x00-\x1f]', re.sub(r"\\x[0-9a-f]{2}", "", text[1:-1]))
    if "/" not in name:
        assert f"user: {text}," in server.files["nats.conf"]
