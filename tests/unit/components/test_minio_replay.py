"""Versions are written again oldest first, and no key's history need fit into memory."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from s3transfer.compat import seekable  # type: ignore[import-untyped]

from archive.backup.reader import SetReader
from components.minio import restore
from components.minio.objects.versions import Version

WHOLE = 100


class Bucket:
    """What was written, in order."""

    def __init__(self) -> None:
        self.written: list[tuple[str, bytes]] = []

    def put_object(self, **given: Any) -> None:
        self.written.append((given["Key"], given["Body"]))

    def upload_fileobj(self, body: io.BytesIO, bucket: str, key: str, **_: Any) -> None:
        assert not seekable(body)  # boto3 asks so, and else seeks to and fro
        self.written.append((key, body.read()))

    def delete_object(self, **given: Any) -> None:
        self.written.append((given["Key"], b"marker"))


def set_of(*bodies: bytes | None) -> SetReader:
    """A set of one key with these versions; None is a delete marker."""
    lines, tar = [], io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for number, body in enumerate(bodies):
            file = f"{number}" if body is not None else ""
            size = len(body or b"")
            made = Version("key", str(number), number, body is None, size=size, file=file)
            lines.append(json.dumps(asdict(made)))
            if body is not None:
                entry = tarfile.TarInfo(file)
                entry.size = size
                archive.addfile(entry, io.BytesIO(body))
    files = {"versions.jsonl": "\n".join(lines).encode(), "versions.tar": tar.getvalue()}

    def stream(name: str, of: Any = None) -> Iterator[bytes]:
        yield files[Path(name).name]

    return cast(SetReader, SimpleNamespace(stream=stream))


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes that each call of a writer had in hand."""
    monkeypatch.setattr(restore, "WHOLE_BYTES", WHOLE)
    sizes: list[int] = []
    write_all = restore._write_all

    def watched(client: Any, bucket: str, history: list[tuple[Version, bytes]]) -> None:
        sizes.append(sum(len(body) for _, body in history))
        write_all(client, bucket, history)

    monkeypatch.setattr(restore, "_write_all", watched)
    return sizes


@pytest.mark.parametrize(
    "bodies",
    [
        [b"a" * 60, b"b" * 60, b"c" * 60, None, b"d" * 30],
        [b"a" * 30, b"b" * 130, b"c" * 90, b"d" * 20, b"e" * 140],
        [b"a" * 10] * 55,
    ],
)
def test_a_history_is_written_in_order_and_piece_by_piece(
    waiting: list[int], bodies: list[bytes | None]
) -> None:
    bucket = Bucket()
    restore.replay(bucket, "one", set_of(*bodies), {})
    assert bucket.written == [("key", b"marker" if body is None else body) for body in bodies]
    assert max(waiting) <= WHOLE
