"""The result of a verification, stored with its backup and signed, so that no one else can forge it.

The key is derived from the verify pool's age identity (HKDF, RFC 5869; Ed25519, RFC 8032): the pool that can decrypt
the backups signs the verdicts, and there is no second secret to keep. `signer` is its public half, the same for every
verification of a pool.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import AwareDatetime, Field

from archive.backup.encryption import SUFFIX, encrypt
from archive.backup.manifest import (
    NOT_A_DOCUMENT,
    PARSING,
    FileName,
    Folder,
    Identity,
    Label,
    Manifest,
    Part,
    Sha256,
    Words,
    brief,
)
from archive.bounds import EVIDENCE_BYTES, parse
from archive.object_store.store import Store
from archive.object_store.upload import part_size
from archive.signing import canonical, public_half
from errors import PermanentError

Verdict = Literal["pass", "partial", "fail", "error"]
GOOD = ("pass", "partial")  # verdicts
Level = Literal["", "L0", "L1", "L2", "L3", "L4"]
NAME = re.compile(r"proof-(?P<at>\d{8}T\d{6}\.\d{3}Z)-(?P<verdict>pass|partial|fail|error)\.json")
PURPOSE = b"isa-cloud evidence 1"


class Difference(Part):
    """A difference between source and restored data."""

    unit: Label = Field(description="database, shard, stream, bucket or collection")
    item: Label = Field(description="table, type of key, label")
    what: Words = Field(description="in words, with the numbers")


class Evidence(Part):
    """The result of one verification of one backup."""

    format: Literal[1] = 1
    set: Identity = Field(description="id of the backup")
    component: Folder
    environment: Folder
    manifest_sha256: Sha256 | Literal[""] = Field(
        description="of the manifest's bytes as they were read; empty: unreadable"
    )
    verdict: Verdict
    level: Level = Field(description="highest level that passed")
    failed_at: Level = Field(default="", description="level that failed")
    reason: Words = Field(default="", description="why it is not a pass")
    words: FileName | Literal[""] = Field(
        default="", description="object beside it with the engine's own message, encrypted"
    )
    number: int = Field(
        default=0,
        ge=0,
        description="running number of this backup's verdicts; 0: of an earlier version",
    )
    previous: Sha256 | Literal[""] = Field(
        default="", description="of the verdict before this one; empty: this is the first"
    )
    chain: dict[Identity, Sha256] = Field(
        default={},
        description="id of each backup that it depends on → SHA-256 of that backup's manifest",
    )
    point: Label = Field(
        default="",
        description="time or LSN between two backups that was recovered to; empty: the backup itself was verified",
    )
    reached: Words = Field(default="", description="where that recovery stopped, in words")
    begun: AwareDatetime
    seconds: float = Field(description="wall time of the whole verification")
    stages: dict[Label, float] = Field(default={}, description="seconds of each part of it")
    scratch: Label = Field(
        default="", description="engine that it was restored into, with its version"
    )
    compared: int = Field(default=0, description="checks that were compared")
    things: int = Field(default=0, description="rows, keys, messages … that these count")
    counted_only: tuple[Words, ...] = Field(
        default=(), description="checks without a digest: the source changed while it was read"
    )
    from_artefact: int = Field(
        default=0,
        description="checks whose digest was computed from the artefact, not by the engine",
    )
    differences: tuple[Difference, ...] = ()

    @property
    def sentence(self) -> str:
        """The result in one line, for people."""
        if self.verdict in GOOD and self.point:
            summary = (
                f"recovered to {self.point} ({self.level}): {self.reached}; {self.compared} tables and indexes are "
                f"sound, {self.seconds:.0f} s"
            )
            return f"{summary}; partial: {self.reason}" if self.verdict == "partial" else summary
        if self.verdict in GOOD:
            summary = (
                f"restore verified ({self.level}): {self.compared} checks match over {self.things:,} objects, "
                f"{self.seconds:.0f} s"
            )
            return f"{summary}; partial: {self.reason}" if self.verdict == "partial" else summary
        pointer = f"; the engine's message is encrypted in {self.words}" if self.words else ""
        return f"{self.verdict} at {self.failed_at or 'no level'}: {self.reason}{pointer}"


def file_of(manifest_prefix: str, at: datetime, verdict: str, *, of_point: bool = False) -> str:
    """Key of an evidence document: time and verdict are in its name, so that a listing shows them.

    Args:
        manifest_prefix: of the backup.
        at: start of the verification.
        verdict: of it.
        of_point: whether it is about a point behind the backup, and says nothing of the backup itself.
    """
    kind = "proof-point" if of_point else "proof"
    return f"{manifest_prefix}{kind}-{_stamp(at)}-{verdict}.json"


def seal_words(
    store: Store, prefix: str, at: datetime, message: str, recipients: Sequence[str]
) -> str:
    """Store an engine's message, encrypted for the backup's recipients; returns the object's name in the backup.

    Args:
        store: the bucket.
        prefix: the backup's prefix.
        at: start of the verification.
        message: the message.
        recipients: age public keys.
    """
    name = f"words-{_stamp(at)}.txt{SUFFIX}"
    body = message.encode()
    encrypt([body], store, prefix + name, recipients, part_size(len(body)))
    return name


def write_evidence(store: Store, prefix: str, evidence: Evidence, identity: str) -> str:
    """Store a verdict with its backup; returns its key. Details too large to be read again are left out."""
    key = _signer(identity)
    document = _signed(evidence, key)
    limit = max(len(evidence.differences), len(evidence.counted_only))
    while len(document) > EVIDENCE_BYTES and limit:
        limit //= 2
        document = _signed(_shortened(evidence, limit), key)
    of_point = bool(evidence.point)
    object_key = file_of(prefix, evidence.begun, evidence.verdict, of_point=of_point)
    store.put(object_key, document)
    return object_key


def stored_evidence(store: Store, key: str) -> bytes:
    """Read an evidence document.

    Raises:
        PermanentError: it is too large, or does not exist.
    """
    return store.get(key, EVIDENCE_BYTES)


def read_evidence(document: bytes, source: str, signers: Collection[str]) -> Evidence:
    """Read a verdict, and check its signature.

    Args:
        document: its bytes.
        source: where the bytes come from, for messages.
        signers: public keys; one of them must have signed it.

    Raises:
        PermanentError: it was changed, or signed by another key.
    """
    try:
        with PARSING:
            body = parse(document)
        claimed, signature = body.pop("signer"), bytes.fromhex(body.pop("signature"))
        if claimed not in signers:
            problem = "which is not in verify.signers" if signers else "and verify.signers is empty"
            raise PermanentError(f"{source} is signed by {str(claimed)[:16]}…, {problem}")
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(claimed)).verify(
            signature, canonical(body)
        )
        return Evidence.model_validate(body)
    except InvalidSignature as exc:
        raise PermanentError(f"{source} was changed after it was signed") from exc
    except NOT_A_DOCUMENT as exc:
        raise PermanentError(f"{source} is not a valid verdict: {brief(exc)}") from exc


def signer_of(identity: str) -> str:
    """Return the public signing key, in hexadecimal, that belongs to an age identity."""
    return public_half(_signer(identity))


@dataclass(frozen=True, order=True)
class Proof:
    """The content of an evidence document's name.

    Attributes:
        at: start of the verification.
        verdict: pass, partial, fail or error.
        key: the document's key in the bucket.
    """

    at: datetime
    verdict: str
    key: str

    @property
    def told(self) -> bool:
        """Whether it is a verdict on the backup: an error is not."""
        return self.verdict != "error"

    @property
    def good(self) -> bool:
        """Whether the backup could be restored, at least in part."""
        return self.verdict in GOOD


def proof_of(key: str, name: str) -> Proof | None:
    """Parse the name of an object as an evidence document; None if it is none.

    Args:
        key: of the object.
        name: the same without the backup's prefix.
    """
    match = NAME.fullmatch(name)
    if match is None:
        return None
    at = datetime.strptime(match["at"], "%Y%m%dT%H%M%S.%fZ").replace(tzinfo=UTC)
    return Proof(at, match["verdict"], key)


def believe(
    proof: Proof, document: bytes, environment: str, identity: str, signers: Collection[str]
) -> Evidence:
    """Read a verdict, and check that its content matches its name and the backup it is stored with.

    Args:
        proof: parsed from its name.
        document: its bytes.
        environment: name of it; pools of several environments may share a key.
        identity: of the backup.
        signers: trusted public keys.

    Raises:
        PermanentError: it is not trustworthy.
    """
    evidence = read_evidence(document, proof.key, signers)
    expected = (identity, proof.verdict, _stamp(proof.at))
    if evidence.environment != environment:
        raise PermanentError(f"{proof.key} is of {evidence.environment}, not of {environment}")
    if evidence.point:
        raise PermanentError(
            f"{proof.key} is about a point behind {identity}, not about the backup"
        )
    if (evidence.set, evidence.verdict, _stamp(evidence.begun)) != expected:
        raise PermanentError(
            f"{proof.key} is a {evidence.verdict} of {evidence.set}, stored under another name"
        )
    return evidence


def unfounded(evidence: Evidence, sets: Mapping[str, Manifest]) -> str:
    """Return why a passed verdict is not about the stored backups; "" if it is, or if the verdict is a fail.

    Args:
        evidence: the verdict.
        sets: backups by id; without those whose manifest cannot be read.
    """
    manifest = sets.get(evidence.set)
    if evidence.verdict not in GOOD:
        return ""
    if manifest is None or evidence.manifest_sha256 != manifest_digest(manifest):
        return "was made for another manifest than the stored one"
    for needed in manifest.needs:
        if needed not in sets:
            return f"does not count: {needed}, which the backup depends on, is missing"
        if evidence.number and evidence.chain.get(needed) != manifest_digest(sets[needed]):
            return f"was made for another manifest of {needed}, which the backup depends on"
    return ""


def manifest_digest(manifest: Manifest) -> str:
    """SHA-256 of the document that a manifest was read from: a verdict refers to the manifest by it."""
    with PARSING:  # a large manifest needs as much memory here as for reading it
        return hashlib.sha256(manifest.to_bytes(as_read=True)).hexdigest()


def _signed(evidence: Evidence, key: Ed25519PrivateKey) -> bytes:
    """The document as it is stored."""
    body = evidence.model_dump(mode="json")
    signed = {"signer": public_half(key), "signature": key.sign(canonical(body)).hex()}
    return json.dumps({**body, **signed}, indent=1).encode()


def _shortened(evidence: Evidence, limit: int) -> Evidence:
    """A copy with shortened lists, and the number of omitted entries."""
    differences, counted = evidence.differences[:limit], evidence.counted_only[:limit]
    omitted = len(evidence.differences) - len(differences)
    if omitted:
        differences += (Difference(unit="", item="", what=f"and {omitted} more"),)
    omitted = len(evidence.counted_only) - len(counted)
    if omitted:
        counted += (f"and {omitted} more",)
    return evidence.model_copy(update={"differences": differences, "counted_only": counted})


def _stamp(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y%m%dT%H%M%S.") + f"{at.microsecond // 1000:03d}Z"


def _signer(identity: str) -> Ed25519PrivateKey:
    seed = HKDF(hashes.SHA256(), 32, salt=None, info=PURPOSE).derive(identity.strip().encode())
    return Ed25519PrivateKey.from_private_bytes(seed)
