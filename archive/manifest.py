"""What a backup set says of itself: written last, so that a set exists when its manifest does.

The manifest is plain text in the bucket, for the catalogue is read without a private key: it holds names of
things and of definitions (tables, consumers, users), sizes and counts, never a value of the data. Digests lie apart
(`archive.digests`). Its JSON Schema is docs/reference/manifest.schema.json.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)

from archive.bounds import parse
from archive.names import ITEM_CHARACTERS, short_name
from archive.signing import SIGNATURE, SIGNER, canonical, check_signature, out_of_date, sign
from config.backups import BackupSigner
from errors import PermanentError

FORMAT = 1
FILE = "manifest.json"
PLATFORM = "platform"  # the set beside the seven engines'
IDENTITY = re.compile(r"(?P<component>[a-z0-9]+)-(?P<begun>\d{8}T\d{6}Z)-(?P<nonce>[0-9a-f]{6})")
Identity = Annotated[str, Field(pattern=f"^{IDENTITY.pattern}$")]
# of an environment, a component: one folder in the bucket
Folder = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=200)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Bytes = Annotated[int, Field(ge=0)]


def _at_most(characters: int) -> AfterValidator:
    """A bound that takes any text; pydantic's own would refuse lone surrogates."""

    def check(value: str) -> str:
        if len(value) > characters:
            raise ValueError(f"has {len(value)} characters, more than {characters}")
        return value

    return AfterValidator(check)


# of a thing: an engine's own names are shorter
Label = Annotated[
    str, _at_most(ITEM_CHARACTERS), Field(json_schema_extra={"maxLength": ITEM_CHARACTERS})
]
# for people
Words = Annotated[str, _at_most(100_000), Field(json_schema_extra={"maxLength": 100_000})]
Word = Annotated[
    str, Field(max_length=200, pattern=r"^[ -~]*$")
]  # a version, a key: printable ASCII
Digest = Annotated[str, Field(max_length=200, pattern=r"^[0-9a-z/-]*$")]
SHOWN = 300  # characters of an error that quotes a document
# What parsing raises: RecursionError is of lists in lists, TypeError of what is no object, OverflowError of a date.
NOT_A_DOCUMENT = (
    ValueError,
    TypeError,
    AttributeError,
    KeyError,
    RecursionError,
    OverflowError,
    ValidationError,
)
PARSING = threading.Lock()  # one document at a time: what is parsed takes many times its bytes
CLOCK_TOLERANCE = timedelta(hours=1)  # clocks may differ; the self test of a backup allows less


def _file_name(value: str) -> str:
    if any(part in ("", ".", "..") for part in value.split("/")):
        raise ValueError("is no relative path without ways up")
    return value


# Objects and files are made of it, within S3's limit of 1024 bytes a key. Control characters and backslashes: never.
FileName = Annotated[
    str, Field(max_length=800, pattern=r"^[^\x00-\x1f\x7f\\]+$"), AfterValidator(_file_name)
]


class Part(BaseModel):
    """Base of what a manifest is made of: frozen, and an unknown key is a fault."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with other values, within the bounds of their types: pydantic's own checks none of them.

        Raises:
            ValueError: a value is not within them: no reader would take the document.
        """
        if update is None:
            return super().model_copy(deep=deep)
        return type(self).model_validate({**dict(self), **update})


Names = Annotated[dict[Words, Digest], Field(max_length=5_000)]


class Artefact(Part):
    """One object of a set."""

    name: FileName = Field(description="file name below the set, `database/isa.dump.zst.age`")
    unit: Label = Field(description="database, shard, stream, bucket or collection that it holds")
    format: Label = Field(
        description="what is inside, and so which tool reads it: `pg_dump custom`"
    )
    plain_size: Bytes = Field(description="bytes before compression")
    plain_sha256: Sha256 | Literal[""] = Field(
        description="of the plain bytes; empty: in the artefact with the digests"
    )
    stored_size: Bytes = Field(description="bytes in the bucket")
    stored_sha256: Sha256 = Field(description="of the stored bytes")
    part_size: Bytes = Field(description="size of the parts it was uploaded in, bytes")
    sealed: bool = Field(default=True, description="zstd, then age; if not, stored as it is")


def _short(value: Any) -> Any:
    return short_name(value, ITEM_CHARACTERS) if isinstance(value, str) else value


# Of what was counted. A refusal would end the backup of all other things, so a long one is shortened.
Item = Annotated[Label, BeforeValidator(_short)]


