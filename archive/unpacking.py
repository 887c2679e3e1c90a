"""Archives inside artefacts: tars and zips of engines, which a set may hold in any form.

The bytes of an artefact are compared with the manifest; what they unpack to is not. An archive that is not sound,
leaves its directory, or unpacks to more than any engine writes is the set's fault, however often it is read.
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
    """An artefact is what was stored, and not what its format promises."""


@contextmanager
def readable(what: str) -> Iterator[None]:
    """Blame the set where an archive of it cannot be read.

    Args:
        what: is read.

    Raises:
        Unreadable: it is cut, or names a path outside of its directory, a device, or a link that leads outside.
    """
    try:
        yield
    except (tarfile.TarError, gzip.BadGzipFile, zipfile.BadZipFile, zlib.error, EOFError) as exc:
        raise Unreadable(
            f"{what} is no sound archive: {type(exc).__name__}", said=str(exc)[:NAMED]
        ) from exc


def unzip(archive: bytes) -> dict[str, bytes]:
    """Files of a zip by their names, in its order.

    Raises:
        Unreadable: it is no sound zip, or unpacks to more than `UNZIPPED_BYTES`.
    """
    with readable("a zip"), zipfile.ZipFile(io.BytesIO(archive)) as opened:
        size = sum(entry.file_size for entry in opened.infolist())
        if size > UNZIPPED_BYTES:  # no entry gives more than it declares
            raise Unreadable(f"a zip unpacks to {size} bytes; {UNZIPPED_BYTES} are the most")
        return {name: opened.read(name) for name in opened.namelist()}
