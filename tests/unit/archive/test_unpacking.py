"""Archives that nobody honest writes: each costs a message, writes nothing outside, and is the set's fault."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from archive.backup.manifest import Manifest
from archive.backup.reader import Damaged, SetReader
from archive.object_store.store import Store
from archive.streams import unpacking
from archive.streams.unpacking import Unreadable, readable, unzip
from components.emqx.exports.export import CONFIGURATION_BYTES, read_export, rewritten
from components.emqx.fingerprint import counts
from components.minio import restore as minio
from errors import TemporaryError
from operations.verify import fetch
from tests.archives import zipped

from ..components.emqx_archives import archive as emqx_archive


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made


HOSTILE = {
    "a path that climbs": member("../../outside"),
    "a symbolic link to a file of the machine": member("x", tarfile.SYMTYPE, "/etc/passwd"),
    "a symbolic link that climbs": member("x", tarfile.SYMTYPE, "../../outside"),
    "a hard link that climbs": member("x", tarfile.LNKTYPE, "../../outside"),
    "a device": member("x", tarfile.BLKTYPE),
    "a pipe": member("x", tarfile.FIFOTYPE),
}


def tar(*members: tarfile.TarInfo, mode: str = "w") -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=mode) as archive:  # type: ignore[call-overload]
        for one in members:
            archive.addfile(one)
    return made.getvalue()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], int]:
    """Fetch a base backup of PostgreSQL, whose tar is given, into a directory of a volume."""

    def run(content: bytes) -> int:
        reader: Any = SimpleNamespace(manifest=SimpleNamespace(needs=()), chain=(None,))
        reader.stream = lambda name, of: iter([content])
        monkeypatch.setattr(fetch, "SetReader", lambda *_: reader)
        monkeypatch.setattr(fetch, "find_chain", lambda *_: (manifest, ()))
        monkeypatch.setattr(Store, "open", lambda *_: cast(Store, None))
        request = tmp_path / "request.json"
        store = {"endpoint": "https://s3.example.com", "bucket": "bucket"}
        asked = {"store": store, "credentials": {}, "identity": "secret-key-of-somebody"}
        asked |= {"environment": "e", "set": "s", "scratch": "files", "signers": []}
        request.write_text(json.dumps(asked))
        volume = tmp_path / "a" / "volume"
        volume.mkdir(parents=True)
        return fetch.main(str(request), str(volume))

    manifest = SimpleNamespace(id="postgresql-1", component="postgresql")
    return run


@pytest.mark.parametrize("what", HOSTILE)
def test_a_tar_that_leaves_its_directory_is_the_sets_fault_and_writes_nothing_outside(
    what: str, place: Callable[[bytes], int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert place(tar(HOSTILE[what])) == fetch.UNREADABLE
    assert "postgresql-1 is not a valid archive" in capsys.readouterr().out
    outside = {path for path in tmp_path.rglob("*") if not path.is_relative_to(tmp_path / "a")}
    assert outside == {tmp_path / "request.json"}
    assert not [path for path in tmp_path.rglob("*") if path.is_symlink() or path.is_fifo()]


def test_an_absolute_path_lands_inside_where_the_engines_tool_sees_it(
    place: Callable[[bytes], int], tmp_path: Path
) -> None:
    where = tmp_path / "outside"
    assert place(tar(member(str(where)))) == 0
    assert not where.exists()
    data = tmp_path / "a" / "volume" / "data"
    assert (data / str(where).lstrip("/")).exists()  # pg_verifybackup refuses what it does not know


def test_a_cut_tar_is_the_sets_fault(place: Callable[[bytes], int]) -> None:
    assert place(tar(member("x"))[:100]) == fetch.UNREADABLE


def test_what_is_not_the_archives_fault_stays_what_it_is() -> None:
    for trouble in (OSError("no space left"), TemporaryError("the store is away"), Damaged("x")):
        with pytest.raises(type(trouble)), readable("it"):
            raise trouble


# ---------------------------------------------------------------------- MinIO
def bucket(content: bytes, line: str) -> SetReader:
    files = {"versions.tar": content, "versions.jsonl": line.encode()}

    def stream(name: str, of: Any = None) -> Any:
        yield files[Path(name).name]

    return cast(SetReader, SimpleNamespace(stream=stream))


LINE = '{"key": "k", "identity": "1", "ordinal": 0, "marker": false, "size": 1, "file": "x"}'


def test_versions_that_are_no_tar_are_the_sets_fault() -> None:
    for content, words in (
        (b"x" * 2000, "not a valid archive"),
        (tar(member("x"))[:100], "not a valid archive"),
        (tar(member("y")), "not where the index says"),
    ):
        with pytest.raises(Unreadable, match=words):
            minio.replay(None, "b", bucket(content, LINE), {})


def test_a_link_in_the_place_of_a_versions_bytes_is_the_sets_fault() -> None:
    with pytest.raises(Unreadable, match="not a valid archive"):
        minio.replay(None, "b", bucket(tar(member("x", tarfile.SYMTYPE, "/etc/passwd")), LINE), {})


def test_a_line_that_is_no_version_is_the_sets_fault() -> None:
    for line in ("{", '{"unknown": 1}', "[]"):
        with pytest.raises(Unreadable, match="bucket b"):
            minio.replay(None, "b", bucket(tar(), line), {})


def test_bytes_of_earlier_sets_are_kept_under_names_of_our_own(tmp_path: Path) -> None:
    content = "../../outside"
    body = tarfile.TarInfo("x")
    body.size = 1
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        archive.addfile(body, io.BytesIO(b"1"))
    line = json.dumps({**json.loads(LINE), "content": content})
    directory = tmp_path / "a" / "b"
    directory.mkdir(parents=True)
    found: dict[str, Path] = {}
    reader = bucket(made.getvalue(), line)
    minio._keep(reader, cast(Manifest, None), "buckets/b/versions.tar", {content}, directory, found)
    assert found[content].parent == directory
    assert found[content].read_bytes() == b"1"


def test_a_zip_that_unpacks_to_more_than_any_engine_writes_costs_a_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(unpacking, "UNZIPPED_BYTES", 1000)
    assert unzip(zipped({"a": b"x"})) == {"a": b"x"}
    with pytest.raises(Unreadable, match="unpacks to 2000 bytes"):
        unzip(zipped({"a": bytes(1000), "b": bytes(1000)}))


def test_what_is_no_zip_is_the_sets_fault() -> None:
    for content in (b"", b"x" * 99, zipped({"a": b"x" * 99})[:-30]):
        with pytest.raises(Unreadable):
            unzip(content)


# ---------------------------------------------------------------------- EMQX
def test_an_export_that_cannot_be_read_is_the_sets_fault(tmp_path: Path) -> None:
    sound = emqx_archive().getvalue()
    for content in (b"", b"x" * 99, sound[:-30], sound[:30], tar(mode="w:gz")):
        with pytest.raises(Unreadable):
            read_export(io.BytesIO(content), "export", counts, False)
    file = tmp_path / "export.tar.gz"
    file.write_bytes(sound[:60])
    with pytest.raises(Unreadable):
        rewritten(file)


def test_links_and_devices_in_an_export_are_not_followed_and_not_handed_on(tmp_path: Path) -> None:
    sound = io.BytesIO(emqx_archive(stem="e").getvalue())
    file = tmp_path / "e.tar.gz"
    with tarfile.open(fileobj=sound) as source, tarfile.open(file, "w:gz") as target:
        for one in HOSTILE.values():
            bad = tarfile.TarInfo(f"e/{one.name}")
            bad.type, bad.linkname = one.type, one.linkname
            if one.type != tarfile.REGTYPE:
                target.addfile(bad)
        for entry in source:
            target.addfile(entry, source.extractfile(entry))
    with file.open("rb") as opened:
        assert read_export(opened, "e", counts, False).edition == "ce"
    with tarfile.open(rewritten(file)) as handed:
        assert all(entry.isfile() for entry in handed)


def test_a_configuration_beyond_any_size_is_not_read(tmp_path: Path) -> None:
    large = tarfile.TarInfo("e/cluster.hocon")
    large.size = CONFIGURATION_BYTES + 1
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz", compresslevel=1) as archive:
        archive.addfile(large, io.BytesIO(bytes(large.size)))
    made.seek(0)
    with pytest.raises(Unreadable, match=r"cluster\.hocon of e has"):
        read_export(made, "e", counts, False)
