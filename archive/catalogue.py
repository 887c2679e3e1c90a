"""Which backup sets there are: those with a manifest, and no others."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from archive.evidence import Proof, believe, proof_of
from archive.manifest import FILE, IDENTITY, Manifest, component_prefix, read_manifest, set_prefix
from archive.signing import Trust
from archive.store import Missing, Refused, Store
from errors import PermanentError

READERS = 8  # manifests are small: their time is the round trip


@dataclass(frozen=True)
class Catalogue:
    """What an environment's part of the bucket holds.

    Attributes:
        sets: committed ones, the oldest first.
        broken: key of a manifest that cannot be read → why.
        uncommitted: prefixes with objects but without a manifest: under way, or abandoned.
        proofs: id of a set → its proofs, time and verdict of each, the oldest first. Its last verdict was read, and is
            the verify pool's own word on this very manifest.
        disbelieved: key of a proof that is not → why.
    """

    sets: tuple[Manifest, ...]
    broken: dict[str, str]
    uncommitted: tuple[str, ...]
    proofs: dict[str, tuple[Proof, ...]] = field(default_factory=dict)
    disbelieved: dict[str, str] = field(default_factory=dict)

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

    def sound(self, component: str) -> tuple[Manifest, ...]:
        """The same without those whose last proof failed; none where the newest whole one failed and rests on others.

        Where its fault lies is not known then: it may be in what it rests on, and the next would have it too.
        """
        whole = [one for one in self.of(component) if one.outcome == "complete"]
        if whole and whole[-1].needs and self.verdict(whole[-1].id) == "fail":
            return ()
        return tuple(one for one in self.of(component) if self.verdict(one.id) != "fail")

    def latest(self, component: str) -> Manifest | None:
        """A component's newest set."""
        return next(reversed(self.of(component)), None)


def read_catalogue(
    store: Store,
    environment: str,
    components: Iterable[str],
    trust: Trust,
) -> Catalogue:
    """List the sets of some components.

    Args:
        store: the bucket.
        environment: name.
        components: names.
        trust: whose manifests and verdicts count.

    Raises:
        TemporaryError, PermanentError: the bucket cannot be listed.
    """
    committed: list[str] = []
    uncommitted: list[str] = []
    proofs: dict[str, list[Proof]] = {}
    for component in components:
        root = component_prefix(environment, component)
        found: dict[str, bool] = {}
        for entry in store.list(root):
            identity, _, name = entry.key.removeprefix(root).partition("/")
            if IDENTITY.fullmatch(identity):
                prefix = f"{root}{identity}/"
                found[prefix] = found.get(prefix, False) or name == FILE
                proof = proof_of(entry.key, name)
                if proof is not None:
                    proofs.setdefault(identity, []).append(proof)
        committed += [prefix + FILE for prefix, has in found.items() if has]
        uncommitted += [prefix for prefix, has in found.items() if not has]
    sets: list[Manifest] = []
    broken: dict[str, str] = {}
    with ThreadPoolExecutor(READERS) as pool:
        for key, answer in zip(
            committed, pool.map(lambda key: _read(store, key, trust), committed), strict=True
        ):
            if isinstance(answer, Manifest):
                sets.append(answer)
            elif answer:
                broken[key] = answer
        by_id = {one.id: one for one in sets}
        disbelieved: dict[str, str] = {}

        def sift(identity: str) -> None:
            for proof in sorted(proofs[identity], reverse=True):
                why = _doubt(store, proof, environment, identity, by_id.get(identity), trust)
                if not why and proof.told:
                    return
                if why:
                    proofs[identity].remove(proof)
                    disbelieved[proof.key] = why

        list(pool.map(sift, tuple(proofs)))
    return Catalogue(
        tuple(sorted(sets, key=lambda one: one.begun)),
        broken,
        tuple(uncommitted),
        {identity: tuple(sorted(found)) for identity, found in proofs.items() if found},
        disbelieved,
    )


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
        return read_manifest(store.get(key), key, trust.backups)
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


def _doubt(
    store: Store,
    proof: Proof,
    environment: str,
    identity: str,
    manifest: Manifest | None,
    trust: Trust,
) -> str:
    """Why a proof is not to be believed; "" if it is."""
    try:
        believe(proof, store.get(proof.key), environment, identity, manifest, trust.proofs)
    except Refused:
        raise
    except PermanentError as exc:  # a missing one too: retention was quicker
        return str(exc)
    return ""


def _read(store: Store, key: str, trust: Trust) -> Manifest | str:
    try:
        return read_manifest(store.get(key), key, trust.backups)
    except Missing:
        return ""  # retention was quicker
    except Refused:
        raise
    except PermanentError as exc:
        return str(exc)
