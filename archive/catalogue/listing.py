"""Lists backups: those with a manifest, and no others."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import chain

from archive.backup.manifest import (
    FILE,
    IDENTITY,
    Manifest,
    component_of,
    component_prefix,
    read_manifest,
    set_prefix,
)
from archive.backup.references import unfounded_reference
from archive.bounds import AT_ONCE_BYTES, EVIDENCE_BYTES, MANIFEST_BYTES
from archive.catalogue.chain import nightly
from archive.catalogue.stored_dates import StoredDates, judge_dates
from archive.evidence.chain import Document, Record, crowded, gap, read_document
from archive.evidence.verdicts import Proof, proof_of, unfounded
from archive.object_store.store import Missing, Refused, Store
from archive.signing import Trust
from config.sections.backups import BackupSigner
from errors import PermanentError

READERS = 8  # manifests are small: their time is the round trip


@dataclass(frozen=True)
class Catalogue:
    """The content of an environment's part of the bucket.

    Attributes:
        sets: committed backups, the oldest first.
        broken: key of a manifest that cannot be read → why.
        uncommitted: prefixes with objects but without a manifest: in progress, or abandoned.
        proofs: id of a backup → its verdicts, each with time and result, the oldest first. Each is signed by the verify
            pool for this exact manifest. If evidence is missing, only failed ones are listed.
        disbelieved: key of a verdict that does not count → why.
        written: id of a backup → the store's date of its manifest.
        oldest: id of a backup → the store's date of the oldest of its objects.
        gaps: id of a backup whose last verdict is unknown, because evidence is missing → what is missing.
    """

    sets: tuple[Manifest, ...]
    broken: dict[str, str]
    uncommitted: tuple[str, ...]
    proofs: dict[str, tuple[Proof, ...]] = field(default_factory=dict)
    disbelieved: dict[str, str] = field(default_factory=dict)
    gaps: dict[str, str] = field(default_factory=dict)
    written: dict[str, datetime] = field(default_factory=dict)
    oldest: dict[str, datetime] = field(default_factory=dict)

    @property
    def dates(self) -> StoredDates:
        """The comparison of the store's own dates."""
        return judge_dates(
            {manifest.id: manifest for manifest in self.sets}, self.written, self.oldest
        )

    @property
    def proven(self) -> set[str]:
        """Ids of the backups whose last verdict is a pass."""
        return {identity for identity in self.proofs if self.verdict(identity) == "pass"}

    def verdict(self, identity: str) -> str:
        """The last verdict on a backup, ignoring later errors; "" if there is none."""
        last = self.last(identity)
        return last.verdict if last else ""

    def last(self, identity: str) -> Proof | None:
        """The document of that verdict."""
        verdicts = [proof for proof in self.proofs.get(identity, ()) if proof.told]
        return verdicts[-1] if verdicts else None

    def of(self, component: str) -> tuple[Manifest, ...]:
        """A component's backups, the oldest first."""
        return tuple(manifest for manifest in self.sets if manifest.component == component)

    def nightly(self, component: str) -> tuple[Manifest, ...]:
        """The same without those between two nights, unless there are no others."""
        return nightly(self.of(component))

    def proofs_of(self, component: str) -> list[tuple[Proof, str]]:
        """The verdicts on a component's backups, the oldest first, each with the id of its backup."""
        return sorted(
            (proof, identity)
            for identity, proofs in self.proofs.items()
            if component_of(identity) == component
            for proof in proofs
        )

    def refused(self, identity: str) -> str:
        """Return why a backup must not be used: its last verification failed or is unknown; "" otherwise."""
        if self.verdict(identity) == "fail":
            return (
                f"the last verification of {identity} failed: choose another backup (`isa proofs`)"
            )
        if identity in self.gaps:
            return (
                f"the last verdict on {identity} is unknown, because evidence is missing: {self.gaps[identity]}. Run "
                f"`isa verify {identity}` to find out whether it can be restored, or choose another backup (`isa "
                "proofs`)"
            )
        return ""

    def sound(self, component: str) -> tuple[Manifest, ...]:
        """Return the same without refused backups; empty if the newest complete one is refused and depends on others.

        The cause is unknown then: it may be in a backup that it depends on, and the next one would have it too.
        """
        complete = [manifest for manifest in self.of(component) if manifest.outcome == "complete"]
        if complete and complete[-1].needs and self.refused(complete[-1].id):
            return ()
        return tuple(manifest for manifest in self.of(component) if not self.refused(manifest.id))

    def latest(self, component: str) -> Manifest | None:
        """A component's newest backup."""
        return next(reversed(self.of(component)), None)


