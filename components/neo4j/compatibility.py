"""Why the live Neo4j could not serve a backup's databases: an older version, other databases, too little space."""

from __future__ import annotations

import re
import shlex
import struct
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field

import zstandard
from neo4j.exceptions import AuthError, DriverError, Neo4jError

from archive.backup.reader import SetReader
from cluster.pods.exec import exec_stream
from components.access import Access
from components.neo4j.client import PORT, query
from components.neo4j.editions import offline
from components.neo4j.restore import DUMP
from errors import PermanentError, TemporaryError

# The beginning of a dump: four letters, then, compressed, "zstd", a version (4 bytes), the numbers of files and of
# bytes (8 each). `neo4j-admin database load --info` shows the same two numbers for dumps of 5.26.30.
DUMP_MAGIC, HEADER, KNOWN = b"DZV1", struct.Struct(">4siqq"), (b"zstd", 1)
DATA = "SHOW SETTINGS 'server.directories.data' YIELD value"


@dataclass(frozen=True)
class Member:
    """The live member.

    Attributes:
        version: version of its server; "" if it is unknown.
        databases: databases that it serves; empty if it does not answer.
        data: directory of its data; "" if it does not answer.
    """

    version: str
    databases: frozenset[str] = frozenset()
    data: str = ""


@dataclass(frozen=True)
class Room:
    """Space on the member's volume, in bytes.

    Attributes:
        free: free bytes.
        used: database → used bytes.
    """

    free: int
    used: dict[str, int] = field(default_factory=dict)


def can_take(access: Access, reader: SetReader, chosen: Iterable[str]) -> list[str]:
    """Why databases of a backup could not be loaded, or would not be served. Nothing is changed.

    A member that does not answer is not a reason, because the restore may repair it. Its version is then read from its
    image. Space is checked while the member is stopped (`require_room`), because isa may not run commands in it.

    Raises:
        PermanentError: the password is refused, or the StatefulSet does not exist.
    """
    # a safety backup may lack some of them
    in_backup = {reader.unit(name) for name in reader.names(DUMP)}
    names = {unit.partition(" ")[2]: unit for unit in chosen if unit in in_backup}
    member = _member(access)
    backup_version = reader.manifest.engine.version
    reasons = {
        name: reason
        for name in names
        if (reason := too_new(backup_version, member.version) or unserved(name, member.databases))
    }
    return [f"{names[name]}: {reason}" for name, reason in reasons.items()]


def data_directory(access: Access) -> str:
    """Directory of the live member's data; "" if it does not answer."""
    return _member(access).data


def require_room(access: Access, reader: SetReader, chosen: Iterable[str], data: str) -> None:
    """Check in the helper's pod that the databases fit on the volume. The member is stopped and not yet changed.

    Args:
        access: addresses and credentials.
        reader: the backup.
        chosen: units that will be loaded.
        data: directory of the member's data; "" if it is unknown, then nothing is checked.

    Raises:
        PermanentError: there is too little space; nothing was overwritten.
        TemporaryError: the pod does not answer.
    """
    if not data:
        return
    selected = set(chosen)
    sizes = {
        reader.unit(name).partition(" ")[2]: _unpacked(reader, reader.unit(name))
        for name in reader.names(DUMP)
        if reader.unit(name) in selected
    }
    reasons = without_room(sizes, _room(access, data, sizes))
    if reasons:
        summary = "; ".join(f"database {name}: {reason}" for name, reason in reasons.items())
        raise PermanentError(f"nothing was overwritten: {summary}")


def too_new(backup_version: str, live_version: str) -> str:
    """Why a server refuses a store of another version; "" if it accepts it, or if its own version is unknown.

    https://neo4j.com/docs/upgrade-migration-guide/current/: stores are migrated to later versions only.
    """
    source, target = (
        [int(number) for number in re.findall(r"\d+", version)[:2]]
        for version in (backup_version, live_version)
    )
    if target and source > target:
        return f"its dump is from Neo4j {backup_version}, and {live_version} cannot load a dump of a later version"
    return ""


def unserved(name: str, databases: frozenset[str]) -> str:
    """Why a database would not be served; "" if it would, or if the served databases are unknown."""
    if not databases or name in databases:
        return ""
    return (
        f"this Neo4j serves only {', '.join(sorted(databases))}: set initial.dbms.default_database to {name} in its "
        "settings first"
    )


