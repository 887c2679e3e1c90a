"""Digests lie in an encrypted artefact of the backup, not in the manifest that everybody with the bucket can read.

A digest of little data gives the data away: anybody can try one value after another until the digest fits. So the
manifest has counts, names and the hashes of stored (encrypted) bytes; digests, and hashes of plain bytes, are in
`digests.json`. Who compares them can open the backup anyway. Backups of earlier versions have them in the manifest.
"""

from __future__ import annotations

import json
from typing import Literal

from archive.encryption import SUFFIX
from archive.manifest import (
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
    """What the artefact holds."""

    format: Literal[1] = 1
    measures: tuple[MeasureDigest, ...]
    artefacts: dict[FileName, Sha256]


def apart(manifest: Manifest) -> bool:
    """Whether a backup's digests lie in an artefact of their own."""
    return any(one.format == FORM for one in manifest.artefacts)


def document_of(manifest: Manifest) -> bytes:
    """The artefact of a manifest that has its digests."""
    measures = tuple(
        MeasureDigest(unit=one.unit, item=one.item, digest=one.digest, names=one.names)
        for one in manifest.fingerprint
    )
    artefacts = {one.name: one.plain_sha256 for one in manifest.artefacts if one.sealed}
    return canonical(Digests(measures=measures, artefacts=artefacts).model_dump(mode="json"))


def without_digests(manifest: Manifest, artefact: Artefact) -> Manifest:
    """The manifest as it is stored.

    Args:
        manifest: with digests.
        artefact: the one that they were written to.
    """
    measures = (
        one.model_copy(
            update={
                "digest": SEALED if one.digest else "",
                "names": dict.fromkeys(one.names, SEALED),
            }
        )
        for one in manifest.fingerprint
    )
    artefacts = (
        one.model_copy(update={"plain_sha256": ""}) if one.sealed else one
        for one in (*manifest.artefacts, artefact)
    )
    return manifest.model_copy(
        update={"fingerprint": tuple(measures), "artefacts": tuple(artefacts)}
    )


def with_digests(manifest: Manifest, document: bytes) -> Manifest:
    """The manifest as it was before it was stored.

    Args:
        manifest: as it is stored.
        document: the artefact.

    Raises:
        PermanentError: the artefact is of another backup, or of another version of this project.
    """
    try:
        found = Digests.model_validate(json.loads(document))
        known = {(one.unit, one.item): one for one in found.measures}
        measures = tuple(_opened(one, known[one.unit, one.item]) for one in manifest.fingerprint)
        artefacts = tuple(
            one.model_copy(update={"plain_sha256": found.artefacts[one.name]})
            if one.sealed and one.name != NAME + SUFFIX
            else one
            for one in manifest.artefacts
        )
    except NOT_A_DOCUMENT as exc:
        raise PermanentError(f"{NAME} does not belong to {manifest.id}: {brief(exc)}") from exc
    return manifest.model_copy(update={"fingerprint": measures, "artefacts": artefacts})


# ---------------------------------------------------------------------- inside
def _opened(measure: Measure, digest: MeasureDigest) -> Measure:
    return measure.model_copy(update={"digest": digest.digest, "names": digest.names})
