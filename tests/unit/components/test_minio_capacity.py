"""A live restore deletes no bucket before it is known that MinIO takes what comes in its place."""

from __future__ import annotations

from typing import Any

from components.minio.capacity import refusals, usable_bytes

DRIVES, PARITY, DRIVE_BYTES = 4, 2, 1000


def info(
    used: int = 0, kms: str = "", kind: str = "Erasure", drives: int = DRIVES
) -> dict[str, Any]:
    """What `mc admin info` shows of four servers with a drive each, EC:2."""
    servers = [
        {"drives": [{"state": state, "totalspace": DRIVE_BYTES, "usedspace": used}]}
        for state in ["ok"] * drives + ["offline"] * (DRIVES - drives)
    ]
    services = {"kms": {}, "kmsStatus": [{"status": kms}] if kms else []}
    backend = {"backendType": kind, "standardSCParity": PARITY}
    return {"servers": servers, "services": services, "backend": backend}


def bucket(size: int, **about: Any) -> dict[str, Any]:
    return {"versioning": "", "object_lock": {}, "bytes": size, "encrypted": False, **about}


def refused(
    buckets: dict[str, dict[str, Any]],
    of: dict[str, Any],
    counted: dict[str, int] | None = None,
    there: tuple[str, ...] = (),
) -> list[str]:
    usage = {"bucketsUsageInfo": {name: {"size": size} for name, size in (counted or {}).items()}}
    return refusals(buckets, list(buckets), of, usage, there)


def test_drives_take_as_much_as_the_fullest_has_room_for_but_for_the_parity() -> None:
    assert usable_bytes(info(used=490)) == 500 * (DRIVES - PARITY)
    assert usable_bytes(info(used=490, drives=3)) == 500 * (DRIVES - PARITY)


def test_a_bucket_beyond_the_room_is_named_and_those_before_it_are_not() -> None:
    found = refused({"a": bucket(600), "b": bucket(401)}, info(used=490))
    assert found == ["bucket b: it has 401 bytes, and the drives have room for 400"]
    assert refused({"a": bucket(600), "b": bucket(400)}, info(used=490)) == []


def test_what_the_old_bucket_takes_is_room_for_the_new_one() -> None:
    full = info(used=990)
    assert refused({"a": bucket(700)}, full, {"a": 700}, there=("a",)) == []
    assert len(refused({"a": bucket(701)}, full, {"a": 700}, there=("a",))) == 1


def test_a_bucket_that_the_scanner_has_not_counted_yet_refuses_nothing() -> None:
    full = info(used=990)
    assert refused({"a": bucket(700)}, full, there=("a",)) == []
    assert len(refused({"a": bucket(700)}, full)) == 1


def test_objects_that_minio_encrypts_need_its_keys() -> None:
    encrypted = {"a": bucket(1, encrypted=True)}
    (reason,) = refused(encrypted, info())
    assert reason == "bucket a: it has objects encrypted with KMS keys, and this MinIO has no KMS"
    assert len(refused(encrypted, info(kms="offline"))) == 1
    assert refused(encrypted, info(kms="online")) == []
    earlier = {key: value for key, value in bucket(1).items() if key != "encrypted"}
    assert refused({"a": earlier}, info()) == []


def test_versions_need_a_server_that_keeps_them() -> None:
    plain = info(kind="FS")
    assert len(refused({"a": bucket(1, versioning="Enabled")}, plain)) == 1
    assert refused({"a": bucket(1)}, plain) == []
