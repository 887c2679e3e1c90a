"""The description of a backup: written last, so that a backup exists once its manifest does.

The manifest is plain text in the bucket, because the catalogue is read without a private key: it holds names of objects
and of definitions (tables, consumers, users), sizes and counts, never a value of the data. Digests are stored apart
(`archive.backup.digests`). Its JSON Schema is docs/reference/manifest.schema.json.
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

from archive.backup.names import ITEM_CHARACTERS, short_name
from archive.bounds import parse
from archive.signing import SIGNATURE, SIGNER, canonical, check_signature, out_of_date, sign
from config.sections.backups import BackupSigner
from errors import PermanentError

FORMAT = 1
FILE = "manifest.json"
PLATFORM = "platform"  # the backup beside the seven engines'
IDENTITY = re.compile(r"(?P<component>[a-z0-9]+)-(?P<begun>\d{8}T\d{6}Z)-(?P<nonce>[0-9a-f]{6})")
_INTERVAL = re.compile(r"interval-\d{8}T\d{4}Z")
Identity = Annotated[str, Field(pattern=f"^{IDENTITY.pattern}$")]
# of an environment, a component: one folder in the bucket
Folder = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=200)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Bytes = Annotated[int, Field(ge=0)]


def _at_most(characters: int) -> AfterValidator:
    """A length limit that accepts any text; pydantic's own would refuse lone surrogates."""

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
        raise ValueError("is not a relative path inside the backup")
    return value


# Objects and files are made of it, within S3's limit of 1024 bytes a key. Control characters and backslashes: never.
FileName = Annotated[
    str, Field(max_length=800, pattern=r"^[^\x00-\x1f\x7f\\]+$"), AfterValidator(_file_name)
]


class Part(BaseModel):
    """Base of the manifest's models: frozen, and an unknown key is a fault."""

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
    """One object of a backup."""

    name: FileName = Field(description="file name inside the backup, `database/isa.dump.zst.age`")
    unit: Label = Field(description="database, shard, stream, bucket or collection that it holds")
    format: Label = Field(
        description="format of the content, which names the tool that reads it: `pg_dump custom`"
    )
    plain_size: Bytes = Field(description="bytes before compression")
    plain_sha256: Sha256 | Literal[""] = Field(
        description="of the plain bytes; empty: in the artefact with the digests"
    )
    stored_size: Bytes = Field(description="bytes in the object store")
    stored_sha256: Sha256 = Field(description="of the stored bytes")
    part_size: Bytes = Field(description="part size of its upload, bytes")
    sealed: bool = Field(default=True, description="zstd, then age; false: stored as is")
    stored_in: Identity | Literal[""] = Field(
        default="",
        description="id of the earlier backup that stores it under the same name; empty: this one",
    )


def _short(value: Any) -> Any:
    return short_name(value, ITEM_CHARACTERS) if isinstance(value, str) else value


# Of what was counted. A refusal would end the backup of all other things, so a long one is shortened.
Item = Annotated[Label, BeforeValidator(_short)]


class Measure(Part):
    """The measure of one item, to compare a restore with."""

    unit: Item = Field(description="database, shard, stream, bucket or collection")
    item: Item = Field(description="table, type of key, label: what was counted")
    count: int = Field(ge=0, description="rows, keys, messages, versions, points, nodes")
    until: Annotated[int, Field(ge=0)] | None = Field(
        default=None,
        description="count after the backup, if it changed during the backup: which of these were stored is unknown",
    )
    digest: Digest = Field(
        default="",
        description="independent of order; empty: counted only; `sealed`: in the artefact with the digests",
    )
    origin: Literal["source", "artefact"] = Field(
        description="measured by the engine at the artefact's recovery point, or computed from the artefact"
    )
    names: Names = Field(
        default={},
        description="definitions that were counted, if few: name → part of its digest or `sealed`, so that a missing "
        "one can be named",
    )


class Consistency(Part):
    """The recovery point of a unit."""

    unit: Label = Field(
        description="what is consistent in itself; two units are not consistent with each other"
    )
    point: Label = Field(
        description="the recovery point in the engine's own terms: an LSN, an offset, a sequence"
    )
    begun: AwareDatetime = Field(description="earliest time that the data can be from")
    ended: AwareDatetime = Field(description="latest")


