import errno
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from archive.streams.spool import Disk, Spool, prepare_spool, require_room
from errors import PermanentError, TemporaryError

PIECES = [bytes([n]) * 1000 for n in range(200)]


def test_it_is_read_while_it_still_drains_and_again_afterwards(tmp_path: Path) -> None:
    go_on = threading.Event()

    def source() -> Iterator[bytes]:
        yield PIECES[0]
        go_on.wait(5)
        yield from PIECES[1:]

    with Spool(source(), tmp_path) as spool:
        first = next(iter(spool))
        assert first == PIECES[0]
        go_on.set()
        assert b"".join(spool) == b"".join(PIECES)
        assert b"".join(spool) == b"".join(PIECES)
        assert spool.reader().read() == b"".join(PIECES)
        assert spool.size == 200_000


def test_nothing_is_left_on_the_disk_even_while_it_drains(tmp_path: Path) -> None:
    with Spool(PIECES, tmp_path) as spool:
        assert list(tmp_path.iterdir()) == []
        b"".join(spool)


def test_what_the_source_raises_is_raised_to_the_reader(tmp_path: Path) -> None:
    def source() -> Iterator[bytes]:
        yield b"half"
        raise TemporaryError("the source went away")

    with Spool(source(), tmp_path) as spool:
        time.sleep(0.05)
        with pytest.raises(TemporaryError, match="went away"):
            b"".join(spool)


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def source() -> Iterator[bytes]:
        started.wait(5)
        yield b"data"

    started = threading.Event()
    spool = Spool(source(), tmp_path)
    with spool:
        monkeypatch.setattr(spool, "_file", type("Full", (), {
            "write": staticmethod(full), "fileno": lambda self: 0, "close": lambda self: None,
        })())  # fmt: skip
        started.set()
        with pytest.raises(PermanentError, match=r"full after 0 MiB.*backup\.spool"):
            list(spool)


def endless(pieces: list[bytes]) -> Iterator[bytes]:
    """A source that lies about its size: a tebibyte."""
    for _ in range(1 << 17):
        pieces.append(b"")
        yield bytes(8 << 20)


@pytest.mark.parametrize(("expected", "kept"), [(0, 512), (1 << 40, 256)])
def test_a_source_with_more_than_the_disk_leaves_a_reserve(
    tmp_path: Path, expected: int, kept: int
) -> None:
    taken: list[bytes] = []

    def disk(_: Path) -> Disk:
        return Disk(1 << 40, (kept + 8 - 4 * len(taken)) << 20)

    lying = endless(taken)
    with (
        Spool(lying, tmp_path, "the data of redis", expected, disk) as spool,
        pytest.raises(
            PermanentError, match=rf"the data of redis was stopped.*{kept} MiB are reserved"
        ),
    ):
        list(spool)
    assert len(taken) == 3


def test_a_disk_that_is_too_small_is_refused_before_the_source_is_asked(tmp_path: Path) -> None:
    require_room(tmp_path, 1)
    with pytest.raises(PermanentError, match="MiB free and needs"):
        require_room(tmp_path, 1 << 60)


def test_the_directory_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    made = prepare_spool(tmp_path / "above" / "spool")
    assert made.stat().st_mode & 0o777 == 0o700
    assert prepare_spool(made) == made


def test_a_link_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "spool").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermanentError, match="symbolic link"):
        prepare_spool(tmp_path / "spool")


def test_a_link_that_leads_nowhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "spool").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermanentError, match=r"backup\.spool"):
        prepare_spool(tmp_path / "spool")


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770])
def test_a_directory_that_others_can_write_to_is_refused(mode: int, tmp_path: Path) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(PermanentError, match="chmod 700"):
        prepare_spool(tmp_path)


def test_a_directory_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(PermanentError, match="belongs to user"):
        prepare_spool(tmp_path)


def test_every_use_of_the_spool_asks(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(PermanentError, match="by others"), Spool(PIECES, tmp_path):
        pass
    with pytest.raises(PermanentError, match="by others"):
        require_room(tmp_path, 1)
