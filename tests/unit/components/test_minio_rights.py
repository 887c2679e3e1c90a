"""Rights come back as they were, and no rotated secret key with them, though MinIO's import changes some of them."""

from __future__ import annotations

import io
import json
import zipfile
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import httpx
import pytest
from minio.crypto import decrypt

from components.minio.admin import rights
from components.minio.admin.exports import measure_rights
from components.minio.admin.rights import complete, importable, of_the_set, with_live_keys
from operations.verify.comparison import compare
from tests.archives import zipped


def export(**files: Any) -> bytes:
    return zipped(
        {f"iam-assets/{name}.json": json.dumps(document) for name, document in files.items()}
    )


def opened(archive: bytes) -> dict[str, Any]:
    with zipfile.ZipFile(io.BytesIO(archive)) as found:
        return {
            name.removeprefix("iam-assets/").removesuffix(".json"): json.loads(found.read(name))
            for name in found.namelist()
        }


THEN: dict[str, Any] = {
    "policies": {"reader": {"Version": "2012-10-17"}},
    "users": {
        "analyst": {"secretKey": "analyst-then", "status": "enabled"},
        "leaver": {"secretKey": "leaver-then", "status": "disabled"},
    },
    "groups": {"readers": {"members": ["analyst"]}},
    "svcaccts": {
        "robot": {"parent": "analyst", "secretKey": "robot-then"},
        "dump": {"parent": "leaver", "secretKey": "dump-then"},
    },
    "user_mappings": None,
}
NOW = {
    "users": {"analyst": {"secretKey": "analyst-now", "status": "disabled"}},
    "svcaccts": {"robot": {"parent": "analyst", "secretKey": "robot-now"}},
}


def test_whoever_is_there_keeps_his_secret_key_and_gets_the_sets_rights() -> None:
    made, _ = with_live_keys(export(**THEN), export(**NOW))
    found = opened(made)
    assert found["users"]["analyst"] == {"secretKey": "analyst-now", "status": "enabled"}
    assert found["svcaccts"]["robot"] == {"parent": "analyst", "secretKey": "robot-now"}
    same = ("policies", "groups", "user_mappings")
    assert [found[name] for name in same] == [THEN[name] for name in same]


def test_whoever_is_gone_comes_back_with_the_sets_secret_key_and_is_named() -> None:
    made, gone = with_live_keys(export(**THEN), export(**NOW))
    found = opened(made)
    assert gone == ["dump", "leaver"]
    assert found["users"]["leaver"] == THEN["users"]["leaver"]
    assert found["svcaccts"]["dump"] == THEN["svcaccts"]["dump"]


def test_a_minio_that_never_had_users_gets_those_of_the_set() -> None:
    made, gone = with_live_keys(export(**THEN), export(users=None, svcaccts={}))
    assert opened(made) == THEN
    assert gone == ["analyst", "dump", "leaver", "robot"]


def test_a_policy_that_somebody_has_got_since_is_taken_away() -> None:
    then = {**THEN, "user_mappings": {"leaver": {"policy": "reader"}}, "group_mappings": {}}
    now = {
        **NOW,
        "user_mappings": {"analyst": {"policy": "admin"}, "new": {"policy": "admin"}},
        "group_mappings": {"readers": {"policy": "admin"}},
    }
    made, _ = with_live_keys(export(**then), export(**now))
    none = {"version": 1, "policy": ""}
    assert opened(made)["user_mappings"] == {"leaver": {"policy": "reader"}, "analyst": none}
    assert opened(made)["group_mappings"] == {"readers": none}


TIME = datetime(2026, 1, 1, tzinfo=UTC)


def ending(minutes: int, **about: Any) -> dict[str, Any]:
    """A service account that ends so many minutes later."""
    end = TIME + timedelta(minutes=minutes)
    return {"parent": "analyst", "secretKey": "s", "expiration": end.isoformat(), **about}


