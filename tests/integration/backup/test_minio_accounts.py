"""What MinIO's own import would change comes back as it was: accounts that are off, retentions of a default rule."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from minio.credentials.providers import StaticProvider
from minio.minioadmin import MinioAdmin

from components.access import Access, Endpoint
from components.minio import client as minio
from components.minio.admin.rights import documents_of

from .conftest import Restorer

pytestmark = pytest.mark.integration

ROBOT, GUEST, GROUP, LOCKED = "robot-key", "guest-key", "readers", "locked"


def server(access: Access) -> Endpoint:
    return access.endpoints(minio.STATEFULSET, 4, minio.PORT)[0]


def admin(access: Access) -> MinioAdmin:
    keys = (access.secret("minio-auth", name) for name in ("rootUser", "rootPassword"))
    return MinioAdmin(endpoint=server(access).url, credentials=StaticProvider(*keys), secure=False)


def statuses(access: Access) -> tuple[str, str, list[str]]:
    """Of the service account and the group, and who is in that."""
    found = documents_of(minio.admin(access, server(access), "export-iam").content)
    group = found["groups.json"][GROUP]
    return found["svcaccts.json"][ROBOT]["status"], group["status"], group["members"]


@pytest.fixture
def accounts(restorer: Restorer) -> Iterator[None]:
    """A service account that is switched off, one that ends in an hour, and a group that is disabled."""
    hour = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    with restorer.backups.access() as access:
        rights = admin(access)
        rights.add_service_account(access_key=ROBOT, secret_key="robot-secret")
        rights.update_service_account(access_key=ROBOT, status="off")
        rights.add_service_account(access_key=GUEST, secret_key="guest-secret", expiration=hour)
        rights.group_add(GROUP, ["analyst"])  # type: ignore[arg-type]
        rights.group_disable(GROUP)
    yield
    with restorer.backups.access() as access:
        rights = admin(access)
        for key in (ROBOT, GUEST):
            rights.delete_service_account(key)
        rights.group_remove(GROUP, ["analyst"])  # type: ignore[arg-type]
        rights.group_remove(GROUP)


@pytest.fixture
def locked(restorer: Restorer) -> Iterator[None]:
    """A bucket whose objects are locked for a day by its default rule."""
    retention = {"Mode": "GOVERNANCE", "Days": 1}
    rule = {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": retention}}
    with restorer.backups.access() as access:
        client = minio.connect(access, server(access))
        client.create_bucket(Bucket=LOCKED, ObjectLockEnabledForBucket=True)
        client.put_object_lock_configuration(Bucket=LOCKED, ObjectLockConfiguration=rule)
        client.put_object(Bucket=LOCKED, Key="a", Body=b"x", ChecksumAlgorithm="SHA256")
        yield
        for version in client.list_object_versions(Bucket=LOCKED)["Versions"]:
            place = {"Key": version["Key"], "VersionId": version["VersionId"]}
            client.delete_object(Bucket=LOCKED, BypassGovernanceRetention=True, **place)
        client.delete_bucket(Bucket=LOCKED)


def test_a_default_retention_and_accounts_that_are_off_pass_their_proof(
    restorer: Restorer, accounts: None, locked: None
) -> None:
    good = restorer.take("minio")
    counted = {
        m.item: m.count for m in good.fingerprint if m.unit in ("rights", f"bucket {LOCKED}")
    }
    assert counted["retentions"] == counted["svcaccts that expire"] == 1
    restorer.prove(good)


def test_who_was_switched_off_is_off_after_a_live_restore(
    restorer: Restorer, accounts: None
) -> None:
    good = restorer.take("minio")
    with restorer.backups.access() as access:
        rights = admin(access)
        rights.update_service_account(access_key=ROBOT, status="on")
        rights.group_enable(GROUP)
    (done,) = restorer.isa(good.id)["restores"]
    assert done["outcome"] == "restored", done
    with restorer.backups.access() as access:
        assert statuses(access) == ("off", "disabled", ["analyst"])
