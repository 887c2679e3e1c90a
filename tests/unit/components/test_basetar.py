import hashlib
import io
import json
import random
import tarfile
from collections.abc import Sequence

import pytest

from components.postgresql.base_backup.basetar import BaseTar
from errors import TemporaryError

WAL = "pg_wal/000000010000000000000003"
FILES = {
    "PG_VERSION": b"18\n",
    "base/1/1259": bytes(range(256)) * 40,
    "global/pg_control": b"c" * 8192,
}


def manifest(files: dict[str, bytes], ranges: Sequence[dict[str, object]] = ()) -> bytes:
    listed = [{"Path": path, "Size": len(body)} for path, body in files.items()]
    document = {"PostgreSQL-Backup-Manifest-Version": 2, "Files": listed, "WAL-Ranges": [*ranges]}
    body = json.dumps(document)
    head = (body[:-1] + ',\n"Manifest-Checksum": ').encode()
    # the checksum is of everything before its own line's key
    start = head[: head.rindex(b'"Manifest-Checksum"')]
    return start + b'"Manifest-Checksum": "' + hashlib.sha256(start).hexdigest().encode() + b'"}\n'


def backup(
    files: dict[str, bytes] = FILES, *, wal: bool = True, text: bytes | None = None
) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        entries = {**files, **({WAL: b"w" * 1000} if wal else {})}
        entries["backup_manifest"] = manifest(FILES) if text is None else text
        for path, body in entries.items():
            info = tarfile.TarInfo(path)
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
    return out.getvalue()


def passed(data: bytes, seed: int = 1) -> BaseTar:
    """Let it go by in pieces of any size."""
    pieces, at, chance = [], 0, random.Random(seed)
    while at < len(data):
        size = chance.choice((1, 100, 511, 512, 513, 5000))
        pieces.append(data[at : at + size])
        at += size
    tar = BaseTar(pieces)
    assert b"".join(tar) == data
    return tar


@pytest.mark.parametrize("seed", range(5))
def test_a_whole_backup_goes_by_unchanged(seed: int) -> None:
    tar = passed(backup(), seed)
    assert tar.manifest_bytes == manifest(FILES)


@pytest.mark.parametrize("cut", [1, 512, 1024, 11_000, 20_000])
def test_a_cut_backup_is_refused(cut: int) -> None:
    with pytest.raises(TemporaryError):
        passed(backup()[: -10240 + 1023 - cut] if cut < 2000 else backup()[:-cut])


def test_a_file_that_is_missing_or_short_is_named() -> None:
    files = dict(FILES)
    del files["base/1/1259"]
    with pytest.raises(TemporaryError, match="base/1/1259"):
        passed(backup(files))
    with pytest.raises(TemporaryError, match="base/1/1259"):
        passed(backup({**FILES, "base/1/1259": b"short"}))


def test_a_backup_without_wal_or_manifest_is_refused() -> None:
    with pytest.raises(TemporaryError, match="no WAL"):
        passed(backup(wal=False))
    with pytest.raises(TemporaryError, match="backup_manifest"):
        passed(backup(text=b""))
    with pytest.raises(TemporaryError, match="backup_manifest"):
        passed(backup(text=manifest(FILES).replace(b'"Size": 3', b'"Size": 4')))