def test_a_service_account_whose_end_minio_does_not_take_any_more_is_left_out_and_named() -> None:
    endless = {"parent": "analyst", "expiration": "1970-01-01T00:00:00Z"}
    accounts = {"over": ending(-1), "soon": ending(15), "later": ending(17), "endless": endless}
    made, over = importable(export(**{**THEN, "svcaccts": accounts}), TIME)
    assert over == ["over", "soon"]
    assert sorted(opened(made)["svcaccts"]) == ["endless", "later"]
    assert opened(made)["users"] == THEN["users"]


def test_a_service_account_that_was_prolonged_keeps_its_end() -> None:
    then, now = {"guest": ending(1)}, {"guest": ending(999)}
    made, _ = with_live_keys(export(svcaccts=then), export(svcaccts=now))
    assert opened(made)["svcaccts"] == now


def test_a_service_account_that_ends_may_be_gone_and_the_others_may_not() -> None:
    with_end = {"robot": {"parent": "analyst"}, "guest": ending(1)}
    without = {"robot": {"parent": "analyst"}}

    def differences(there: dict[str, Any]) -> list[str]:
        wanted = measure_rights(export(svcaccts=with_end))
        return [one.item for one in compare(wanted, {"": measure_rights(export(svcaccts=there))})]

    assert differences(with_end) == differences(without) == []
    assert differences({"guest": ending(1)}) == ["svcaccts"]


class Server:
    """MinIO's admin API, as far as it tells and sets who may what.

    Args:
        files: of the export that it gives.
    """

    def __init__(self, **files: Any) -> None:
        self.files = files
        self.asked: list[tuple[str, dict[str, str], Any]] = []

    def admin(
        self,
        access: Any,
        server: Any,
        path: str,
        *,
        method: str = "GET",
        body: bytes = b"",
        **query: str,
    ) -> httpx.Response:
        if path == "export-iam":
            return httpx.Response(200, content=export(**self.files))
        if path == "update-service-account":
            answer = cast(Any, io.BytesIO(body))
            answer.release_conn = lambda: None
            self.asked.append((path, query, json.loads(decrypt(answer, "root"))))
        else:
            self.asked.append((path, query, json.loads(body) if body else None))
        return httpx.Response(200)


class Root:
    """The way in: the root user's password."""

    def secret(self, name: str, key: str) -> str:
        return "root"


def completed(monkeypatch: pytest.MonkeyPatch, then: dict[str, Any], **now: Any) -> Server:
    server = Server(**now)
    monkeypatch.setattr(rights, "admin", server.admin)
    complete(cast(Any, Root()), cast(Any, None), export(**then))
    return server


def test_who_was_switched_off_is_off_again_and_who_was_no_member_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    then = {
        "svcaccts": {"robot": {"status": "off"}, "dump": {"status": "on"}},
        "groups": {"readers": {"status": "disabled", "members": ["a"]}},
    }
    imported = {
        "svcaccts": {"robot": {"status": "on"}, "dump": {"status": "on"}},
        "groups": {"readers": {"status": "enabled", "members": ["a", "b"]}},
    }
    assert completed(monkeypatch, then, **imported).asked == [
        ("update-service-account", {"accessKey": "robot"}, {"newStatus": "off"}),
        ("set-group-status", {"group": "readers", "status": "disabled"}, None),
        ("update-group-members", {}, {"group": "readers", "members": ["b"], "isRemove": True}),
    ]
    assert completed(monkeypatch, then, **then).asked == []


def test_what_somebody_got_since_is_compared_with_the_set_and_what_is_new_is_not() -> None:
    then = {"users": {"a": {}}, "user_mappings": {}, "policies": {"reader": {"x": 1}}}
    now = {
        "users": {"a": {}, "new": {}},
        "user_mappings": {"a": {"policy": "admin"}, "new": {"policy": "admin"}},
        "policies": {"reader": {"x": 1}, "added": {}},
    }
    kept = of_the_set(export(**now), export(**then))
    assert opened(kept) == {**then, "user_mappings": {"a": {"policy": "admin"}}}
