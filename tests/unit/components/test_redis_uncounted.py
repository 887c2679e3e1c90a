"""Trouble while a restored cluster is counted is an error of ours, with which a restore tells the way back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import redis

from components.redis import live
from components.redis.keys.rdb import UnknownFormat
from errors import PermanentError, TemporaryError


@pytest.mark.parametrize(
    ("trouble", "kind"),
    [
        (UnknownFormat("type or operation 99 at byte 9"), PermanentError),
        (EOFError("cut at byte 9"), PermanentError),
        (redis.ConnectionError("connection refused"), TemporaryError),
    ],
)
def test_what_goes_wrong_is_told(
    monkeypatch: pytest.MonkeyPatch, trouble: Exception, kind: type[Exception]
) -> None:
    def held(access: object, due: int, apart: bool) -> Any:
        raise trouble

    monkeypatch.setattr(live, "_held", held)
    reader = cast(Any, SimpleNamespace(manifest=SimpleNamespace(fingerprint=())))
    with pytest.raises(kind, match=str(trouble)):
        live.measure(cast(Any, None), reader, ["all keys"])
