"""Programs and libraries go where the settings say, whatever is in the shell: each one tried for real."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import psycopg
import pytest
from botocore.config import Config

from archive.object_store.endpoint import session
from cluster.command import Cancellation, Command
from cluster.helm.client import Helm, helm_environ
from cluster.target import Target, find_target
from components.access import Access
from config.models import KubernetesSettings
from config.process_environment import child_environ, clean_process, program_environ
from sandbox.machine.binaries import ensure

NOWHERE = "127.0.0.1:9"  # the discard port: nobody listens
HOSTILE = {
    "HELM_DRIVER": "configmap",
    "HELM_DRIVER_SQL_CONNECTION_STRING": f"postgresql://{NOWHERE}/x",
    "HELM_KUBECONTEXT": "other",
    "HELM_KUBEAPISERVER": f"http://{NOWHERE}",
    "HELM_KUBETOKEN": "another",
    "HELM_KUBEASUSER": "another",
    "HELM_KUBECAFILE": "/nowhere",
    "HELM_KUBEINSECURE_SKIP_TLS_VERIFY": "true",
    "HELM_NAMESPACE": "elsewhere",
    "HELM_PLUGINS": "/nowhere",
    "HELM_REPOSITORY_CONFIG": "/nowhere/repositories.yaml",
    "HELM_DEBUG": "true",
    "KUBECONFIG": "/nowhere/config",
    "KUBERNETES_SERVICE_HOST": "127.0.0.1",
    "KUBERNETES_SERVICE_PORT": "9",
    "PGHOSTADDR": "127.0.0.9",
    "PGSERVICE": "another",
    "PGOPTIONS": "-c search_path=elsewhere",
    "PGTZ": "Asia/Tokyo",
    "PGDATESTYLE": "German",
    "AWS_PROFILE": "another",
    "AWS_ENDPOINT_URL": f"http://{NOWHERE}",
    "AWS_RETRY_MODE": "another",
    "AWS_REQUEST_CHECKSUM_CALCULATION": "another",
    "HTTP_PROXY": f"http://{NOWHERE}",
    "http_proxy": f"http://{NOWHERE}",
}


@pytest.fixture(scope="module")
def helm_program() -> str:
    """The real helm; found before a test moves the home directory with the cache in it."""
    return str(ensure(["helm"])["helm"])


@pytest.fixture
def hostile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A shell, a home and a working directory that lead elsewhere."""
    home = tmp_path / "home"
    (home / ".aws").mkdir(parents=True)
    (home / ".kube").mkdir()
    (home / ".aws/config").write_text(
        f"[default]\nregion = elsewhere\nendpoint_url = http://{NOWHERE}\n"
        "s3 =\n  use_accelerate_endpoint = true\n",
        encoding="utf-8",
    )
    (home / ".kube/config").write_text("current-context: other", encoding="utf-8")
    for name, value in HOSTILE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(home))
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(home)
    return home


class Recorder(BaseHTTPRequestHandler):
    """Answers what helm, an S3 client and a browser ask first, and notes who asked what."""

    asked: list[tuple[str, str]]

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers.get("Authorization", "")))
        version = b'{"major": "1", "minor": "36", "gitVersion": "v1.36.3"}'
        body = (
            version if self.path.startswith("/version") else b'{"kind": "SecretList", "items": []}'
        )
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.asked.append((self.path, self.headers.get("Authorization", "")))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def recorder() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    asked: list[tuple[str, str]] = []
    handler = type("Handler", (Recorder,), {"asked": asked})
    server = HTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def target_of(address: str, directory: Path) -> Target:
    file = directory / "ours"
    file.write_text(
        "current-context: here\n"
        "contexts: [{name: here, context: {cluster: c, user: u}}]\n"
        f"clusters: [{{name: c, cluster: {{server: '{address}'}}}}]\n"
        "users: [{name: u, user: {token: ours}}]\n",
        encoding="utf-8",
    )
    names: dict[str, Any] = {"namespace": "a", "control_namespace": "b", "verify_namespace": "c"}
    return find_target(KubernetesSettings(kubeconfig=file, **names))


