"""A sandbox's name is a directory that `down --purge` removes: nothing else may come through."""

from __future__ import annotations

from pathlib import Path

import pytest

from errors import ArgumentError
from sandbox.cluster import Sandbox


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/tmp", "A", "-a", "a-", "a" * 41])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ArgumentError, match="not a valid name"):
        Sandbox(name)


def test_a_name_stays_below_the_directory_of_all_sandboxes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert Sandbox("test-1").directory == tmp_path / "isa-cloud" / "sandboxes" / "test-1"


def test_taking_down_what_never_was_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    Sandbox("never").down(purge=True)
    assert list(tmp_path.rglob("*")) == []
