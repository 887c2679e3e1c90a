from __future__ import annotations

from pathlib import Path

import pytest

from deployments.sandbox import postgres


@pytest.mark.parametrize("user", [0, 1000])
def test_sandboxes_of_one_name_in_two_state_directories_have_data_of_their_own(
    user: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: user)
    monkeypatch.setattr("os.chown", lambda *_: None)
    monkeypatch.setattr(postgres, "SHARED", tmp_path / "shared")

    def root(home: str) -> Path:
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / home))
        return postgres.data_root("default")

    assert root("one") != root("two")
    assert root("one") == root("one")
