"""Which backup sets there are: those with a manifest, and no others."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import chain

from archive.bounds import AT_ONCE_BYTES, EVIDENCE_BYTES, MANIFEST_BYTES
from archive.evidence import Proof, proof_of, unfounded
from archive.evidence_chain import Document, Record, crowded, gap, read_document
from archive.manifest import (
    FILE,
    IDENTITY,
    Manifest,
    component_of,
    component_prefix,
    read_manifest,
    set_prefix,
)
from archive.signing import Trust
from archive.store import Missing, Refused, Store
from archive.stored_dates import StoredDates, judge_dates
from config.backups import BackupSigner
from errors import PermanentError

READERS = 8  # manifests are small: their time is the round trip


@dataclass(frozen=True)
class Catalogue:
    """What an environment's part of the bucket holds.

    Attributes:
        sets: committed ones, the oldest first.
        broken: key of a manifest that cannot be read → why.
        uncommitted: prefixes with objects but without a manifest: under way, or abandoned.
        proofs: id of a set → its proofs, time and verdict of each, the oldest first. Each is the verify pool's own word
            on this very manifest. Of a set with a gap only the bad ones are here.
        disbelieved: key of a proof that does not count → why.
        written: id of a set → the store's date of its manifest.
        oldest: id of a set → the store's date of the oldest of its objects.
        gaps: id of a set whose last verdict is not known, since evidence is missing → what is missing.
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
        """What the store's own dates say of them."""
        return judge_dates({one.id: one for one in self.sets}, self.written, self.oldest)

    @property
    def proven(self) -> set[str]:
        """Ids of the sets whose last verdict is a pass."""
        return {identity for identity in self.proofs if self.verdict(identity) == "pass"}

    def verdict(self, identity: str) -> str:
        """The last verdict on a set, whatever errors came behind it; "" if there is none."""
        last = self.last(identity)
        return last.verdict if last else ""

    def last(self, identity: str) -> Proof | None:
        """The proof that this verdict is of."""
        told = [proof for proof in self.proofs.get(identity, ()) if proof.told]
        return told[-1] if told else None

    def of(self, component: str) -> tuple[Manifest, ...]:
        """A component's sets, the oldest first."""
        return tuple(one for one in self.sets if one.component == component)

    def proofs_of(self, component: str) -> list[tuple[Proof, str]]:
        """The proofs of a component's sets, the oldest first, each with the id of its set."""
        return sorted(
            (proof, identity)
            for identity, found in self.proofs.items()
            if component_of(identity) == component
            for proof in found
        )

    def refused(self, identity: str) -> str:
        """Why a set is not to be relied on: its last proof failed, or nobody knows how it ended; "" otherwise."""
        if self.verdict(identity) == "fail":
            return f"the last proof of {identity} failed: take another set (`isa proofs`)"
        if identity in self.gaps:
            return (
                f"the last verdict on {identity} is unknown, since evidence is missing: {self.gaps[identity]}. "
                f"`isa verify {identity}` finds out whether it can be restored; or take another set (`isa proofs`)"
            )
        return ""

    def sound(self, component: str) -> tuple[Manifest, ...]:
        """The same without those that are refused; none where the newest whole one is, and rests on others.

        Where its fault lies is not known then: it may be in what it rests on, and the next would have it too.
        """
        whole = [one for one in self.of(component) if one.outcome == "complete"]
        if whole and whole[-1].needs and self.refused(whole[-1].id):
            return ()
        return tuple(one for one in self.of(component) if not self.refused(one.id))

    def latest(self, component: str) -> Manifest | None:
        """A component's newest set."""
        return next(reversed(self.of(component)), None)


def read_catalogue(
    store: Store,
    environment: str,
    components: Iterable[str],
    trust: Trust,
    recorded: Mapping[str, Record] | None = None,
) -> Catalogue:
    """List the sets of some components.

    Args:
        store: the bucket.
        environment: name.
        components: names.
        trust: whose manifests and verdicts count.
        recorded: component → what is recorded outside the bucket of the evidence on its sets.

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
        found: dict[str, bool] = {}
        for entry in store.list(root):
            identity, _, name = entry.key.removeprefix(root).partition("/")
            if IDENTITY.fullmatch(identity):
                prefix = f"{root}{identity}/"
                found[prefix] = found.get(prefix, False) or name == FILE
                oldest[identity] = min(entry.modified, oldest.get(identity, entry.modified))
                if name == FILE:
                    written[identity] = entry.modified
                    sizes[entry.key] = entry.size
                proof = proof_of(entry.key, name)
                if proof is not None and entry.size > EVIDENCE_BYTES:
                    ignored[entry.key] = (
                        f"{entry.key} has {entry.size} bytes, more than any verification: it is not read"
                    )
                elif proof is not None:
                    proofs.setdefault(identity, []).append(proof)
        uncommitted += [prefix for prefix, has in found.items() if not has]
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
        known = {*proofs, *(numbers & {one.id for one in sets})}
        judge = _Judge(store, environment, {one.id: one for one in sets}, trust, recorded or {})
        judged = dict(
            zip(known, pool.map(lambda one: judge(one, proofs.get(one, [])), known), strict=True)
        )
    return Catalogue(
        tuple(sorted(sets, key=lambda one: one.begun)),
        broken,
        tuple(uncommitted),
        {identity: one.proofs for identity, one in judged.items() if one.proofs},
        ignored | {key: why for one in judged.values() for key, why in one.disbelieved.items()},
        {identity: one.gap for identity, one in judged.items() if one.gap},
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
    """Read a manifest from the bucket, unless it is larger than any.

    Args:
        store: the bucket.
        key: of the object.
        signers: whose signature counts.
        size: bytes, as it was listed; None if it was not.
        version: its identity; the current one if left out.

    Raises:
        Missing: there is none.
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
    """Read one set's manifest.

    Raises:
        PermanentError: no such set, or its manifest is damaged or not signed by a backup worker.
    """
    match = IDENTITY.fullmatch(identity)
    if match is None:
        raise PermanentError(f"{identity!r} is no id of a backup: `isa backups` lists them")
    key = set_prefix(environment, match["component"], identity) + FILE
    try:
        return fetch_manifest(store, key, trust.backups)
    except Missing as exc:
        raise PermanentError(
            f"there is no backup {identity} of {environment}: `isa backups` lists them"
        ) from exc


def find_chain(
    store: Store, environment: str, identity: str, trust: Trust
) -> tuple[Manifest, tuple[Manifest, ...]]:
    """Read one set's manifest, and those of the sets that it needs.

    Raises:
        PermanentError: one of them is not there, or its manifest is damaged.
    """
    manifest = find_set(store, environment, identity, trust)
    return manifest, tuple(find_set(store, environment, one, trust) for one in manifest.needs)


@dataclass(frozen=True)
class _Judged:
    """The proofs of a set that count, and why others do not."""

    proofs: tuple[Proof, ...]
    disbelieved: dict[str, str]
    gap: str


@dataclass(frozen=True)
class _Judge:
    """Decides what the evidence of a set says; the one place that does."""

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
        for one in documents:
            why = unfounded(one.evidence, self.sets)
            if why:
                disbelieved[one.proof.key] = f"{one.proof.key} {why}"
        record = self.recorded.get(component_of(identity), Record())
        missing = gap(documents, record.number(identity)) if self.trust.proofs else ""
        counted = (one.proof for one in documents if one.proof.key not in disbelieved)
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
