"""Digests are in an encrypted artefact of the backup, not in the manifest that everyone with bucket access can read.

A digest of little data reveals the data: anyone can try one value after another until the digest matches. So the
manifest has counts, names and the hashes of stored (encrypted) bytes; digests, and hashes of plain bytes, are in
`digests.json`. Code that compares them can decrypt the backup anyway. Backups of earlier versions have them in the
manifest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Literal

from archive.backup.encryption import SUFFIX
from archive.backup.manifest import (
    NOT_A_DOCUMENT,
    Artefact,
    Digest,
    FileName,
    Label,
    Manifest,
    Measure,
    Names,
    Part,
    Sha256,
    brief,
)
from archive.signing import canonical
from errors import PermanentError

NAME, UNIT, FORM = "digests.json", "fingerprint", "digests"
SEALED = "sealed"  # in the place of a digest; never equal to one, so that what is not opened is never taken for equal


class MeasureDigest(Part):
    """Digest of one thing, and those of its definitions."""

    unit: Label
    item: Label
    digest: Digest
    names: Names


class Digests(Part):
    """Content of the artefact."""

    format: Literal[1] = 1
    measures: tuple[MeasureDigest, ...]
    artefacts: dict[FileName, Sha256]


def apart(manifest: Manifest) -> bool:
    """Whether a backup's digests are in an artefact of their own."""
    return any(artefact.format == FORM for artefact in manifest.artefacts)


def document_of(manifest: Manifest) -> bytes:
    """Return the artefact with the digests of a manifest."""
    measures = tuple(
        MeasureDigest(
            unit=measure.unit, item=measure.item, digest=measure.digest, names=measure.names
        )
        for measure in manifest.fingerprint
    )
    artefacts = {
        artefact.name: artefact.plain_sha256
        for artefact in manifest.artefacts
        if artefact.sealed and not artefact.stored_in
    }
    return canonical(Digests(measures=measures, artefacts=artefacts).model_dump(mode="json"))


def without_digests(manifest: Manifest, artefact: Artefact) -> Manifest:
    """Return the manifest as it is stored.

    Args:
        manifest: with digests.
        artefact: the one that they were written to.
    """
    measures = (
        measure.model_copy(
            update={
                "digest": SEALED if measure.digest else "",
                "names": dict.fromkeys(measure.names, SEALED),
            }
        )
        for measure in manifest.fingerprint
    )
    artefacts = (
        entry.model_copy(update={"plain_sha256": ""}) if entry.sealed else entry
        for entry in (*manifest.artefacts, artefact)
    )
    return manifest.model_copy(
        update={"fingerprint": tuple(measures), "artefacts": tuple(artefacts)}
    )


def with_digests(manifest: Manifest, documents: Mapping[str, bytes]) -> Manifest:
    """Return the manifest with its digests, as before it was stored.

    Args:
        manifest: as it is stored.
        documents: id of the backup → its artefact with the digests, and those of the backups that store some of its
            artefacts: the digests of these units are there.

    Raises:
        PermanentError: the artefact is from another backup, or from another version of this project.
    """
    holders = {artefact.unit: artefact.stored_in or manifest.id for artefact in manifest.artefacts}
    try:
        contents = {
            identity: Digests.model_validate(json.loads(document))
            for identity, document in documents.items()
        }
        by_item = {
            (identity, measure.unit, measure.item): measure
            for identity, content in contents.items()
            for measure in content.measures
        }
        measures = tuple(
            _opened(
                measure,
                by_item[holders.get(measure.unit, manifest.id), measure.unit, measure.item],
            )
            for measure in manifest.fingerprint
        )
        artefacts = tuple(
            artefact.model_copy(
                update={
                    "plain_sha256": contents[artefact.stored_in or manifest.id].artefacts[
                        artefact.name
                    ]
                }
            )
            if artefact.sealed and artefact.name != NAME + SUFFIX
            else artefact
            for artefact in manifest.artefacts
        )
    except NOT_A_DOCUMENT as exc:
        raise PermanentError(f"{NAME} does not belong to {manifest.id}: {brief(exc)}") from exc
    return manifest.model_copy(update={"fingerprint": measures, "artefacts": artefacts})


# ---------------------------------------------------------------------- inside
def _opened(measure: Measure, digest: MeasureDigest) -> Measure:
    return measure.model_copy(update={"digest": digest.digest, "names": digest.names})
