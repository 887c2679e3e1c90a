"""Decides whether the last verdict on a backup still is the last one: evidence is append-only.

Each document has a running number and the SHA-256 of the document before it. The highest number of each backup is also
recorded outside the bucket (on the Lease of the component's verifications), since nothing that remains in the bucket
shows that its newest document was deleted. Documents of earlier versions have the number 0 and come first.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from archive.evidence import Evidence, Proof, believe, proof_of
from archive.manifest import LARGEST, component_of, set_prefix
from archive.store import Store
from errors import PermanentError

RECORDED = 400  # backups of a component; retention keeps far fewer
_RECORD = TypeAdapter(dict[str, int])


@dataclass(frozen=True)
class Document:
    """One signed document of evidence.

    Attributes:
        proof: what its name says.
        evidence: what it says.
        sha256: of its bytes.
    """

    proof: Proof
    evidence: Evidence
    sha256: str

    @property
    def position(self) -> tuple[object, ...]:
        """Where it stands among the documents of its backup."""
        return self.evidence.number, self.proof


def gap(documents: Iterable[Document], recorded: int) -> str:
    """Why the last verdict on a backup cannot be told from what is in the bucket; "" if it can.

    Only the documents from the last verdict on matter: an older one that is missing says nothing that a newer one does
    not, so a new proof closes a gap.

    Args:
        documents: all those of the backup whose signature counts.
        recorded: the highest number that was recorded outside the bucket; 0 if none was.
    """
    ordered = sorted(documents, key=lambda one: one.position)
    newest = ordered[-1].evidence.number if ordered else 0
    if newest < recorded:
        return (
            f"number {recorded} was recorded and is not in the bucket, the newest there is {newest}"
        )
    for index in range(len(ordered) - 1, -1, -1):
        document, before = ordered[index], ordered[index - 1] if index else None
        number = document.evidence.number
        if before is not None and number and before.evidence.number == number:
            return f"there are two with number {number}"
        if document.proof.told:
            return ""
        if number and not _follows(document.evidence, before):
            return f"the one before number {number} is missing"
    return ""


def read_document(
    store: Store, proof: Proof, environment: str, backup: str, signers: Collection[str]
) -> Document:
    """Read a document of evidence.

    Args:
        store: the bucket.
        proof: what its name says.
        environment: name.
        backup: id.
        signers: public keys of those whose word counts.

    Raises:
        PermanentError: it does not count, or is gone.
    """
    body = store.get(proof.key, LARGEST)
    said = believe(proof, body, environment, backup, signers)
    return Document(proof, said, hashlib.sha256(body).hexdigest())


def next_link(
    store: Store, environment: str, backup: str, signers: Collection[str], recorded: int
) -> tuple[int, str]:
    """Number of the next document of a backup, and SHA-256 of the one before it ("" if there is none).

    Args:
        store: the bucket.
        environment: name.
        backup: id.
        signers: public keys of those whose word counts.
        recorded: the highest number that was recorded outside the bucket; 0 if none was.

    Raises:
        TemporaryError, PermanentError: the store's.
    """
    prefix = set_prefix(environment, component_of(backup), backup)
    documents = []
    for entry in store.list(f"{prefix}proof-"):
        proof = proof_of(entry.key, entry.key.removeprefix(prefix))
        if proof is not None:
            with suppress(PermanentError):  # what does not count is no link
                documents.append(read_document(store, proof, environment, backup, signers))
    newest = max(documents, key=lambda one: one.position, default=None)
    if newest is None:
        return recorded + 1, ""
    return max(newest.evidence.number, recorded) + 1, newest.sha256


def read_record(text: str) -> dict[str, int]:
    """Id of each backup → the highest number of its documents, as it was recorded; empty if it cannot be read."""
    try:
        return _RECORD.validate_json(text or "{}")
    except ValidationError:
        return {}


def extended(record: Mapping[str, int], backup: str, number: int) -> str:
    """A record with one more document.

    Args:
        record: as it was.
        backup: id.
        number: of its newest document.
    """
    newest = {**record, backup: number}
    return json.dumps({one: newest[one] for one in sorted(newest)[-RECORDED:]})


# ---------------------------------------------------------------------- inside
def _follows(evidence: Evidence, before: Document | None) -> bool:
    """Whether a document is the one right before another."""
    if before is None:
        return evidence.number == 1 and not evidence.previous
    return before.sha256 == evidence.previous and before.evidence.number == evidence.number - 1