class Engine(Part):
    """The source engine, as precisely as a scratch engine must match it."""

    name: Word = Field(description="product name, as the engine reports it")
    version: Word = Field(description="of the server")
    edition: Word = Field(
        default="", description="community, enterprise; empty if there is only one"
    )
    identity: Label = Field(
        default="", description="the engine's own name for this data: system identifier, cluster id"
    )
    extensions: dict[Label, Word] = Field(
        default={}, description="extensions and modules → version"
    )


class Capabilities(Part):
    """Tested features of the store."""

    conditional_put: bool = Field(description="refuses to overwrite if asked to (If-None-Match)")
    checksums: bool = Field(description="verifies a SHA-256 sent with an object")
    versioning: bool = Field(description="keeps overwritten and deleted objects")
    object_lock: bool = Field(description="can refuse deletion until a date")


class Manifest(Part):
    """One backup: one component, one run."""

    format: Literal[1] = Field(default=1, description="version of this document")
    id: Identity = Field(description="`component-time-nonce`")
    component: Folder = Field(description="engine, or `platform`")
    environment: Folder = Field(description="name of the environment")
    cluster: Word = Field(description="uid of the engines' namespace")
    slot: Label = Field(
        description="idempotency key, usually the date: two runs with one key make one backup"
    )
    kind: Literal["full", "incremental"] = Field(
        default="full", description="whether it depends on other backups"
    )
    needs: tuple[Identity, ...] = Field(
        default=(), description="ids of the backups that it depends on"
    )
    begun: AwareDatetime = Field(description="start of the run")
    ended: AwareDatetime = Field(description="end of the run")
    outcome: Literal["complete", "partial"] = Field(description="partial: see `missing`")
    missing: tuple[Words, ...] = Field(
        default=(), description="what is missing from the backup, with the reason"
    )
    not_covered: tuple[Words, ...] = Field(description="what a backup of this engine never holds")
    engine: Engine
    tools: dict[Label, Words] = Field(default={}, description="programs that were used → version")
    topology: dict[str, Any] = Field(
        default={}, description="state of members, shards, slots, replicas"
    )
    consistency: tuple[Consistency, ...]
    artefacts: tuple[Artefact, ...]
    fingerprint: tuple[Measure, ...]
    states: dict[Label, Digest] = Field(
        default={},
        description="unit → keyed digest of its state when it was stored; an equal one at a later backup means that "
        "the unit has not changed. Only backup workers can compute it",
    )
    store: Capabilities = Field(description="the object store, as tested before the run")
    recipients: tuple[Word, ...] = Field(
        description="age public keys; the holder of any matching private key can read the backup"
    )

    @property
    def prefix(self) -> str:
        """Prefix of the backup in the bucket."""
        return set_prefix(self.environment, self.component, self.id)

    @property
    def interval(self) -> bool:
        """Whether it was taken between two nightly ones, by the component's own schedule."""
        return is_interval(self.slot)

    @property
    def own_key(self) -> str:
        """Key of the manifest itself."""
        return self.prefix + FILE

    def key(self, artefact: Artefact) -> str:
        """Key of an artefact, which may lie in an earlier backup of the same component."""
        holder = artefact.stored_in or self.id
        return set_prefix(self.environment, self.component, holder) + artefact.name

    @property
    def holders(self) -> frozenset[str]:
        """Ids of the earlier backups that store some of its artefacts."""
        return frozenset(artefact.stored_in for artefact in self.artefacts) - {""}

    @property
    def seconds(self) -> float:
        """From start to end of the run."""
        return (self.ended - self.begun).total_seconds()

    @property
    def plain_size(self) -> int:
        """Bytes that were read, without those of artefacts in earlier backups."""
        return sum(artefact.plain_size for artefact in self.artefacts if not artefact.stored_in)

    @property
    def stored_size(self) -> int:
        """Bytes that it takes in the bucket, without those of artefacts in earlier backups."""
        return sum(artefact.stored_size for artefact in self.artefacts if not artefact.stored_in)

    def to_bytes(self, *, as_read: bool = False) -> bytes:
        """The document as it is stored: JSON with a hash of itself, so that any changed byte is detected.

        Args:
            as_read: the one that this was read from, without keys that a later version of this project added.
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
    """Read a stored manifest, and check its signer, its place and its time.

    A manifest stored in another place than it names, or of another time than its id, is refused: an environment's
    retention would otherwise delete backups of another one.

    Args:
        document: its bytes.
        key: of the object that they came from.
        signers: trusted signers.
        now: the present by default.

    Raises:
        PermanentError: it was changed or cut, moved or renamed, is not signed by one of these, or is from another
            version of this project.
    """
    try:
        with PARSING:
            manifest, signer = _signed_by(document, key, signers)
    except NOT_A_DOCUMENT as exc:
        raise PermanentError(f"{key} is not a valid manifest: {brief(exc)}") from exc
    fault = _misplaced(manifest, key, now or datetime.now(UTC))
    fault = fault or out_of_date(signer, manifest.begun)
    if fault:
        raise PermanentError(f"{key} is refused: {fault}")
    return manifest


def brief(exc: Exception) -> str:
    """Return the beginning of an error that may quote foreign text."""
    return str(exc)[:SHOWN]


def component_prefix(environment: str, component: str) -> str:
    """Prefix of a component's backups."""
    return f"{environment}/{component}/"


