"""The doctor asks everything, whatever breaks on the way, and fixes only what it was told to."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import ssl
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from components.base import Check
from errors import PermanentError
from operations.health.cluster_checks import (
    check_certificate,
    check_clock,
    check_gates,
    check_scratch,
    check_versions,
)
from operations.health.doctor import questions
from operations.health.findings import Finding, examine, fix
from operations.verify.scratch_pod import LABEL
from tests.environments import environment_with

from ..stored import Stored, environment_of

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def test_a_question_that_cannot_be_asked_is_a_finding_and_stops_no_other() -> None:
    def broken() -> Iterable[Finding]:
        raise PermanentError("refused")

    found = examine([("broken", broken), ("good", lambda: [Finding(Check("good", True))])])
    assert [(one.check.name, one.check.ok, one.check.hint) for one in found] == [
        ("broken", False, "refused"),
        ("good", True, ""),
    ]


def test_what_is_asked_of_the_store_stops_nothing_else_where_it_cannot_be_opened() -> None:
    def closed() -> None:
        raise PermanentError("there is no Secret infotrend-object")

    settings = SimpleNamespace(
        storage=SimpleNamespace(object=SimpleNamespace(endpoint="https://s3.example.com"))
    )
    kube = SimpleNamespace(server="https://k8s.example.com", version=lambda: "v1.36")
    asked = questions(environment_with(settings, kube=kube, open_store=closed))
    some = [one for one in asked if one[0] in ("Kubernetes", "object store", "proofs")]
    told = {one.check.name: one.check.hint for one in examine(some)}
    assert told == {
        "Kubernetes": "v1.36",
        **dict.fromkeys(("object store", "proofs"), "there is no Secret infotrend-object"),
    }


@pytest.mark.parametrize(("seconds", "ok"), [(0, True), (-4, True), (6, False), (-40, False)])
def test_a_clock_that_would_break_a_lease_is_told(seconds: int, ok: bool) -> None:
    (found,) = check_clock("Kubernetes", NOW + dt.timedelta(seconds=seconds), NOW)
    assert found.check.ok == ok
    assert ("behind" in found.check.hint) == (seconds >= 0)


def test_a_scratch_engine_that_began_since_is_not_removed() -> None:
    kube = Stored()

    def start(uid: str) -> None:
        metadata = {"name": "proof-redis-a", "uid": uid, "labels": {LABEL: "redis"}}
        kube.create({"kind": "Pod", "metadata": metadata, "spec": {}})

    start("old")
    found = list(check_scratch(environment_of(kube)))
    assert not found[0].check.ok
    kube.delete("v1", "Pod", "proof-redis-a")
    start("new")
    (after,) = fix(found)
    assert not after.check.ok
    assert "could not be fixed" in after.check.hint
    with environment_of(kube).lease("isa-verify-redis", "a proof"):
        assert next(check_scratch(environment_of(kube))).check.ok


def test_only_what_is_wrong_and_safe_is_fixed() -> None:
    done: list[str] = []

    def act(name: str) -> str:
        done.append(name)
        return name

    def refuse() -> str:
        raise PermanentError("HTTP 403")

    found = [
        Finding(Check("good", True), lambda: act("good")),
        Finding(Check("bad", False), lambda: act("bad")),
        Finding(Check("person", False, "somebody must act")),
        Finding(Check("forbidden", False, "two of them"), refuse),
    ]
    after = {one.check.name: one.check for one in fix(found)}
    assert done == ["bad"]
    assert after["bad"].ok
    assert after["bad"].hint == "fixed: bad"
    assert not after["person"].ok
    assert after["forbidden"].hint == "two of them; could not be fixed: HTTP 403"


def test_a_package_beside_its_pin_is_named(tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text("# why\n-r other.txt\nprefect==0.1\nclick>=8\nno-such-package>=1\n")
    (found,) = check_versions(file)
    own = importlib.metadata.version("prefect")
    assert not found.check.ok
    assert f"prefect is {own}, not ==0.1" in found.check.hint
    assert "no-such-package is none" in found.check.hint
    assert "click" not in found.check.hint


@pytest.mark.parametrize(
    ("days", "ok", "critical"), [(90, True, False), (29, False, False), (0, False, True)]
)
def test_a_certificate_is_told_in_time(
    days: int, ok: bool, critical: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "api")])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(NOW - dt.timedelta(days=1))
        .not_valid_after(NOW + dt.timedelta(days=days, hours=1))
        .sign(key, hashes.SHA256())
    )
    text = made.public_bytes(serialization.Encoding.PEM).decode()
    monkeypatch.setattr(ssl, "get_server_certificate", lambda where, timeout: text)
    (found,) = check_certificate("https://api.example:6443", NOW)
    assert (found.check.ok, found.check.critical) == (ok, critical)
    assert f"{days} days" in found.check.hint
    assert list(check_certificate("http://api.example", NOW)) == []


def test_an_engine_that_a_backup_has_stopped_is_no_reason_to_wake_anybody() -> None:
    platform = environment_of(Stored())
    down = SimpleNamespace(state="down", checks=(Check("members answer", False, "none"),))
    stopped: Any = SimpleNamespace(name="neo4j", ready=False, finding=down)
    with platform.lease("isa-backup-neo4j", "the night"):
        (found,) = check_gates(platform, lambda _: [stopped])
    assert (found.check.ok, found.check.critical) == (False, False)
    assert "a backup of it is running" in found.check.hint
    (found,) = check_gates(platform, lambda _: [stopped])
    assert found.check.critical