def read_catalogue(
    store: Store,
    environment: str,
    components: Iterable[str],
    trust: Trust,
    recorded: Mapping[str, Record] | None = None,
) -> Catalogue:
    """List the backups of some components.

    Args:
        store: the bucket.
        environment: name.
        components: names.
        trust: trusted signers of manifests and verdicts.
        recorded: component → the numbers of evidence recorded outside the bucket.

    Raises:
        TemporaryError, PermanentError: the bucket cannot be listed.
    """
    sizes: dict[str, int] = {}
    broken: dict[str, str] = {}
    uncommitted: list[str] = []
    proofs: dict[str, list[Proof]] = {}
    ignored: dict[str, str] = {}
    written: dict[str, datetime] = {}
    oldest: dict[str, datetime] = {}
    for component in components:
        root = component_prefix(environment, component)
        has_manifest: dict[str, bool] = {}
        for entry in store.list(root):
            identity, _, name = entry.key.removeprefix(root).partition("/")
            if IDENTITY.fullmatch(identity):
                prefix = f"{root}{identity}/"
                has_manifest[prefix] = has_manifest.get(prefix, False) or name == FILE
                oldest[identity] = min(entry.modified, oldest.get(identity, entry.modified))
                if name == FILE:
                    written[identity] = entry.modified
                    sizes[entry.key] = entry.size
                proof = proof_of(entry.key, name)
                if proof is not None and entry.size > EVIDENCE_BYTES:
                    ignored[entry.key] = (
                        f"{entry.key} has {entry.size} bytes, more than any verdict: it is not read"
                    )
                elif proof is not None:
                    proofs.setdefault(identity, []).append(proof)
        uncommitted += [prefix for prefix, complete in has_manifest.items() if not complete]
    sets: list[Manifest] = []
    with ThreadPoolExecutor(READERS) as pool:
        small = [key for key, size in sizes.items() if size <= AT_ONCE_BYTES]
        large = [key for key, size in sizes.items() if size > AT_ONCE_BYTES]
        read = partial(_read, store, trust, sizes)
        for key, answer in chain(zip(small, pool.map(read, small), strict=True),
                                 ((key, read(key)) for key in large)):  # fmt: skip
            if isinstance(answer, Manifest):
                sets.append(answer)
            elif answer:
                broken[key] = answer
        numbers = {name for record in (recorded or {}).values() for name in record.numbers}
        ids = {*proofs, *(numbers & {manifest.id for manifest in sets})}
        judge = _Judge(
            store, environment, {manifest.id: manifest for manifest in sets}, trust, recorded or {}
        )
        judged = dict(
            zip(
                ids,
                pool.map(lambda identity: judge(identity, proofs.get(identity, [])), ids),
                strict=True,
            )
        )
    return Catalogue(
        tuple(sorted(sets, key=lambda manifest: manifest.begun)),
        broken,
        tuple(uncommitted),
        {identity: verdicts.proofs for identity, verdicts in judged.items() if verdicts.proofs},
        ignored
        | {key: why for verdicts in judged.values() for key, why in verdicts.disbelieved.items()},
        {identity: verdicts.gap for identity, verdicts in judged.items() if verdicts.gap},
        written,
        oldest,
    )


