"""What a backup needs is tried before any engine is asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyrage
import pytest

from archive.backup.manifest import Capabilities
from errors import ConfigurationError, PermanentError
from operations.backup import prerequisites
from operations.backup.prerequisites import check_store
from tests.environments import environment_with

RECIPIENT = str(pyrage.x25519.Identity.generate().to_public())
Check = Callable[..., Capabilities]


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    """Tries a store that has object lock, or none."""

    def tried(*, lock: bool = True, **backup: Any) -> Capabilities:
        found = Capabilities(
            conditional_put=True, checksums=True, versioning=True, object_lock=lock
        )
        store = SimpleNamespace(address="https://s3.example/backups")

        def self_test(given: object, environment: str) -> Capabilities:
            assert (given, environment) == (store, "test")
            return found

        monkeypatch.setattr(prerequisites, "self_test", self_test)
        known = {"age_recipients": (RECIPIENT,), "spool": tmp_path / "spool", "object_lock_days": 0}
        settings = SimpleNamespace(
            environment="test", backup=SimpleNamespace(**{**known, **backup})
        )
        return check_store(environment_with(settings, store=store))

    return tried


def test_what_the_store_can_do_is_told(check: Check) -> None:
    assert check().object_lock
    assert not check(lock=False).object_lock


@pytest.mark.parametrize("recipient", ["", "age1moon", "AGE-SECRET-KEY-1X"])
def test_what_is_no_public_key_is_refused_without_quoting_it(recipient: str, check: Check) -> None:
    with pytest.raises(ConfigurationError) as refused:
        check(age_recipients=(RECIPIENT, f"{recipient}0123456789abcdef"))
    (fault,) = refused.value.faults
    assert str(fault).startswith("backup.age_recipients: ")
    assert f"{recipient}0123456789abcdef"[:12] + "… is not an age public key" in str(fault)
    assert "89abcdef" not in str(fault)
    assert "age-keygen makes a pair" in str(fault)


def test_a_spool_that_cannot_be_written_is_named(check: Check, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(PermanentError, match=r"file/spool cannot be created: "):
        check(spool=tmp_path / "file" / "spool")


def test_locks_need_a_bucket_that_was_made_with_them(check: Check) -> None:
    assert check(object_lock_days=30)
    with pytest.raises(PermanentError, match=r"backup\.object_lock_days is 30") as refused:
        check(lock=False, object_lock_days=30)
    assert "https://s3.example/backups has no object lock" in str(refused.value)
