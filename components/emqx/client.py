"""Client for the management API of one node, as the dashboard's administrator.

An API key is not enough: since 6.0.3 its exports silently lack dashboard users and API keys.
https://docs.emqx.com/en/emqx/latest/admin/api.html
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from components.access import Access, Endpoint
from components.digest import hash_of
from components.http import NoProgress
from config.text.urls import path_part

STATEFULSET = "emqx"
API_PORT, MQTT_PORT = 18083, 1883
SECRET, USER, PASSWORD = "emqx-auth", "isa", "EMQX_DASHBOARD__DEFAULT_PASSWORD"
USERS = "/authentication/password_based:built_in_database/users"
FILES = "/data/files"
PAGE, PIECE_BYTES = 1000, 1 << 20
PAGES = 10_000  # limit for one list: ten million rows


@dataclass(frozen=True)
class Api:
    """The API of a node, after login.

    Attributes:
        http: the HTTP client.
        base: address of the API.
        headers: headers with the login's token.
    """

    http: httpx.Client
    base: str
    headers: dict[str, str]

    def __call__(
        self, method: str, path: str, body: Any = None, **arguments: Any
    ) -> httpx.Response:
        """Send a request, with further arguments for httpx."""
        url = self.base + path
        return self.http.request(method, url, json=body, headers=self.headers, **arguments)

    def upload(self, path: str, files: Any, limit: float) -> httpx.Response:
        """Send files as a form."""
        url = self.base + path
        return self.http.post(url, files=files, headers=self.headers, timeout=limit)

    def download(self, path: str, stall: float) -> Iterator[bytes]:
        """Stream a file. `stall` is the time limit in seconds for each piece."""
        limits = httpx.Timeout(stall)
        with self.http.stream(
            "GET", self.base + path, headers=self.headers, timeout=limits
        ) as answer:
            yield from answer.raise_for_status().iter_raw(PIECE_BYTES)


def sign_on(access: Access, node: Endpoint, user: str = USER) -> Api:
    """Log in as the dashboard's administrator.

    Args:
        access: addresses and credentials.
        node: the node.
        user: the administrator's name.

    Raises:
        PermissionError: EMQX refuses the password.
        httpx.HTTPError: the node does not answer.
    """
    password = access.secret(SECRET, PASSWORD)
    base = f"http://{node.url}/api/v5"
    answer = access.http.post(f"{base}/login", json={"username": user, "password": password})
    if answer.status_code == 401:
        raise PermissionError(f"{node.member}: {answer.json().get('code', 'unauthorized')}")
    token = answer.raise_for_status().json()["token"]
    return Api(access.http, base, {"authorization": f"Bearer {token}"})


def rows(api: Api, path: str) -> Iterator[dict[str, Any]]:
    """All rows of a list. The answer may be paged, a whole list, or one row; a list that does not exist has no rows.

    Raises:
        NoProgress: the pages do not end.
        httpx.HTTPError: EMQX does not answer.
    """
    hashes: set[int] = set()
    for page in range(1, PAGES + 1):
        answer = api("GET", f"{path}?page={page}&limit={PAGE}")
        if answer.status_code == 404:
            return
        reply = answer.raise_for_status().json()
        if isinstance(reply, list):
            yield from reply
            return
        if "data" not in reply:
            yield reply
            return
        yield from reply["data"]
        meta = reply.get("meta", {})
        if not meta.get("hasnext", page * PAGE < int(meta.get("count", 0))):
            return
        content = hash_of(reply["data"])
        if content in hashes or not reply["data"]:
            raise NoProgress(
                f"EMQX gives page {page} of {path} empty or a second time, and more behind it"
            )
        hashes.add(content)
    raise NoProgress(f"EMQX has more than {PAGES} pages of {PAGE} rows of {path}")


def make_archive(api: Api, seconds: float) -> dict[str, Any]:
    """Create a data export. It stays on one node (`filename` and `node` of the result) until it is removed.

    Args:
        api: the administrator's API.
        seconds: time limit.

    Raises:
        httpx.HTTPError: EMQX does not answer, or refuses.
    """
    archive: dict[str, Any] = (
        api("POST", "/data/export", {}, timeout=seconds).raise_for_status().json()
    )
    return archive


def archive_path(archive: Mapping[str, Any]) -> str:
    """The path of an archive, from its `filename` and `node`."""
    return f"{FILES}/{path_part(str(archive['filename']))}?node={path_part(str(archive['node']))}"


def remove_uploads(api: Api, stem: str, older_than: float = 0.0) -> None:
    """Remove uploaded archives on every node: an import by a replicant leaves a copy on a core node.

    Args:
        api: the administrator's API.
        stem: prefix of their names.
        older_than: age in seconds; younger archives may belong to a running import.

    Raises:
        httpx.HTTPError: EMQX does not answer.
    """
    for row in list(rows(api, FILES)):
        age = time.time() - float(row.get("created_at_sec", 0))
        if str(row["filename"]).startswith(stem) and age >= older_than:
            api("DELETE", archive_path(row))
