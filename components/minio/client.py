"""Clients for one MinIO server: S3 and the admin API."""

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

from archive.object_store.endpoint import session
from calls import call
from components.access import Access, Endpoint

STATEFULSET = "minio"
PORT = 9000
REGION = "us-east-1"
# An object may have 2 KiB of metadata, each item a header `x-amz-meta-…`: about 160 headers (`maxUserDataSize` in
# minio/minio, cmd/generic-handlers.go). Python refuses answers with more than 100 headers.
ANSWER_HEADERS = 1000
http.client._MAXHEADERS = ANSWER_HEADERS  # type: ignore[attr-defined]


def connect(access: Access, server: Endpoint, *, attempts: int = 1, connections: int = 10) -> Any:
    """An S3 client for one server.

    Args:
        access: addresses and credentials.
        server: the server.
        attempts: attempts for each request.
        connections: largest number of parallel connections.
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
    """Send a request to the admin API, which `mc admin` uses.

    Args:
        access: addresses and credentials.
        server: the server.
        path: the path after `/minio/admin/v3/`.
        method: HTTP method.
        body: the request's body.
        query: parameters.

    Raises:
        httpx.HTTPStatusError: MinIO refuses the request.
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
    """The root user's secret key. Some bodies for the admin API must be encrypted with it."""
    return access.secret("minio-auth", "rootPassword")


def _keys(access: Access) -> tuple[str, str]:
    return access.secret("minio-auth", "rootUser"), root_password(access)


def _log_calls(client: Any, server: Endpoint) -> None:
    """Record each request with `calls.call`, by botocore's events."""

    def begin(model: Any, context: dict[str, Any], **_: Any) -> None:
        context["call"] = ExitStack()
        context["call"].enter_context(call(f"MinIO {server.member}: {model.name}"))

    def end(context: dict[str, Any], **_: Any) -> None:
        context["call"].close()

    client.meta.events.register("before-call", begin)
    client.meta.events.register("after-call", end)
    client.meta.events.register("after-call-error", end)
