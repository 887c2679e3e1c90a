"""What the API server refuses is told by its cause: who asks, what he may do, or that the namespace is going."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.command import Completed
from cluster.helm.client import Helm
from cluster.kube import Kube, Terminating, Unauthenticated
from cluster.target import Target
from errors import PermanentError, TemporaryError

# As apiserver/pkg/admission/plugin/namespace/lifecycle/admission.go answers a create.
TERMINATING = {
    "message": 'leases "isa-deploy" is forbidden: unable to create new content in namespace isa because it is being '
    "terminated",
    "reason": "Forbidden",
    "details": {
        "causes": [
            {
                "reason": "NamespaceTerminating",
                "message": "namespace isa is being terminated",
                "field": "metadata.namespace",
            }
        ]
    },
}
RBAC = {"message": 'secrets is forbidden: User "x" cannot list resource "secrets"', "details": {}}
UNKNOWN = {"message": "Unauthorized", "reason": "Unauthorized"}


@pytest.fixture
def server() -> Iterator[SimpleNamespace]:
    answer = SimpleNamespace(status=200, body={})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(answer.body).encode()
            self.send_response(answer.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    http = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
    answer.address = f"http://127.0.0.1:{http.server_port}"
    yield answer
    http.shutdown()
    http.server_close()


def kube(server: SimpleNamespace) -> Kube:
    document = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
        "clusters": [{"name": "c", "cluster": {"server": server.address}}],
        "users": [{"name": "c", "user": {}}],
    }
    return Kube(Target(document), patience=0.0)


def refusal(server: SimpleNamespace, status: int, body: dict[str, Any]) -> Exception:
    server.status, server.body = status, body
    with pytest.raises((PermanentError, TemporaryError)) as caught:
        kube(server).request("GET", "/api/v1/secrets")
    return caught.value


def test_an_expired_token_is_no_lacking_right(server: SimpleNamespace) -> None:
    told = refusal(server, 401, UNKNOWN)
    assert isinstance(told, Unauthenticated)
    assert "has expired" in str(told) and "right" not in str(told)


def test_a_lacking_right_is_no_expired_token(server: SimpleNamespace) -> None:
    told = refusal(server, 403, RBAC)
    assert "do not have this permission" in str(told) and "expired" not in str(told)


def test_a_namespace_that_is_being_deleted_is_waited_for_and_asks_nobody_for_a_right(
    server: SimpleNamespace,
) -> None:
    told = refusal(server, 403, TERMINATING)
    assert isinstance(told, Terminating) and "is being deleted" in str(told)
    assert "right" not in str(told)


@pytest.mark.parametrize("body", [{}, {"details": None}, {"details": {"causes": None}}])
def test_a_refusal_without_details_is_one(server: SimpleNamespace, body: dict[str, Any]) -> None:
    assert "HTTP 403" in str(refusal(server, 403, body))


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        ("Error: the server has asked for the client to provide credentials", PermanentError, "has expired"),
        ("Error: no new content in namespace isa because it is being terminated", TemporaryError, "terminated"),
    ],
)  # fmt: skip
def test_helms_words_for_it_mean_the_same(error: str, kind: type[Exception], words: str) -> None:
    command: Any = SimpleNamespace(run=lambda *_, **__: Completed((), 1, "", error, 0.1))
    helm = Helm(command=command, target=Target({}), charts=None)  # type: ignore[arg-type]
    with pytest.raises(kind, match=words):
        helm.rollback("redis", "isa", 1, timeout=5)
