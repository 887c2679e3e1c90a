"""A store whose pages do not end is an error, in our own bucket and in one that is backed up."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from archive.object_store.store import Store
from components.minio.objects.versions import Unlisted, list_versions
from errors import TemporaryError

# ListObjectsV2, ListObjectVersions, ListMultipartUploads: each with its own marks.
SAME = {
    "IsTruncated": True, "NextContinuationToken": "t", "NextKeyMarker": "k", "NextVersionIdMarker": "v",
    "NextUploadIdMarker": "u",
}  # fmt: skip


def endless(**_: Any) -> dict[str, Any]:
    return SAME


CLIENT = SimpleNamespace(
    meta=SimpleNamespace(endpoint_url="https://s3.example"),
    get_bucket_versioning=lambda **_: {"Status": "Enabled"},
    list_objects_v2=endless,
    list_object_versions=endless,
    list_multipart_uploads=endless,
)


@pytest.mark.parametrize("listed", [Store.list, Store.versions, Store.pending])
def test_a_page_that_comes_again_is_an_error(listed: Callable[[Store, str], Any]) -> None:
    with pytest.raises(TemporaryError, match="b/shop/: the store gives the same page"):
        list(listed(Store(CLIENT, "b"), "shop/"))


def test_a_page_of_versions_that_comes_again_is_an_error() -> None:
    with pytest.raises(Unlisted, match="bucket b cannot be read: MinIO gives the same page"):
        list(list_versions(CLIENT, "b"))
