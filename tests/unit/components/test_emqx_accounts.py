"""An import into the live EMQX gives nobody who is there another password, and leaves nobody out who is gone."""

from __future__ import annotations

import io
import json
import re
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from archive.backup.manifest import Manifest, Measure
from components.emqx.accounts import import_beside, returning
from components.emqx.client import USERS, Api

LISTS = {f"/api/v5{USERS}": "user_id", "/api/v5/users": "username", "/api/v5/api_key": "name"}
ITEMS = {"users": "emqx_authn_mnesia", "dashboard users": "emqx_admin", "API keys": "emqx_app"}
Tables = dict[str, dict[str, str]]


def archive(stem: str, tables: Tables) -> bytes:
    files = {"META.hocon": "version", "cluster.hocon": f"of {stem}"}
    files |= {f"mnesia/{table}": json.dumps(rows) for table, rows in tables.items()}
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as target:
        for path, text in files.items():
            entry = tarfile.TarInfo(f"{stem}/{path}")
            entry.size = len(text)
            target.addfile(entry, io.BytesIO(text.encode()))
    return made.getvalue()


class Broker:
    """Tables of accounts → name → password; imports by merging, as EMQX does, and takes no renamed archive."""

    def __init__(self, tables: Tables, refuses: str = "") -> None:
        self.tables, self.configured = tables, ""
        self.files: dict[str, bytes] = {}
        self._refuses = refuses
        self.api = Api(
            httpx.Client(transport=httpx.MockTransport(self._answer)), "http://emqx/api/v5", {}
        )

    def _answer(self, request: httpx.Request) -> httpx.Response:
        path, method = request.url.path, request.method
        if path in LISTS:
            table = dict(zip(LISTS, ITEMS.values(), strict=True))[path]
            return httpx.Response(200, json=[{LISTS[path]: n} for n in self.tables.get(table, {})])
        if path.endswith("/data/export"):
            self.files["now.tar.gz"] = archive("now", self.tables)
            return httpx.Response(200, json={"filename": "now.tar.gz", "node": "a", "size": 1})
        if path.endswith("/data/import"):
            return self._import(json.loads(request.content)["filename"])
        if method == "POST":
            head, _, rest = request.content.partition(b"\r\n\r\n")
            name = cast(Any, re.search(rb'filename="([^"]+)"', head))[1].decode()
            assert name not in self.files  # "already exists"
            self.files[name] = rest[: rest.rindex(b"\r\n--")]
            return httpx.Response(204)
        if path.endswith("/data/files"):
            return httpx.Response(200, json=[{"filename": n, "node": "a"} for n in self.files])
        name = path.rpartition("/")[2]
        if method == "DELETE":
            del self.files[name]
            return httpx.Response(204)
        return httpx.Response(200, stream=httpx.ByteStream(self.files[name]))

    def _import(self, name: str) -> httpx.Response:
        with tarfile.open(fileobj=io.BytesIO(self.files[name])) as found:
            for entry in found:
                root, _, path = entry.name.partition("/")
                assert root == name.removesuffix(".tar.gz")
                text = cast(Any, found.extractfile(entry)).read().decode()
                if path == "cluster.hocon":
                    self.configured = text
                elif path.startswith("mnesia/"):
                    self.tables.setdefault(path.removeprefix("mnesia/"), {}).update(
                        json.loads(text)
                    )
        refused = self._refuses and self._refuses in self.configured
        return httpx.Response(400 if refused else 204)


def names(tables: Tables, item: str, digest: str = "1/1") -> Measure:
    rows = dict.fromkeys(tables.get(ITEMS[item], {}), "part")
    return Measure(
        unit="cluster", item=item, count=len(rows), digest=digest if rows else "", origin="source", names=rows
    )  # fmt: skip


def restored(then: Tables, broker: Broker, directory: Path, digest: str = "1/1") -> tuple[str, ...]:
    measures = [names(then, item, digest) for item in ITEMS]
    manifest = cast(Manifest, SimpleNamespace(fingerprint=measures))
    access: Any = SimpleNamespace(settings=SimpleNamespace(backup=SimpleNamespace(stall_seconds=9)))
    file = directory / "then.tar.gz"
    file.write_bytes(archive("then", then))
    back = returning(broker.api, manifest)
    import_beside(access, broker.api, file, back)
    return back.names


THEN: Tables = {
    "emqx_admin": {"isa": "isa then"},
    "emqx_app": {"metrics": "metrics then"},
    "emqx_authn_mnesia": {"device": "device then"},
    "emqx_psk": {"sensor": "sensor then", "valve": "valve then"},
    "emqx_acl": {"device": "allow then"},
}


def test_whoever_is_there_keeps_his_password_and_all_else_is_the_sets(tmp_path: Path) -> None:
    now = {table: {n: f"{n} now" for n in rows} for table, rows in THEN.items()}
    del now["emqx_psk"]["valve"]
    broker = Broker(now)
    assert restored(THEN, broker, tmp_path) == ()
    assert broker.tables == {
        "emqx_admin": {"isa": "isa now"},
        "emqx_app": {"metrics": "metrics now"},
        "emqx_authn_mnesia": {"device": "device now"},
        "emqx_psk": {"sensor": "sensor now", "valve": "valve then"},
        "emqx_acl": {"device": "allow then"},
    }
    assert broker.configured == "of then"
    assert broker.files == {}


def test_whoever_is_gone_comes_back_with_the_sets_password_and_is_named(tmp_path: Path) -> None:
    then = {**THEN, "emqx_admin": {"isa": "isa then", "operator": "operator then"}}
    broker = Broker({"emqx_admin": {"isa": "isa now", "other": "other now"}})
    assert restored(then, broker, tmp_path) == ("device", "operator", "metrics")
    assert broker.tables["emqx_admin"] == {
        "isa": "isa now",
        "operator": "operator then",
        "other": "other now",
    }
    assert broker.tables["emqx_app"] == THEN["emqx_app"]


def test_accounts_that_moved_while_they_were_backed_up_are_all_brought_back(tmp_path: Path) -> None:
    broker = Broker({"emqx_admin": {"isa": "isa now"}, "emqx_app": {"metrics": "metrics now"}})
    then = {**THEN, "emqx_admin": {"isa": "isa then"}, "emqx_app": {"metrics": "metrics then"}}
    assert restored(then, broker, tmp_path, digest="") == ()
    assert broker.tables["emqx_admin"] == {"isa": "isa now"}
    assert broker.tables["emqx_authn_mnesia"] == THEN["emqx_authn_mnesia"]


def test_an_import_that_is_refused_halfway_leaves_the_administrator_his_password(
    tmp_path: Path,
) -> None:
    then = {**THEN, "emqx_admin": {"isa": "isa then", "operator": "operator then"}}
    broker = Broker({"emqx_admin": {"isa": "isa now"}}, refuses="of then")
    with pytest.raises(httpx.HTTPStatusError):
        restored(then, broker, tmp_path)
    assert broker.tables["emqx_admin"]["isa"] == "isa now"
    assert broker.files == {}