class Measure(Part):
    """What one thing held, to compare a restore with."""

    unit: Item = Field(description="database, shard, stream, bucket or collection")
    item: Item = Field(description="table, type of key, label: what was counted")
    count: int = Field(ge=0, description="rows, keys, messages, versions, points, nodes")
    until: Annotated[int, Field(ge=0)] | None = Field(
        default=None,
        description="count after the backup, where it moved meanwhile: nobody knows what of that was stored",
    )
    digest: Digest = Field(
        default="",
        description="independent of order; empty: counted only; `sealed`: in the artefact with the digests",
    )
    origin: Literal["source", "artefact"] = Field(
        description="asked of the engine at the artefact's own point in time, or read from the artefact itself"
    )
    names: Names = Field(
        default={},
        description="definitions that were counted, where they are few: name → part of its digest or `sealed`, so that "
        "what is missing can be named",
    )


class Consistency(Part):
    """Which moment a unit's data is of."""

    unit: Label = Field(description="what is consistent in itself; nothing holds between two units")
    point: Label = Field(
        description="the moment in the engine's own words: an LSN, an offset, a sequence"
    )
    begun: AwareDatetime = Field(description="earliest moment that the data can be of")
    ended: AwareDatetime = Field(description="latest")


class Engine(Part):
    """What was backed up, as precisely as a scratch engine must match it."""

    name: Word = Field(description="product, as it calls itself")
    version: Word = Field(description="of the server")
    edition: Word = Field(
        default="", description="community, enterprise; empty where there is one only"
    )
    identity: Label = Field(
        default="", description="the engine's own name for this data: system identifier, cluster id"
    )
    extensions: dict[Label, Word] = Field(
        default={}, description="extensions and modules → version"
    )


class Capabilities(Part):
    """What the store was seen to do."""

    conditional_put: bool = Field(description="refuses to overwrite when asked to (If-None-Match)")
    checksums: bool = Field(description="checks a SHA-256 that comes with an object")
    versioning: bool = Field(description="keeps what is overwritten or deleted")
    object_lock: bool = Field(description="can refuse deletion until a date")


class Manifest(Part):
    """One backup set: one component, one run."""

    format: Literal[1] = Field(default=1, description="version of this document")
    id: Identity = Field(description="`component-time-nonce`")
    component: Folder = Field(description="engine, or `platform`")
    environment: Folder = Field(description="name of the environment")
    cluster: Word = Field(description="uid of the engines' namespace")
    slot: Label = Field(description="for which night: two runs of one slot make one set")
    kind: Literal["full", "incremental"] = Field(
        default="full", description="whether others are needed"
    )
    needs: tuple[Identity, ...] = Field(
        default=(), description="ids of the sets without which it is of no use"
    )
    begun: AwareDatetime = Field(description="start of the run")
    ended: AwareDatetime = Field(description="end of the run")
    outcome: Literal["complete", "partial"] = Field(description="partial: see `missing`")
    missing: tuple[Words, ...] = Field(
        default=(), description="what should be in the set and is not, with why"
    )
    not_covered: tuple[Words, ...] = Field(description="what such a set never holds")
    engine: Engine
    tools: dict[Label, Words] = Field(default={}, description="programs that took part → version")
    topology: dict[str, Any] = Field(
        default={}, description="members, shards, slots, replicas as they were"
    )
    consistency: tuple[Consistency, ...]
    artefacts: tuple[Artefact, ...]
    fingerprint: tuple[Measure, ...]
    store: Capabilities = Field(description="the object store, as it was tried before the run")
    recipients: tuple[Word, ...] = Field(
        description="age public keys; the holder of any of them can read the set"
    )

    @property
    def prefix(self) -> str:
        """Where the set lies in the bucket."""
        return set_prefix(self.environment, self.component, self.id)

    @property
    def own_key(self) -> str:
        """Object of the manifest itself."""
        return self.prefix + FILE

    def key(self, artefact: Artefact) -> str:
        """Object of an artefact."""
        return self.prefix + artefact.name

    @property
    def seconds(self) -> float:
        """From start to end of the run."""
        return (self.ended - self.begun).total_seconds()

    @property
    def plain_size(self) -> int:
        """Bytes that were read."""
        return sum(artefact.plain_size for artefact in self.artefacts)

    @property
    def stored_size(self) -> int:
        """Bytes in the bucket."""
        return sum(artefact.stored_size for artefact in self.artefacts)

    def to_bytes(self, *, as_read: bool = False) -> bytes:
        """The document as it is stored: JSON with a hash of itself, so that a changed byte anywhere is seen.

        Args:
            as_read: the one that this was read from, without what a later version of this project added to all.
        """
        body = self.model_dump(mode="json", exclude_unset=as_read)
        return json.dumps({**body, "sha256": _hash(body)}, indent=1).encode()

    def signed(self, key: Ed25519PrivateKey) -> bytes:
        """The same with the backup worker's signature: what is stored."""
        body = self.model_dump(mode="json")
        return json.dumps({**body, "sha256": _hash(body), **sign(body, key)}, indent=1).encode()