def without_room(sizes: dict[str, int], room: Room) -> dict[str, str]:
    """Databases that do not fit on the volume, after their current data was removed.

    Args:
        sizes: database → its unpacked bytes.
        room: space on the member's volume.
    """
    free = room.free + sum(room.used.get(name, 0) for name in sizes)
    reasons = {}
    for name, size in sizes.items():
        if size > free:
            reasons[name] = f"it needs {size >> 20} MiB, but its volume has {free >> 20} MiB free"
        else:
            free -= size
    return reasons


def unpacked_size(pieces: Iterator[bytes]) -> int:
    """Bytes of a loaded dump, read from its beginning; 0 if they are not stated there."""
    start = b""
    while len(start) < len(DUMP_MAGIC):
        piece = next(pieces, b"")
        if not piece:
            return 0
        start += piece
    if not start.startswith(DUMP_MAGIC):
        return 0
    try:
        unpack = zstandard.ZstdDecompressor().decompressobj()
        header = unpack.decompress(start[len(DUMP_MAGIC) :])
        while len(header) < HEADER.size:
            piece = next(pieces, b"")
            if not piece:
                return 0
            header += unpack.decompress(piece)
    except zstandard.ZstdError:
        return 0
    *form, _, size = HEADER.unpack(header[: HEADER.size])
    return int(size) if tuple(form) == KNOWN else 0


def _member(access: Access) -> Member:
    live = offline.statefulset(access)
    member = access.endpoint(offline.POD, PORT)
    try:
        if not member.host:
            raise DriverError("its pod has no address")
        about = query(access, member, "CALL dbms.components() YIELD versions")[0]
        names = {str(row["name"]) for row in query(access, member, "SHOW DATABASES YIELD name")}
        data = query(access, member, DATA)
        return Member(str(about["versions"][0]), frozenset(names), str(data[0]["value"]))
    except AuthError as exc:
        raise PermanentError(f"Neo4j refused the password of Secret neo4j-auth: {exc}") from exc
    except (Neo4jError, DriverError):
        containers = live["spec"]["template"]["spec"]["containers"]
        image = next(
            str(container["image"]) for container in containers if container["name"] == "neo4j"
        )
        tag = re.search(r":(\d+\.\d+(?:\.\d+)?)", image)
        return Member(tag[1] if tag else "")


def _unpacked(reader: SetReader, unit: str) -> int:
    name = next(name for name in reader.names(DUMP) if reader.unit(name) == unit)
    pieces = reader.stream(name)
    with closing(pieces):  # type: ignore[type-var]
        return unpacked_size(pieces)


def _room(access: Access, data: str, databases: Iterable[str]) -> Room:
    """Ask the helper's pod for the free bytes of the member's volume and the bytes of each database."""
    namespace, stall = access.settings.kubernetes.namespace, access.settings.backup.stall_seconds
    folders = {
        f"{data}/{kind}/{name}": name
        for name in databases
        for kind in ("databases", "transactions")
    }
    quoted = " ".join(shlex.quote(folder) for folder in folders)
    script = f"df -Pk {shlex.quote(data)} | tail -n 1; du -sk {quoted} 2>/dev/null; true"
    command = ("sh", "-c", script)
    pieces = exec_stream(
        access.kube, namespace, offline.DUMPER, offline.CONTAINER, command, stall=stall
    )
    return room_of(b"".join(pieces).decode(errors="replace"), folders)


def room_of(output: str, folders: dict[str, str]) -> Room:
    """Parse the output of df and du (POSIX: kibibytes; the fourth column of df is the available space).

    Args:
        output: a line of df, then lines of du.
        folders: directory → database.

    Raises:
        TemporaryError: the output has another format.
    """
    df_line, *lines = output.splitlines() or [""]
    match = re.search(r"\s(\d+)\s+(\d+)\s+(\d+)\s+\d+%\s", df_line)
    if match is None:
        raise TemporaryError(f"{offline.DUMPER} did not report its free space: {df_line!r}")
    used: dict[str, int] = {}
    for line in lines:
        size, _, folder = line.partition("\t")
        if folder in folders and size.isdigit():
            used[folders[folder]] = used.get(folders[folder], 0) + int(size) * 1024
    return Room(int(match[3]) * 1024, used)
