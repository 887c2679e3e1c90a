"""What a proof found, kept beside the set that it is about: signed, so that nobody else can say it.

The key is made from the verify pool's age identity (HKDF, RFC 5869; Ed25519, RFC 8032): who can open the sets is who
can say what is in them, and there is no second secret to keep. `signer` is its public half, the same for every proof
of a pool.
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

from archive.bounds import EVIDENCE_BYTES, parse
from archive.encryption import SUFFIX, encrypt
from archive.manifest import (
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
from archive.signing import canonical, public_half
from archive.store import Store
from archive.upload import part_size
from errors import PermanentError

Verdict = Literal["pass", "partial", "fail", "error"]
GOOD = ("pass", "partial")  # verdicts
Level = Literal["", "L0", "L1", "L2", "L3", "L4"]
NAME = re.compile(r"proof-(?P<at>\d{8}T\d{6}\.\d{3}Z)-(?P<verdict>pass|partial|fail|error)\.json")
PURPOSE = b"isa-cloud evidence 1"


class Difference(Part):
    """Something that did not come back as it was."""

    unit: Label = Field(description="database, shard, stream, bucket or collection")
    item: Label = Field(description="table, type of key, label")
    what: Words = Field(description="in words, with the numbers")


class Evidence(Part):
    """One proof of one set."""

    format: Literal[1] = 1
    set: Identity = Field(description="id of the set")
    component: Folder
    environment: Folder
    manifest_sha256: Sha256 | Literal[""] = Field(
        description="of the manifest's bytes as they were read; empty: unreadable"
    )
    verdict: Verdict
    level: Level = Field(description="highest level that was reached and passed")
    failed_at: Level = Field(default="", description="level that saw the damage")
    reason: Words = Field(default="", description="why it is not a pass")
    words: FileName | Literal[""] = Field(
        default="", description="object beside it with what the engine said to that, sealed"
    )
    number: int = Field(
        default=0,
        ge=0,
        description="running number of this set's documents; 0: of an earlier version",
    )
    previous: Sha256 | Literal[""] = Field(
        default="", description="of the document before this one; empty: this is the first"
    )
    chain: dict[Identity, Sha256] = Field(
        default={}, description="id of each set that it needs → of its manifest's bytes"
    )
    begun: AwareDatetime
    seconds: float = Field(description="wall time of the whole proof")
    stages: dict[Label, float] = Field(default={}, description="seconds of each part of it")
    scratch: Label = Field(
        default="", description="engine that it was restored into, with its version"
    )
    compared: int = Field(default=0, description="measures that were compared")
    things: int = Field(default=0, description="rows, keys, messages … that these count")
    counted_only: tuple[Words, ...] = Field(
        default=(), description="measures without a digest: the source moved while it was read"
    )
    from_artefact: int = Field(
        default=0,
        description="measures whose digest was taken from the artefact, not from the engine",
    )
    differences: tuple[Difference, ...] = ()

    @property
    def sentence(self) -> str:
        """The proof in one line, as people want to read it."""
        if self.verdict in GOOD:
            told = (
                f"restore verified ({self.level}): {self.compared} checks match over {self.things:,} objects, "
                f"{self.seconds:.0f} s"
            )
            return f"{told}; partial: {self.reason}" if self.verdict == "partial" else told
        sealed = f"; its own words are sealed in {self.words}" if self.words else ""
        return f"{self.verdict} at {self.failed_at or 'no level'}: {self.reason}{sealed}"


def file_of(manifest_prefix: str, at: datetime, verdict: str) -> str:
    """Key of a proof's document: time and verdict are in its name, so that a listing tells them."""
    return f"{manifest_prefix}proof-{_stamp(at)}-{verdict}.json"


def seal_words(
    store: Store, prefix: str, at: datetime, said: str, recipients: Sequence[str]
) -> str:
    """Keep what an engine said, for holders of the set's keys only; returns the object's name below the set.

    Args:
        store: the bucket.
        prefix: of the set.
        at: when the proof was begun.
        said: the words.
        recipients: age public keys.
    """
    name = f"words-{_stamp(at)}.txt{SUFFIX}"
    body = said.encode()
    encrypt([body], store, prefix + name, recipients, part_size(len(body)))
    return name


def write_evidence(store: Store, prefix: str, evidence: Evidence, identity: str) -> str:
    """Keep a proof beside its set; returns its key. Details that nobody could read again are left out."""
    key = _signer(identity)
    document = _signed(evidence, key)
    listed = max(len(evidence.differences), len(evidence.counted_only))
    while len(document) > EVIDENCE_BYTES and listed:
        listed //= 2
        document = _signed(_shortened(evidence, listed), key)
    where = file_of(prefix, evidence.begun, evidence.verdict)
    store.put(where, document)
    return where


def stored_evidence(store: Store, key: str) -> bytes:
    """The document of a proof.

    Raises:
        PermanentError: it is larger than any, or gone.
    """
    return store.get(key, EVIDENCE_BYTES)