def test_helm_asks_the_cluster_namespace_and_record_store_that_python_asks(
    helm_program: str, hostile: Path, tmp_path: Path
) -> None:
    with recorder() as (address, asked):
        command = Command(helm_program, environ=helm_environ(), cancellation=Cancellation())
        helm = Helm(command, target_of(address, tmp_path), tmp_path)
        helm.uninstall("redis-cluster", "engines", timeout=20)
    records = [path for path, _ in asked if "owner" in path]
    assert records, asked
    assert all(path.startswith("/api/v1/namespaces/engines/secrets?") for path in records), asked
    assert {token for path, token in asked} <= {"Bearer ours", ""}


def test_a_program_gets_nothing_that_would_lead_it_elsewhere(hostile: Path) -> None:
    seen = Command("env", cancellation=Cancellation()).run(timeout=20).stdout
    names = {line.partition("=")[0] for line in seen.splitlines()}
    assert not {name for name in names if name.startswith(("HELM_", "PG", "KUBE"))}
    assert {"AWS_PROFILE", "HTTP_PROXY", "PATH", "HOME"} <= names, "what others need stays"


def test_helm_keeps_the_login_of_a_registry_from_the_shell() -> None:
    found = helm_environ({"HELM_REGISTRY_CONFIG": "/me/registry.json", "HELM_DRIVER": "sql"})
    assert found["HELM_REGISTRY_CONFIG"] == "/me/registry.json"
    assert found["HELM_DRIVER"] == "secret"


def test_libpq_adds_nothing_of_its_own_to_a_connection(hostile: Path) -> None:
    removed = clean_process()
    assert {"PGHOSTADDR", "PGSERVICE", "PGOPTIONS", "PGTZ", "HELM_DRIVER"} <= set(removed)
    for option in psycopg.pq.Conninfo.get_defaults():
        if option.envvar and option.envvar.startswith(b"PG"):
            assert option.envvar.decode() not in os.environ
            assert option.val in (None, b"", option.compiled) or option.keyword in (
                b"user",
                b"dbname",
            )


def test_the_object_store_is_the_one_of_the_settings(hostile: Path) -> None:
    with recorder() as (address, asked):
        client = session().client(
            "s3",
            endpoint_url=address,
            region_name="here",
            aws_access_key_id="ours",
            aws_secret_access_key="x",
            config=Config(s3={"addressing_style": "path"}, proxies={}),
        )
        client.head_bucket(Bucket="backups")
    ((path, authorization),) = asked
    assert path == "/backups"
    assert "Credential=ours/" in authorization and "/here/s3/" in authorization


def test_an_engine_is_never_asked_through_a_proxy(hostile: Path) -> None:
    with recorder() as (address, asked):
        settings: Any = type("Settings", (), {"kubernetes": None})
        with Access(settings, kube=None) as access:  # type: ignore[arg-type]
            assert access.http.get(f"{address}/healthz").status_code == 200
    assert [path for path, _ in asked] == ["/healthz"]


def test_a_child_does_not_lose_what_its_caller_gives_it() -> None:
    environ = {**child_environ({"PATH": os.environ["PATH"], "PGHOST": "x"}), "PGPASSWORD": "y"}
    assert (
        "PGPASSWORD=y"
        in Command("env", environ=environ, cancellation=Cancellation()).run(timeout=20).stdout
    )


def test_an_engine_s_program_gets_no_credential_of_ours() -> None:
    secrets = {
        "PREFECT_API_AUTH_STRING": "admin:x", "AWS_SECRET_ACCESS_KEY": "x", "ISA_BACKUP__STORE__SECRET_KEY": "x",
        "HTTPS_PROXY": "http://u:x@proxy", "PGPASSWORD": "x", "HELM_KUBETOKEN": "x", "KUBECONFIG": "x",
    }  # fmt: skip
    needed = {"PATH": "/bin", "HOME": "/root", "LC_ALL": "C", "TZ": "UTC"}
    assert program_environ({**secrets, **needed}) == needed
