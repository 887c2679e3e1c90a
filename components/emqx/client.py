"""How one node's management API is asked: as the dashboard's administrator.

An API key would do for most, but from 6.0.3 on what it exports lacks dashboard users and API keys, without a word.
https://docs.emqx.com/en/emqx/latest/admin/api.html
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import httpx

from components.access import Access, Endpoint

STATEFULSET = "emqx"
API_PORT, MQTT_PORT = 18083, 1883
USER = "isa"
USERS = "/authentication/password_based:built_in_database/users"
PAGE = 1000

Api = Callable[..., httpx.Response]


def sign_on(access: Access, node: Endpoint) -> Api:
    """Sign on; returns what asks the API: method, path, body, and httpx' further arguments.

    Raises:
        PermissionError: the password is refused.
        httpx.HTTPError: the node does not answer.
    """
    password = access.secret("emqx-auth", "EMQX_DASHBOARD__DEFAULT_PASSWORD")
    base = f"http://{node.url}/api/v5"
    answer = access.http.post(f"{base}/login", json={"username": USER, "password": password})
    if answer.status_code == 401:
        raise PermissionError(f"{node.member}: {answer.json().get('code', 'unauthorized')}")
    headers = {"authorization": f"Bearer {answer.raise_for_status().json()['token']}"}

    def call(method: str, path: str, body: Any = None, **more: Any) -> httpx.Response:
        return access.http.request(method, base + path, json=body, headers=headers, **more)

    return call


def rows(api: Api, path: str) -> Iterator[dict[str, Any]]:
    """All rows of a list, whether it comes in pages or whole; none where there is no such list."""
    page = 1
    while True:
        answer = api("GET", f"{path}?page={page}&limit={PAGE}")
        if answer.status_code == 404:
            return
        found = answer.raise_for_status().json()
        if isinstance(found, list):
            yield from found
            return
        yield from found["data"]
        meta = found.get("meta", {})
        if not meta.get("hasnext", page * PAGE < int(meta.get("count", 0))):
            return
        page += 1


def quoted(part: str) -> str:
    """A part of a path."""
    return quote(part, safe="")
