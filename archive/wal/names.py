"""Names of the objects below `wal/`: each name is a signed statement, so a listing alone shows what is covered.

    ENVIRONMENT/postgresql/wal/SYSTEM/TIMELINE/START-END/COVERS.STORED.BEFORE.THROUGH.SIGNER.SIGNATURE.zst.age
    ENVIRONMENT/postgresql/wal/SYSTEM/TIMELINE/history/PARENT.SWITCH.STORED.SHA256.SIGNER.SIGNATURE.zst.age

SYSTEM is the system identifier, TIMELINE and LSNs are hexadecimal as in PostgreSQL's own file names. An object holds
the WAL from START to END and never crosses a segment boundary. It is stored under its name by one request and never
changed: after a kill it either exists as a whole or does not. A growing segment is a row of such objects; when the
segment is complete, it is stored once more in a few large objects.

BEFORE and THROUGH are the states of the WAL at START and END. The state at an LSN is the SHA-256 of the WAL from the
last segment boundary below the LSN to the LSN. Two objects continue each other if the END and THROUGH of one are the
START and BEFORE of the other. So each object names its predecessor by its content, not by its name, and WAL of another
history never fits in between. BEFORE is empty where a chain begins: the WAL before it was not stored.

COVERS is a time of the primary's clock: each commit until then is at or below END. It is `-` where it is not known.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Collection
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from archive.backup.encryption import SUFFIX
from archive.backup.manifest import CLOCK_TOLERANCE, component_prefix
from archive.signing import SIGNATURE, SIGNER, canonical, check_signature, out_of_date, sign
from config.sections.backups import BackupSigner
from errors import PermanentError

FOLDER = "wal"
COMPONENT = "postgresql"
PURPOSE = b"isa-cloud wal 1\n"  # a signature of a manifest is none of WAL
UNKNOWN = "-"
SIGNER_DIGITS = 16  # of the public key in hexadecimal, to find it in backup.signers
# An object is read into memory, and so is its encrypted form.
MAXIMUM_BYTES = 16 << 20
TIME = "%Y%m%dT%H%M%S.%fZ"
_TIME = r"\d{8}T\d{6}\.\d{6}Z"
_TAIL = rf"(?P<signer>[0-9a-f]{{{SIGNER_DIGITS}}})\.(?P<signature>[\w-]{{86}}){re.escape(SUFFIX)}"
_PLACE = r"(?P<system>[0-9]{1,20})/(?P<timeline>[0-9A-F]{8})"
_WAL = re.compile(
    rf"{_PLACE}/(?P<start>[0-9A-F]{{16}})-(?P<end>[0-9A-F]{{16}})/(?P<covers>{_TIME}|{UNKNOWN})\.(?P<stored>{_TIME})"
    rf"\.(?P<before>[\w-]{{43}}|{UNKNOWN})\.(?P<through>[\w-]{{43}})\.{_TAIL}",
    re.ASCII,
)
_HISTORY = re.compile(
    rf"{_PLACE}/history/(?P<parent>[0-9A-F]{{8}})\.(?P<switch>[0-9A-F]{{16}})\.(?P<stored>{_TIME})"
    rf"\.(?P<sha256>[\w-]{{43}})\.{_TAIL}",
    re.ASCII,
)


@dataclass(frozen=True)
class WalObject:
    """A range of WAL.

    Attributes:
        environment: name.
        system: system identifier of the database cluster.
        timeline: that the WAL belongs to.
        start: LSN of its first byte.
        end: LSN behind its last byte.
        before: state of the WAL at `start`, in hexadecimal; "" where a chain begins.
        through: state at `end`.
        covers: each commit until then is at or below `end`, by the primary's clock; None if that is not known.
        stored: when it was signed.
        key: in the bucket; "" for one that is not signed yet.
    """

    environment: str
    system: str
    timeline: int
    start: int
    end: int
    before: str
    through: str
    covers: datetime | None
    stored: datetime
    key: str = ""

    @property
    def size(self) -> int:
        """Plain bytes."""
        return self.end - self.start

    def signed(self, key: Ed25519PrivateKey) -> str:
        """Key of the object in the bucket: its name with the signature."""
        signer, signature = _signature(self, key)
        parts = (
            _time(self.covers), _time(self.stored), _short(self.before), _short(self.through), signer, signature,
        )  # fmt: skip
        return f"{_folder(self)}/{self.start:016X}-{self.end:016X}/{'.'.join(parts)}{SUFFIX}"


@dataclass(frozen=True)
class TimelineHistory:
    """A timeline history file: where a timeline left its parent.

    Attributes:
        environment: name.
        system: system identifier of the database cluster.
        timeline: that the file is of.
        parent: the timeline that it left.
        switch: LSN at which it left it.
        sha256: of the file, in hexadecimal.
        stored: when it was signed.
        key: in the bucket; "" for one that is not signed yet.
    """

    environment: str
    system: str
    timeline: int
    parent: int
    switch: int
    sha256: str
    stored: datetime
    key: str = ""

    def signed(self, key: Ed25519PrivateKey) -> str:
        """Key of the object in the bucket: its name with the signature."""
        signer, signature = _signature(self, key)
        parts = (
            f"{self.parent:08X}", f"{self.switch:016X}", _time(self.stored), _short(self.sha256), signer, signature,
        )  # fmt: skip
        return f"{_folder(self)}/history/{'.'.join(parts)}{SUFFIX}"


def wal_prefix(environment: str) -> str:
    """Prefix of an environment's WAL."""
    return f"{component_prefix(environment, COMPONENT)}{FOLDER}/"


