"""How MinIO is asked: S3 and its admin API, each of one server."""

from __future__ import annotations

import http.client
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlencode

import httpx
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials

from archive.endpoint import session
from calls import call
from components.access import Access, Endpoint

STATEFULSET = "minio"
PORT = 9000
REGION = "us-east-1"
# An object may have 2 KiB of its client's metadata, each piece a header whose name begins with `x-amz-meta-`: some 160
# (`maxUserDataSize` in minio/minio, cmd/generic-handlers.go). Python reads 100 headers of an answer and refuses more.
ANSWER_HEADERS = 1000
http.client._MAXHEADERS = ANSWER_HEADERS  # type: ignore[attr-defined]


def connect(access: Access, server: Endpoint, *, attempts: int = 1, connections: int = 10) -> Any:
    """An S3 client of one server.

    Args:
        access: the way in.
        server: which one.
        attempts: tries of each request.
        connections: at the same time.
    """
    user, password = _keys(access)
    client = session().client(
        "s3",
        endpoint_url=f"http://{server.url}",
        region_name=REGION,
        aws_access_key_id=user,
        aws_secret_access_key=password,
        config=Config(
            s3={"addressing_style": "path"},
            proxies={},  # an address of a pod, or loopback
            connect_timeout=access.timeout_seconds,
            read_timeout=access.timeout_seconds,
            retries={"mode": "standard", "total_max_attempts": attempts},
            max_pool_connections=connections,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )
    _log_calls(client, server)
    return client


def admin(
    access: Access,
    server: Endpoint,
    path: str,
    *,
    method: str = "GET",
    body: bytes = b"",
    **query: str,
) -> httpx.Response:
    """Ask the admin API, which `mc admin` uses.

    Args:
        access: the way in.
        server: which one.
        path: behind `/minio/admin/v3/`.
        method: of HTTP.
        body: of the request.
        query: parameters.

    Raises:
        httpx.HTTPStatusError: it refuses.
    """
    credentials = Credentials(*_keys(access))
    tail = f"?{urlencode(query)}" if query else ""
    url = f"http://{server.url}/minio/admin/v3/{path}{tail}"
    request = AWSRequest(method, url, data=body)
    S3SigV4Auth(credentials, "s3", REGION).add_auth(request)
    headers = dict(request.headers.items())
    answer = access.http.request(method, url, content=body, headers=headers)
    return answer.raise_for_status()


def health(access: Access, server: Endpoint, path: str) -> int:
    """Status of a health endpoint (minio/minio: docs/metrics/healthcheck)."""
    return access.http.get(f"http://{server.url}/minio/health/{path}").status_code


def root_password(access: Access) -> str:
    """Secret key of the root user; MinIO's admin API wants some bodies encrypted with it."""
    return access.secret("minio-auth", "rootPassword")


def _keys(access: Access) -> tuple[str, str]:
    return access.secret("minio-auth", "rootUser"), root_password(access)


def _log_calls(client: Any, server: Endpoint) -> None:
    """Make each request a call of this process, by botocore's events."""

    def begin(model: Any, context: dict[str, Any], **_: Any) -> None:
        context["call"] = ExitStack()
        context["call"].enter_context(call(f"MinIO {server.member}: {model.name}"))

    def end(context: dict[str, Any], **_: Any) -> None:
        context["call"].close()

    client.meta.events.register("before-call", begin)
    client.meta.events.register("after-call", end)
    client.meta.events.register("after-call-error", end)