def fetch_manifest(
    store: Store,
    key: str,
    signers: Collection[BackupSigner],
    size: int | None = None,
    version: str = "",
) -> Manifest:
    """Read a manifest from the bucket, unless it is too large.

    Args:
        store: the bucket.
        key: of the object.
        signers: trusted signers.
        size: bytes, as listed; None if it was not listed.
        version: its identity; the current one if left out.

    Raises:
        Missing: it does not exist.
        PermanentError: it is too large, damaged, or not signed by one of these.
    """
    limit = MANIFEST_BYTES
    if size is not None and size > limit:
        raise PermanentError(
            f"{key} has {size} bytes, more than the {limit} of any manifest: it is not read"
        )
    if size is not None and size <= AT_ONCE_BYTES:
        limit = AT_ONCE_BYTES
    return read_manifest(store.get(key, limit, version), key, signers)


def find_set(store: Store, environment: str, identity: str, trust: Trust) -> Manifest:
    """Read the manifest of one backup.

    Raises:
        PermanentError: the backup does not exist, or its manifest is damaged or not signed by a backup worker.
    """
    match = IDENTITY.fullmatch(identity)
    if match is None:
        raise PermanentError(f"{identity!r} is not a backup id: `isa backups` lists them")
    key = set_prefix(environment, match["component"], identity) + FILE
    try:
        return fetch_manifest(store, key, trust.backups)
    except Missing as exc:
        raise PermanentError(
            f"{environment} has no backup {identity}: `isa backups` lists them"
        ) from exc


def find_chain(
    store: Store, environment: str, identity: str, trust: Trust
) -> tuple[Manifest, tuple[Manifest, ...]]:
    """Read the manifest of one backup, and those of the backups that it depends on.

    Raises:
        PermanentError: one of them does not exist, its manifest is damaged, or it does not store what the backup
            refers to.
    """
    manifest = find_set(store, environment, identity, trust)
    earlier = tuple(find_set(store, environment, needed, trust) for needed in manifest.needs)
    if fault := unfounded_reference(manifest, earlier):
        raise PermanentError(f"{identity} is refused: {fault}")
    return manifest, earlier


@dataclass(frozen=True)
class _Judged:
    """Return the verdicts on a backup that count, and why others do not."""

    proofs: tuple[Proof, ...]
    disbelieved: dict[str, str]
    gap: str


@dataclass(frozen=True)
class _Judge:
    """Evaluate the evidence on a backup; no other code does."""

    store: Store
    environment: str
    sets: Mapping[str, Manifest]
    trust: Trust
    recorded: Mapping[str, Record]

    def __call__(self, identity: str, proofs: Sequence[Proof]) -> _Judged:
        if crowd := crowded(len(proofs)):
            return _Judged((), {}, crowd if self.trust.proofs else "")
        documents: list[Document] = []
        disbelieved: dict[str, str] = {}
        for proof in proofs:
            try:
                documents.append(
                    read_document(self.store, proof, self.environment, identity, self.trust.proofs)
                )
            except Refused:
                raise
            except PermanentError as exc:  # a missing one too: retention was quicker
                disbelieved[proof.key] = str(exc)
        documents.sort(key=lambda one: one.position)
        for document in documents:
            why = unfounded(document.evidence, self.sets)
            if why:
                disbelieved[document.proof.key] = f"{document.proof.key} {why}"
        record = self.recorded.get(component_of(identity), Record())
        missing = gap(documents, record.number(identity)) if self.trust.proofs else ""
        counted = (
            document.proof for document in documents if document.proof.key not in disbelieved
        )
        return _Judged(
            tuple(one for one in counted if not (missing and one.good)), disbelieved, missing
        )


def _read(store: Store, trust: Trust, sizes: Mapping[str, int], key: str) -> Manifest | str:
    try:
        return fetch_manifest(store, key, trust.backups, sizes[key])
    except Missing:
        return ""  # retention was quicker
    except Refused:
        raise
    except PermanentError as exc:
        return str(exc)
