"""Archives inside artefacts: tars and zips of engines.

The bytes of an artefact are compared with the manifest, their unpacked content is not. An archive that is invalid,
leaves its directory, or unpacks to more than any engine writes is a fault of the backup, so reading it again cannot
help.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from errors import PermanentError

# Settings and rights of MinIO: some kilobytes for each bucket and user. They are read into memory.
UNZIPPED_BYTES = 1 << 30
NAMED = 200  # characters of a reason: it may quote a member's name


class Unreadable(PermanentError):
    """An artefact is what was stored, but not valid in its format."""


@contextmanager
def readable(what: str) -> Iterator[None]:
    """Report an invalid archive as a fault of the backup.

    Args:
        what: is read.

    Raises:
        Unreadable: it is cut, or names a path outside of its directory, a device, or a link that leads outside.
    """
    try:
        yield
    except (tarfile.TarError, gzip.BadGzipFile, zipfile.BadZipFile, zlib.error, EOFError) as exc:
        raise Unreadable(
            f"{what} is not a valid archive: {type(exc).__name__}", said=str(exc)[:NAMED]
        ) from exc


def unzip(archive: bytes) -> dict[str, bytes]:
    """Return the files of a zip by their names, in its order.

    Raises:
        Unreadable: it is not a valid zip, or unpacks to more than `UNZIPPED_BYTES`.
    """
    with readable("a zip"), zipfile.ZipFile(io.BytesIO(archive)) as opened:
        size = sum(entry.file_size for entry in opened.infolist())
        if size > UNZIPPED_BYTES:  # no entry gives more than it declares
            raise Unreadable(f"a zip unpacks to {size} bytes; at most {UNZIPPED_BYTES} are allowed")
        return {name: opened.read(name) for name in opened.namelist()}
