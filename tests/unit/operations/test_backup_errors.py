"""Whatever a client library raises in the midst of a backup is worth another attempt; what we raise says so itself."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError

from errors import PermanentError, TemporaryError
from operations.backup.component import explained


def test_a_librarys_own_error_may_pass() -> None:
    refused = ClientError({"Error": {"Code": "NoSuchBucket", "Message": "gone"}}, "ListObjects")
    with pytest.raises(TemporaryError, match="minio: ClientError") as caught, explained("minio"):
        raise refused
    assert caught.value.__cause__ is refused
    assert "gone" not in caught.value.plain  # it may quote what an engine holds


def test_an_error_of_ours_stays_what_it_is() -> None:
    with pytest.raises(PermanentError, match="no recipient"), explained("minio"):
        raise PermanentError("no recipient")