def set_prefix(environment: str, component: str, identity: str) -> str:
    """Prefix of a backup."""
    return f"{component_prefix(environment, component)}{identity}/"


def new_identity(component: str, begun: datetime, nonce: str) -> str:
    """Create the id of a backup; ids sort by time.

    Args:
        component: engine.
        begun: start of the run.
        nonce: six hexadecimal digits, so that two runs of the same second differ.
    """
    return f"{component}-{begun.astimezone(UTC):%Y%m%dT%H%M%SZ}-{nonce}"


def component_of(identity: str) -> str:
    """Return the component of a backup id."""
    return identity.partition("-")[0]


def is_interval(slot: str) -> bool:
    """Whether a slot is that of a backup between two nightly ones."""
    return _INTERVAL.fullmatch(slot) is not None


def begun_of(identity: str) -> datetime | None:
    """Return the start time in a backup id; None if it is not a backup id."""
    match = IDENTITY.fullmatch(identity)
    if match is None:
        return None
    return datetime.strptime(match["begun"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)


def set_of(key: str) -> str:
    """Return the id of the backup whose manifest has this key; "" if it is not a manifest's."""
    parts = key.split("/")
    named = len(parts) == 4 and parts[3] == FILE and begun_of(parts[2]) is not None
    return parts[2] if named else ""


def _signed_by(
    document: bytes, key: str, signers: Collection[BackupSigner]
) -> tuple[Manifest, BackupSigner]:
    """A manifest and its signer; the model is built after the signature is checked."""
    body = parse(document)
    claimed = body.pop("sha256", "")
    signed = {name: body.pop(name, "") for name in (SIGNER, SIGNATURE)}
    if body.get("format") != FORMAT:
        found = repr(body.get("format"))[:SHOWN]
        raise PermanentError(f"{key}: format {found}; this version reads {FORMAT}")
    content = canonical(body)
    if claimed != hashlib.sha256(content).hexdigest():
        raise PermanentError(
            f"{key}: its hash does not match: it was changed, or damaged in the store"
        )
    try:
        signer = check_signature(content, signed, signers)
    except PermanentError as exc:
        raise PermanentError(f"{key} is refused: {exc}") from exc
    return Manifest.model_validate(body), signer


def _misplaced(manifest: Manifest, key: str, now: datetime) -> str:
    """Return why a manifest does not belong to the backup it is stored with; "" if it does."""
    if manifest.own_key != key:
        return f"it is the manifest of {manifest.own_key}: it was moved or copied"
    if component_of(manifest.id) != manifest.component:
        return f"its component is {manifest.component}"
    if begun_of(manifest.id) != manifest.begun.replace(microsecond=0):
        return f"it began at {manifest.begun:%Y-%m-%d %H:%M:%S}, but its id names another time"
    if any(not _earlier(needed, manifest) for needed in manifest.needs):
        return "it depends on a backup that is not an earlier one of its component"
    if strange := sorted(manifest.holders - {*manifest.needs}):
        return f"it refers to artefacts in {strange[0]}, which is not one of the backups that it depends on"
    if manifest.ended < manifest.begun:
        return "it ended before it began"
    if manifest.begun > now + CLOCK_TOLERANCE:
        return "its date is in the future: check the clock of the worker that wrote it"
    return ""


def _earlier(needed: str, manifest: Manifest) -> bool:
    return component_of(needed) == manifest.component and needed < manifest.id


def _hash(body: dict[str, Any]) -> str:
    return hashlib.sha256(canonical(body)).hexdigest()


# python -m archive.backup.manifest > docs/reference/manifest.schema.json
if __name__ == "__main__":
    print(json.dumps(Manifest.model_json_schema(), indent=2))
