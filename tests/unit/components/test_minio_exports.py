"""What MinIO does not take of its own exports is told, and what a bucket lost of its settings has a name."""

from __future__ import annotations

import io
import json
import zipfile
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from components.access import Access, Endpoint
from components.minio.admin import exports
from components.minio.admin.exports import (
    import_zip,
    measure_settings,
    some_settings,
    without_lapsed_rules,
)
from errors import PermanentError
from operations.verify.comparison import compare
from tests.archives import zipped

POLICY = {"Statement": [{"Action": ["s3:GetObject", "s3:ListBucket"]}]}
LIFECYCLE = "<LifecycleConfiguration><Rule/>{}</LifecycleConfiguration>"
FILES = {
    "documents/policy.json": json.dumps(POLICY),
    "documents/lifecycle.xml": LIFECYCLE.format("<ExpiryUpdatedAt>2026</ExpiryUpdatedAt>"),
    "documents/notification.xml": "<NotificationConfiguration/>",
    "documents/bucket-encryption.xml": "<SSE><KMSMasterKeyID>theirs</KMSMasterKeyID></SSE>",
    "exports/quota.json": json.dumps({"quota": 9}),
    "another/quota.json": json.dumps({"quota": 9}),
}


def differences(files: dict[str, str]) -> list[str]:
    buckets = ("documents", "exports")
    saved = measure_settings(zipped(FILES), buckets)
    return [one.what for one in compare(saved, {"": measure_settings(zipped(files), buckets)})]


def test_a_setting_that_did_not_come_back_is_named() -> None:
    lost = {name: text for name, text in FILES.items() if name != "documents/policy.json"}
    assert differences(lost) == ["1 instead of 2: missing policy.json"]
    changed = {**FILES, "exports/quota.json": json.dumps({"quota": 8})}
    assert differences(changed) == ["same number (1), but different contents: other quota.json"]


def test_order_times_of_writing_and_what_names_other_servers_are_no_difference() -> None:
    actions = {"Statement": [{"Action": ["s3:ListBucket", "s3:GetObject"]}]}
    there = {
        **FILES,
        "documents/policy.json": json.dumps(actions),
        "documents/lifecycle.xml": LIFECYCLE.format("<ExpiryUpdatedAt>2027</ExpiryUpdatedAt>"),
        "documents/notification.xml": "<NotificationConfiguration><Queue/></NotificationConfiguration>",
    }
    assert differences(there) == []


def imported(monkeypatch: pytest.MonkeyPatch, **documents: Any) -> list[str]:
    answer = SimpleNamespace(content=b"{}", json=lambda: {"buckets": {"documents": documents}})
    monkeypatch.setattr(exports, "admin", lambda *_, **__: answer)
    return import_zip(cast(Access, None), cast(Endpoint, None), "import-bucket-metadata", b"")


def test_queues_keys_and_tiers_that_are_not_known_here_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refused = {"isSet": True, "error": "ARN 'arn:minio:sqs::1:webhook' not found"}
    key = {"isSet": False, "error": "key does not exist"}
    tier = {"isSet": True, "error": "Specified remote tier was not found"}
    found = imported(
        monkeypatch, notification=refused, sse=key, lifecycle=tier, quota={"isSet": True}
    )
    assert [words.partition(":")[0] for words in found] == [
        "notification of bucket documents",
        "sse of bucket documents",
        "lifecycle of bucket documents",
    ]


def test_any_other_refusal_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PermanentError, match="1 entries rejected"):
        imported(monkeypatch, policy={"isSet": False, "error": "invalid policy"})


def rule(name: str, end: str) -> str:
    """A rule of a lifecycle, as MinIO exports it."""
    return f"<Rule><ID>{name}</ID><Status>Enabled</Status><Expiration>{end}</Expiration></Rule>"


def names(archive: bytes) -> dict[str, str]:
    with zipfile.ZipFile(io.BytesIO(archive)) as found:
        return {name: found.read(name).decode() for name in found.namelist()}


def test_a_rule_whose_date_has_come_deletes_nothing_that_was_just_restored() -> None:
    days, past = rule("days", "<Days>1</Days>"), rule("past", "<Date>2026-01-01T00:00:00Z</Date>")
    future = rule("future", "<Date>2027-01-01T00:00:00Z</Date>")
    lifecycle = "<LifecycleConfiguration>{}</LifecycleConfiguration>"
    made, left = without_lapsed_rules(
        zipped(
            {
                "both/lifecycle.xml": lifecycle.format(days + past + future),
                "past/lifecycle.xml": lifecycle.format(past),
                "past/quota.json": "{}",
            }
        ),
        datetime(2026, 6, 1, tzinfo=UTC),
    )
    assert names(made) == {
        "both/lifecycle.xml": lifecycle.format(days + future),
        "past/quota.json": "{}",
    }
    assert [words.split(",")[0] for words in left] == [
        "a lifecycle rule of bucket both",
        "a lifecycle rule of bucket past",
    ]


def test_settings_are_imported_of_some_buckets_or_without_some_files() -> None:
    chosen = some_settings(zipped(FILES), lambda bucket, file: bucket == "exports")
    assert list(names(chosen)) == ["exports/quota.json"]