def read_manifest(
    document: bytes, key: str, signers: Collection[BackupSigner], now: datetime | None = None
) -> Manifest:
    """Read a stored manifest, and check who wrote it, where and when.

    One that lies elsewhere than where it says, or is of another time than its id, is refused: an environment's
    retention would otherwise delete what another one has.

    Args:
        document: its bytes.
        key: of the object that they came from.
        signers: whose signature counts.
        now: the present by default.

    Raises:
        PermanentError: it was changed or cut, moved or renamed, is not signed by one of these, or is of another version
            of this project.
    """
    try:
        with PARSING:
            manifest, signer = _signed_by(document, key, signers)
    except NOT_A_DOCUMENT as exc:
        raise PermanentError(f"{key} is no manifest of a backup: {brief(exc)}") from exc
    fault = _misplaced(manifest, key, now or datetime.now(UTC))
    fault = fault or out_of_date(signer, manifest.begun)
    if fault:
        raise PermanentError(f"{key} is refused: {fault}")
    return manifest


def brief(exc: Exception) -> str:
    """The beginning of an error, which may quote what somebody else wrote."""
    return str(exc)[:SHOWN]


def component_prefix(environment: str, component: str) -> str:
    """Where a component's sets lie."""
    return f"{environment}/{component}/"


def set_prefix(environment: str, component: str, identity: str) -> str:
    """Where a set lies."""
    return f"{component_prefix(environment, component)}{identity}/"


def new_identity(component: str, begun: datetime, nonce: str) -> str:
    """Name of a set; sorts by time.

    Args:
        component: engine.
        begun: start of the run.
        nonce: six hexadecimal digits, so that two runs of one second differ.
    """
    return f"{component}-{begun.astimezone(UTC):%Y%m%dT%H%M%SZ}-{nonce}"


def component_of(identity: str) -> str:
    """Whose set it is, by its name."""
    return identity.partition("-")[0]


def begun_of(identity: str) -> datetime | None:
    """When a set was begun, by its name; None if it is no name of a set."""
    match = IDENTITY.fullmatch(identity)
    if match is None:
        return None
    return datetime.strptime(match["begun"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)


def set_of(key: str) -> str:
    """Id of the set whose manifest an object of the bucket is; "" if it is none."""
    parts = key.split("/")
    named = len(parts) == 4 and parts[3] == FILE and begun_of(parts[2]) is not None
    return parts[2] if named else ""


def _signed_by(
    document: bytes, key: str, signers: Collection[BackupSigner]
) -> tuple[Manifest, BackupSigner]:
    """A manifest and who signed it; the model is built once the signature is known to be good."""
    body = parse(document)
    claimed = body.pop("sha256", "")
    signed = {name: body.pop(name, "") for name in (SIGNER, SIGNATURE)}
    if body.get("format") != FORMAT:
        found = repr(body.get("format"))[:SHOWN]
        raise PermanentError(f"{key}: format {found}; this version reads {FORMAT}")
    content = canonical(body)
    if claimed != hashlib.sha256(content).hexdigest():
        raise PermanentError(
            f"{key}: its hash does not fit: it was changed, or damaged in the store"
        )
    try:
        signer = check_signature(content, signed, signers)
    except PermanentError as exc:
        raise PermanentError(f"{key} is refused: {exc}") from exc
    return Manifest.model_validate(body), signer


def _misplaced(manifest: Manifest, key: str, now: datetime) -> str:
    """Why a manifest cannot be of the set that it lies with; "" if it can."""
    if manifest.own_key != key:
        return f"it is the manifest of {manifest.own_key}: it was moved or copied"
    if component_of(manifest.id) != manifest.component:
        return f"its component is {manifest.component}"
    if begun_of(manifest.id) != manifest.begun.replace(microsecond=0):
        return f"it was begun at {manifest.begun:%Y-%m-%d %H:%M:%S}, its id is of another time"
    if any(not _earlier(needed, manifest) for needed in manifest.needs):
        return "it needs what is no earlier backup of its component"
    if manifest.ended < manifest.begun:
        return "it ended before it began"
    if manifest.begun > now + CLOCK_TOLERANCE:
        return "it is of the future: check the clock of the worker that wrote it"
    return ""


def _earlier(needed: str, manifest: Manifest) -> bool:
    return component_of(needed) == manifest.component and needed < manifest.id


def _hash(body: dict[str, Any]) -> str:
    return hashlib.sha256(canonical(body)).hexdigest()


if __name__ == "__main__":  # python -m archive.manifest > docs/reference/manifest.schema.json
    print(json.dumps(Manifest.model_json_schema(), indent=2))