def timeline_folder(environment: str, system: str, timeline: int) -> str:
    """Prefix of a timeline's WAL and of its history."""
    return f"{wal_prefix(environment)}{system}/{timeline:08X}/"


def read_name(
    key: str, environment: str, signers: Collection[BackupSigner], now: datetime | None = None
) -> WalObject | TimelineHistory:
    """Read the key of an object below `wal/`, and check its signature, its place and its times.

    Args:
        key: of the object.
        environment: whose WAL is listed.
        signers: trusted signers.
        now: the present by default.

    Raises:
        PermanentError: it is no such name, or no trusted signer signed it for this place.
    """
    prefix = wal_prefix(environment)
    name = key.removeprefix(prefix)
    found = _WAL.fullmatch(name) or _HISTORY.fullmatch(name)
    if found is None or not key.startswith(prefix):
        raise PermanentError(f"{key} is not a name of WAL that isa stores")
    try:
        statement = _statement(found.groupdict(), environment, key)
        signer = _signer(statement, found["signer"], _raw(found["signature"]).hex(), signers)
    except (PermanentError, ValueError) as exc:
        raise PermanentError(f"{key} is refused: {exc}") from exc
    if fault := _fault(statement, signer, now or datetime.now(UTC)):
        raise PermanentError(f"{key} is refused: {fault}")
    return statement


def lsn_text(lsn: int) -> str:
    """Write an LSN as PostgreSQL does, `0/3000028`."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def lsn_number(text: str) -> int:
    """Read an LSN as PostgreSQL writes it.

    Raises:
        ValueError: it is none.
    """
    match = re.fullmatch(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})", text)
    if match is None:
        raise ValueError(f"{text!r} is not an LSN: it looks like 0/3000028")
    return (int(match[1], 16) << 32) + int(match[2], 16)


# ---------------------------------------------------------------------- inside
def _folder(one: WalObject | TimelineHistory) -> str:
    return timeline_folder(one.environment, one.system, one.timeline).removesuffix("/")


def _statement(parts: dict[str, str], environment: str, key: str) -> WalObject | TimelineHistory:
    timeline = int(parts["timeline"], 16)
    stored = _read_time(parts["stored"])
    if "switch" in parts:
        return TimelineHistory(
            environment, parts["system"], timeline, int(parts["parent"], 16), int(parts["switch"], 16),
            _raw(parts["sha256"]).hex(), stored, key,
        )  # fmt: skip
    covers = None if parts["covers"] == UNKNOWN else _read_time(parts["covers"])
    before = "" if parts["before"] == UNKNOWN else _raw(parts["before"]).hex()
    return WalObject(
        environment, parts["system"], timeline, int(parts["start"], 16), int(parts["end"], 16),
        before, _raw(parts["through"]).hex(), covers, stored, key,
    )  # fmt: skip


def _body(one: WalObject | TimelineHistory) -> dict[str, Any]:
    """What is signed: all fields, and which kind of statement they make."""
    fields = {**asdict(one), "kind": type(one).__name__}
    del fields["key"]
    return {
        name: _time(value) if isinstance(value, datetime) else value
        for name, value in fields.items()
    }


def _signature(one: WalObject | TimelineHistory, key: Ed25519PrivateKey) -> tuple[str, str]:
    signed = sign(_body(one), key, PURPOSE)
    return signed[SIGNER][:SIGNER_DIGITS], _encode(bytes.fromhex(signed[SIGNATURE]))


def _signer(
    one: WalObject | TimelineHistory,
    digits: str,
    signature: str,
    signers: Collection[BackupSigner],
) -> BackupSigner:
    key = next((signer.key for signer in signers if signer.key.startswith(digits)), digits)
    signed = {SIGNER: key, SIGNATURE: signature}
    return check_signature(canonical(_body(one)), signed, signers, PURPOSE)


def _fault(one: WalObject | TimelineHistory, signer: BackupSigner, now: datetime) -> str:
    """Return what is wrong with a statement whose signature matches; "" if nothing is."""
    if one.stored - now > CLOCK_TOLERANCE:
        return f"it was signed at {one.stored:%Y-%m-%d %H:%M} UTC, which is in the future"
    if isinstance(one, TimelineHistory):
        if one.parent >= one.timeline:
            return f"timeline {one.timeline} cannot begin on timeline {one.parent}"
    elif not 0 < one.size <= MAXIMUM_BYTES:
        return f"it has {one.size} bytes of WAL; an object has 1 to {MAXIMUM_BYTES}"
    return out_of_date(signer, one.stored)


def _time(at: datetime | None) -> str:
    return at.astimezone(UTC).strftime(TIME) if at else UNKNOWN


def _read_time(text: str) -> datetime:
    return datetime.strptime(text, TIME).replace(tzinfo=UTC)


def _short(digest: str) -> str:
    return _encode(bytes.fromhex(digest)) if digest else UNKNOWN


def _encode(raw: bytes) -> str:
    return urlsafe_b64encode(raw).decode().rstrip("=")


def _raw(text: str) -> bytes:
    raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if _encode(raw) != text:  # one statement has one name
        raise ValueError("its name is not in the canonical form")
    return raw
