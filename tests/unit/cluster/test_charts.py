"""A chart that is kept needs no host; one that is not is pulled once, compared with the lock and kept."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from cluster.command import Cancellation, Command
from cluster.helm.charts import ChartUnavailable
from cluster.helm.client import Helm, helm_environ
from cluster.helm.releases import Release
from cluster.target import Target
from errors import PermanentError
from sandbox.machine.binaries import ensure

INDEX = """\
apiVersion: v1
entries:
  redis:
    - {apiVersion: v2, name: redis, version: 1.2.3, urls: [redis-1.2.3.tgz]}
"""


@dataclass
class Host:
    """A chart repository that can be out of order."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    status: int = 200
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def helm(tmp_path: Path) -> Helm:
    command = Command(
        str(ensure(["helm"])["helm"]), environ=helm_environ(), cancellation=Cancellation()
    )
    return Helm(command, Target({}), tmp_path / "kept")


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A host with chart redis 1.2.3, packed by helm itself."""
    source = tmp_path / "redis"
    (source / "templates").mkdir(parents=True)
    (source / "Chart.yaml").write_text("apiVersion: v2\nname: redis\nversion: 1.2.3\n", "utf-8")
    (source / "templates/a.yaml").write_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n", "utf-8"
    )
    packed = Command(str(ensure(["helm"])["helm"]), cancellation=Cancellation())
    done = packed.run("package", str(source), "--destination", str(tmp_path), timeout=60)
    assert done.returncode == 0, done.error
    found = Host(files={"/index.yaml": INDEX.encode()})
    found.files["/redis-1.2.3.tgz"] = (tmp_path / "redis-1.2.3.tgz").read_bytes()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked.append(self.path)
            body = found.files.get(self.path, b"")
            self.send_response(found.status if body else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    found.address = f"http://127.0.0.1:{server.server_port}"
    yield found
    server.shutdown()
    server.server_close()


def release(host: Host, digest: str = "") -> Release:
    return Release(
        "r", "isa", "redis", "redis", host.address, "1.2.3", (), (), 60, True, digest
    )  # fmt: skip


def names(helm: Helm, wanted: Release) -> list[str]:
    found = helm.template(wanted, {}, kube_version="v1.36.3", api_versions=[])
    return [manifest["metadata"]["name"] for manifest in found]


def sha256(host: Host) -> str:
    return f"sha256:{hashlib.sha256(host.files['/redis-1.2.3.tgz']).hexdigest()}"


def test_after_the_first_time_a_chart_needs_no_host(helm: Helm, host: Host) -> None:
    assert names(helm, release(host, sha256(host))) == ["a"]
    host.status, before = 503, len(host.asked)
    assert names(helm, release(host, sha256(host))) == ["a"]
    assert len(host.asked) == before


def test_a_host_that_is_out_of_order_says_what_to_do(helm: Helm, host: Host) -> None:
    host.status = 503
    with pytest.raises(
        ChartUnavailable, match=r"redis-1.2.3 of release r cannot be pulled.*503.*charts.mirrors"
    ):
        names(helm, release(host))


def test_an_archive_that_is_not_the_locked_one_is_neither_used_nor_kept(
    helm: Helm, host: Host, tmp_path: Path
) -> None:
    with pytest.raises(PermanentError, match=r"redis-1\.2\.3\.tgz does not match charts.lock"):
        names(helm, release(host, "sha256:" + "0" * 64))
    assert not (tmp_path / "kept").exists()


def test_a_kept_archive_that_was_changed_is_told(helm: Helm, host: Host, tmp_path: Path) -> None:
    locked = release(host, sha256(host))
    names(helm, locked)
    (tmp_path / "kept/redis-1.2.3.tgz").write_bytes(b"something else")
    with pytest.raises(PermanentError, match=r"does not match charts\.lock"):
        names(helm, locked)


def test_where_nothing_can_be_kept_the_chart_is_used_all_the_same(
    helm: Helm, host: Host, tmp_path: Path
) -> None:
    (tmp_path / "kept").write_text("a file in the directory's place", encoding="utf-8")
    assert names(helm, release(host)) == ["a"]


def test_a_directory_of_that_name_beside_us_is_not_the_chart(
    helm: Helm, host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "redis/templates/a.yaml").write_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\n", "utf-8"
    )
    monkeypatch.chdir(tmp_path)
    assert names(helm, release(host)) == ["a"]


def test_a_local_chart_is_used_where_it_is(helm: Helm, host: Host, tmp_path: Path) -> None:
    local = replace(release(host), chart=str(tmp_path / "redis"), repository="", version="")
    assert names(helm, local) == ["a"]
    assert host.asked == []
