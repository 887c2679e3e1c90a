"""A restore into the live MinIO brings no rotated secret key back."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

from components.minio.rights import with_live_keys


def export(**files: Any) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, document in files.items():
            archive.writestr(f"iam-assets/{name}.json", json.dumps(document))
    return made.getvalue()


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
