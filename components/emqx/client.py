"""How one node's management API is asked: as the dashboard's administrator.

An API key would do for most, but from 6.0.3 on what it exports lacks dashboard users and API keys, without a word.
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
from config.urls import path_part

STATEFULSET = "emqx"
API_PORT, MQTT_PORT = 18083, 1883
SECRET, USER, PASSWORD = "emqx-auth", "isa", "EMQX_DASHBOARD__DEFAULT_PASSWORD"
USERS = "/authentication/password_based:built_in_database/users"
FILES = "/data/files"
PAGE, PIECE_BYTES = 1000, 1 << 20
PAGES = 10_000  # of one list: ten million rows, more than are held in memory


@dataclass(frozen=True)
class Api:
    """The API of a node, signed on.

    Attributes:
        http: client.
        base: address of the API.
        headers: what lets a request in.
    """

    http: httpx.Client
    base: str
    headers: dict[str, str]

    def __call__(self, method: str, path: str, body: Any = None, **more: Any) -> httpx.Response:
        """Ask: method, path, body, and httpx' further arguments."""
        url = self.base + path
        return self.http.request(method, url, json=body, headers=self.headers, **more)

    def upload(self, path: str, files: Any, limit: float) -> httpx.Response:
        """Send files as a form does."""
        url = self.base + path
        return self.http.post(url, files=files, headers=self.headers, timeout=limit)

    def download(self, path: str, stall: float) -> Iterator[bytes]:
        """A file's pieces as they come; gives up after so many seconds of silence."""
        limits = httpx.Timeout(stall)
        with self.http.stream(
            "GET", self.base + path, headers=self.headers, timeout=limits
        ) as answer:
            yield from answer.raise_for_status().iter_raw(PIECE_BYTES)


def sign_on(access: Access, node: Endpoint, user: str = USER) -> Api:
    """Sign on as the dashboard's administrator.

    Args:
        access: the way in.
        node: which one.
        user: the administrator's name.

    Raises:
        PermissionError: the password is refused.
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
    """All rows of a list, whether it comes in pages, whole, or as one; none where there is no such list.

    Raises:
        NoProgress: the pages do not end.
        httpx.HTTPError: EMQX does not answer.
    """
    seen: set[int] = set()
    for page in range(1, PAGES + 1):
        answer = api("GET", f"{path}?page={page}&limit={PAGE}")
        if answer.status_code == 404:
            return
        found = answer.raise_for_status().json()
        if isinstance(found, list):
            yield from found
            return
        if "data" not in found:
            yield found
            return
        yield from found["data"]
        meta = found.get("meta", {})
        if not meta.get("hasnext", page * PAGE < int(meta.get("count", 0))):
            return
        content = hash_of(found["data"])
        if content in seen or not found["data"]:
            raise NoProgress(
                f"EMQX gives page {page} of {path} empty or a second time, and more behind it"
            )
        seen.add(content)
    raise NoProgress(f"EMQX has more than {PAGES} pages of {PAGE} rows of {path}")


def make_archive(api: Api, seconds: float) -> dict[str, Any]:
    """Have a data export made; it lies on one node, under `filename` and `node`, until it is removed.

    Args:
        api: the administrator's.
        seconds: limit.

    Raises:
        httpx.HTTPError: EMQX does not answer, or refuses.
    """
    made: dict[str, Any] = (
        api("POST", "/data/export", {}, timeout=seconds).raise_for_status().json()
    )
    return made


def archive_path(archive: Mapping[str, Any]) -> str:
    """Where an archive is read and removed, by its `filename` and `node`."""
    return f"{FILES}/{path_part(str(archive['filename']))}?node={path_part(str(archive['node']))}"


def remove_uploads(api: Api, stem: str, older_than: float = 0.0) -> None:
    """Remove archives whose names begin so, on every node: an import by a replicant leaves a copy on a core node.

    Args:
        api: the administrator's.
        stem: beginning of their names.
        older_than: seconds; younger ones may be those of a run that goes on.

    Raises:
        httpx.HTTPError: EMQX does not answer.
    """
    for row in list(rows(api, FILES)):
        age = time.time() - float(row.get("created_at_sec", 0))
        if str(row["filename"]).startswith(stem) and age >= older_than:
            api("DELETE", archive_path(row))
