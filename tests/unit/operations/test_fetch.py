import errno
import json
from pathlib import Path
from typing import Any

import pytest

from archive.backup.reader import Damaged
from errors import TemporaryError
from operations.verify import fetch


@pytest.mark.parametrize(
    ("trouble", "code"),
    [
        (Damaged("base.tar is not what was stored"), fetch.DAMAGED),
        (TemporaryError("the store is away"), fetch.AGAIN),
        (OSError(errno.ENOSPC, "No space left on device"), fetch.AGAIN),
        (None, 0),
    ],
)
def test_the_exit_status_says_whether_the_set_is_to_blame(
    trouble: Exception | None,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def work(request: dict[str, Any], directory: Path) -> None:
        assert request == {"set": "redis"}
        if trouble is not None:
            raise trouble

    monkeypatch.setattr(fetch, "fetch", work)
    request = tmp_path / "request.json"
    request.write_text(json.dumps({"set": "redis"}))
    assert fetch.main(str(request), str(tmp_path)) == code
    assert (str(trouble) in capsys.readouterr().out) == (trouble is not None)