def read_evidence(document: bytes, where: str, signers: Collection[str]) -> Evidence:
    """Read a proof, and check who says it.

    Args:
        document: its bytes.
        where: they came from, for messages.
        signers: public keys of which one must have signed it.

    Raises:
        PermanentError: it was changed, or somebody else signed it.
    """
    try:
        with PARSING:
            body = parse(document)
        claimed, signature = body.pop("signer"), bytes.fromhex(body.pop("signature"))
        if claimed not in signers:
            whose = "which is not in verify.signers" if signers else "and verify.signers is empty"
            raise PermanentError(f"{where} is signed by {str(claimed)[:16]}…, {whose}")
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(claimed)).verify(
            signature, canonical(body)
        )
        return Evidence.model_validate(body)
    except InvalidSignature as exc:
        raise PermanentError(f"{where} was changed after it was signed") from exc
    except NOT_A_DOCUMENT as exc:
        raise PermanentError(f"{where} is no evidence of a proof: {brief(exc)}") from exc


def signer_of(identity: str) -> str:
    """Public key, in hexadecimal, of whoever holds an age identity."""
    return public_half(_signer(identity))


@dataclass(frozen=True, order=True)
class Proof:
    """What the name of a proof's document says.

    Attributes:
        at: when it was begun.
        verdict: pass, partial, fail or error.
        key: of the document.
    """

    at: datetime
    verdict: str
    key: str

    @property
    def told(self) -> bool:
        """Whether it says anything of the set: an error does not."""
        return self.verdict != "error"

    @property
    def good(self) -> bool:
        """Whether it says that the set can be restored, if only in part."""
        return self.verdict in GOOD


def proof_of(key: str, name: str) -> Proof | None:
    """The proof that an object of a set is; None if it is none.

    Args:
        key: of the object.
        name: the same without the set's prefix.
    """
    match = NAME.fullmatch(name)
    if match is None:
        return None
    at = datetime.strptime(match["at"], "%Y%m%dT%H%M%S.%fZ").replace(tzinfo=UTC)
    return Proof(at, match["verdict"], key)


def believe(
    proof: Proof, document: bytes, environment: str, identity: str, signers: Collection[str]
) -> Evidence:
    """Read a proof, and check that it says what its name does, of the set that it lies beside.

    Args:
        proof: what its name says.
        document: its bytes.
        environment: name of it; pools of several may share a key.
        identity: of the set.
        signers: public keys of whose word counts.

    Raises:
        PermanentError: it is not to be believed.
    """
    said = read_evidence(document, proof.key, signers)
    named = (identity, proof.verdict, _stamp(proof.at))
    if said.environment != environment:
        raise PermanentError(f"{proof.key} is of {said.environment}, not of {environment}")
    if (said.set, said.verdict, _stamp(said.begun)) != named:
        raise PermanentError(f"{proof.key} is a {said.verdict} of {said.set}, under another name")
    return said


def unfounded(said: Evidence, sets: Mapping[str, Manifest]) -> str:
    """Why a good verdict is not about the sets that are there; "" if it is, or if the verdict is bad.

    Args:
        said: the verdict.
        sets: by id; without those whose manifest cannot be read.
    """
    manifest = sets.get(said.set)
    if said.verdict not in GOOD:
        return ""
    if manifest is None or said.manifest_sha256 != manifest_digest(manifest):
        return "is of another manifest than the one beside it"
    for needed in manifest.needs:
        if needed not in sets:
            return f"does not count: {needed}, which the set needs, is missing"
        if said.number and said.chain.get(needed) != manifest_digest(sets[needed]):
            return f"is of another manifest of {needed}, which the set needs"
    return ""


def manifest_digest(manifest: Manifest) -> str:
    """SHA-256 of the document that a manifest was read from: what a proof calls the manifest that it refers to."""
    with PARSING:  # of a large one this takes as much memory as reading it
        return hashlib.sha256(manifest.to_bytes(as_read=True)).hexdigest()


def _signed(evidence: Evidence, key: Ed25519PrivateKey) -> bytes:
    """The document as it is stored."""
    body = evidence.model_dump(mode="json")
    signed = {"signer": public_half(key), "signature": key.sign(canonical(body)).hex()}
    return json.dumps({**body, **signed}, indent=1).encode()


def _shortened(evidence: Evidence, listed: int) -> Evidence:
    """The same with the first of its lists alone, and how many more there were."""
    differences, counted = evidence.differences[:listed], evidence.counted_only[:listed]
    left = len(evidence.differences) - len(differences)
    if left:
        differences += (Difference(unit="", item="", what=f"and {left} more"),)
    left = len(evidence.counted_only) - len(counted)
    if left:
        counted += (f"and {left} more",)
    return evidence.model_copy(update={"differences": differences, "counted_only": counted})


def _stamp(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y%m%dT%H%M%S.") + f"{at.microsecond // 1000:03d}Z"


def _signer(identity: str) -> Ed25519PrivateKey:
    seed = HKDF(hashes.SHA256(), 32, salt=None, info=PURPOSE).derive(identity.strip().encode())
    return Ed25519PrivateKey.from_private_bytes(seed)
