"""Decides whether the last verdict on a backup is still the last one: evidence is append-only.

Each document has a running number and the SHA-256 of the document before it. The highest number of each backup is also
recorded outside the bucket (on the Lease of the component's verifications), because the remaining documents cannot show
that the newest one was deleted. Documents of earlier versions have the number 0 and come first.
A record that cannot be read is not an empty one: the number of each backup is unknown until its next verification.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from archive.backup.manifest import Identity, begun_of, component_of, set_prefix
from archive.bounds import EVIDENCE_BYTES, PROOFS
from archive.evidence.verdicts import Evidence, Proof, believe, proof_of, stored_evidence
from archive.object_store.store import Store
from errors import PermanentError

RECORDED = 400  # backups of a component; retention keeps far fewer
LOST = "lost"  # key of the time, in seconds since 1970, at which a record could not be read
_RECORD = TypeAdapter(
    dict[Identity | Literal["lost"], Annotated[int, Field(strict=True, ge=1, lt=1 << 53)]]
)


@dataclass(frozen=True)
class Record:
    """The highest document numbers of a component's backups, as recorded outside the bucket.

    Attributes:
        numbers: id of a backup → the highest number of its documents.
        lost: seconds since 1970; the numbers of backups older than this are unknown. None if nothing was lost.
    """

    numbers: Mapping[str, int] = field(default_factory=dict)
    lost: float | None = None

    def number(self, backup: str) -> int | None:
        """The highest number of a backup's documents; 0 if it has none, None if that is unknown."""
        if backup in self.numbers or self.lost is None:
            return self.numbers.get(backup, 0)
        begun = begun_of(backup)
        return 0 if begun is not None and begun.timestamp() > self.lost else None

    def extended(self, backup: str, number: int, now: float) -> str:
        """Return this record with one more document, as text.

        Args:
            backup: id.
            number: of its newest document.
            now: seconds since 1970.
        """
        numbers = {**self.numbers, backup: number}
        newest = {identity: numbers[identity] for identity in sorted(numbers)[-RECORDED:]}
        lost_entry = {} if self.lost is None else {LOST: int(min(self.lost, now))}
        return json.dumps({**lost_entry, **newest})


@dataclass(frozen=True)
class Document:
    """One signed document of evidence.

    Attributes:
        proof: parsed from its name.
        evidence: its content.
        sha256: of its bytes.
    """

    proof: Proof
    evidence: Evidence
    sha256: str

    @property
    def position(self) -> tuple[object, ...]:
        """Its position among the documents of its backup."""
        return self.evidence.number, self.proof


def gap(documents: Iterable[Document], recorded: int | None) -> str:
    """Return why the last verdict on a backup cannot be trusted to be the last; "" if it can.

    Only the documents from the last verdict on matter: a newer document supersedes an older missing one, so a new
    verification closes a gap.

    Args:
        documents: all documents of the backup with a trusted signature.
        recorded: the highest number that was recorded outside the bucket; 0 if none was, None if that is unknown.
    """
    ordered = sorted(documents, key=lambda document: document.position)
    if recorded is None:
        return "the recorded number of its verdicts could not be read" if ordered else ""
    newest = ordered[-1].evidence.number if ordered else 0
    if newest < recorded:
        return f"verdict number {recorded} was recorded, but the newest in the bucket is {newest}"
    for index in range(len(ordered) - 1, -1, -1):
        document, previous = ordered[index], ordered[index - 1] if index else None
        number = document.evidence.number
        if previous is not None and number and previous.evidence.number == number:
            return f"there are two verdicts with number {number}"
        if document.proof.told:
            return ""
        if number and not _follows(document.evidence, previous):
            return f"the verdict before number {number} is missing"
    return ""


def crowded(number: int) -> str:
    """Return why the evidence of a backup is not read at all; "" if there are not too many documents."""
    if number <= PROOFS:
        return ""
    return (
        f"{number} objects beside it have names of verdicts; at most {PROOFS} are read: delete those that no "
        "verification wrote"
    )


def read_document(
    store: Store, proof: Proof, environment: str, backup: str, signers: Collection[str]
) -> Document:
    """Read a document of evidence.

    Args:
        store: the bucket.
        proof: parsed from its name.
        environment: name.
        backup: id.
        signers: trusted public keys.

    Raises:
        PermanentError: it does not count, or does not exist.
    """
    body = stored_evidence(store, proof.key)
    evidence = believe(proof, body, environment, backup, signers)
    return Document(proof, evidence, hashlib.sha256(body).hexdigest())


def next_link(
    store: Store, environment: str, backup: str, signers: Collection[str], recorded: int
) -> tuple[int, str]:
    """Return the number of the next document of a backup, and the SHA-256 of the one before it ("" if there is none).

    Args:
        store: the bucket.
        environment: name.
        backup: id.
        signers: trusted public keys.
        recorded: the highest number that was recorded outside the bucket; 0 if none was.

    Raises:
        TemporaryError, PermanentError: from the store.
    """
    prefix = set_prefix(environment, component_of(backup), backup)
    documents = []
    entries = [entry for entry in store.list(f"{prefix}proof-") if entry.size <= EVIDENCE_BYTES]
    for entry in (
        entries if len(entries) <= PROOFS else ()
    ):  # of more, no verdict counts (`crowded`)
        proof = proof_of(entry.key, entry.key.removeprefix(prefix))
        if proof is not None:
            with suppress(PermanentError):  # what does not count is no link
                documents.append(read_document(store, proof, environment, backup, signers))
    newest = max(documents, key=lambda item: item.position, default=None)
    if newest is None:
        return recorded + 1, ""
    return max(newest.evidence.number, recorded) + 1, newest.sha256


def read_record(text: str) -> Record:
    """What was recorded of a component's backups; all of it is unknown if the text cannot be read."""
    try:
        numbers = _RECORD.validate_json(text or "{}")
    except ValidationError:
        return Record(lost=math.inf)
    lost = numbers.pop(LOST, None)
    return Record(numbers, lost)


# ---------------------------------------------------------------------- inside
def _follows(evidence: Evidence, previous: Document | None) -> bool:
    """Whether a document is the one right before another."""
    if previous is None:
        return evidence.number == 1 and not evidence.previous
    return previous.sha256 == evidence.previous and previous.evidence.number == evidence.number - 1
