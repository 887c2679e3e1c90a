"""Sets that are damaged on purpose: copies of a good one, each with one fault, for proofs to find.

Three kinds: of what lies in the store, of what was sealed, and of what was there to be backed up. A copy has an id
and a manifest of its own, so the good set stays what it is.
"""

from __future__ import annotations

import io
import secrets
import tarfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import pyrage
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from archive.backup import digests
from archive.backup.digests import document_of, without_digests
from archive.backup.encryption import SUFFIX, decrypt, encrypt
from archive.backup.manifest import Artefact, Manifest, new_identity
from archive.backup.reader import SetReader
from archive.catalogue.listing import find_chain
from archive.object_store.store import Store
from archive.signing import Trust, public_half
from config.sections.backups import BackupSigner

PART_BYTES = 8 << 20


@dataclass(frozen=True)
class Forger:
    """Makes damaged copies of sets.

    Attributes:
        store: the bucket.
        identity: age private key that opens the good sets.
        signing_key: of the backup workers: the damage is older than the manifest, or done by whoever holds the key.
    """

    store: Store
    identity: str
    signing_key: Ed25519PrivateKey

    def copy(self, good: Manifest, **changes: Any) -> Manifest:
        """A set like a good one, under a new id; with other contents of the manifest. No later one refers to it."""
        now = datetime.now(UTC)
        identity = new_identity(good.component, now, secrets.token_hex(3))
        times = {
            "begun": now,
            "ended": now,
        }  # a manifest of another time than its id is refused at once
        whole = self.opened(good)
        artefacts = changes.pop("artefacts", whole.artefacts)
        own = {
            "artefacts": tuple(one.model_copy(update={"stored_in": ""}) for one in artefacts),
            "needs": tuple(needed for needed in good.needs if needed not in good.holders),
            "states": {},
        }
        update = {"id": identity, "slot": identity, **own, **times, **changes}
        made = whole.model_copy(update=update)
        for artefact in artefacts:
            self.store.put(made.prefix + artefact.name, self.store.get(good.key(artefact)))
        return self.commit(made)

    def opened(self, stored: Manifest) -> Manifest:
        """A manifest with its digests."""
        return SetReader(self.store, stored, self.identity, self._earlier(stored)).manifest

    def commit(self, made: Manifest) -> Manifest:
        """Store the manifest, and its digests apart from it."""
        name = digests.NAME + SUFFIX
        others = tuple(one for one in made.artefacts if one.name != name)
        bare = made.model_copy(update={"artefacts": others})
        stored = encrypt(
            [document_of(bare)], self.store, made.prefix + name, made.recipients, PART_BYTES
        )
        apart = Artefact(
            name=name,
            unit=digests.UNIT,
            format=digests.FORM,
            part_size=PART_BYTES,
            **asdict(stored),
        )
        final = without_digests(bare, apart)
        self.store.put(final.own_key, final.signed(self.signing_key))
        return final

    def remove(self, made: Manifest) -> None:
        """Forget a copy, with the proofs of it."""
        for entry in list(self.store.list(made.prefix)):
            self.store.purge(entry.key)

    # ------------------------------------------------------------------ in the store
    def flipped(self, good: Manifest, name: str) -> Manifest:
        """One bit in the middle of an object."""
        made, key, body = self._object(good, name)
        middle = len(body) // 2
        self.store.put(key, body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :])
        return made

    def cut(self, good: Manifest, name: str) -> Manifest:
        """An object without its last byte."""
        made, key, body = self._object(good, name)
        self.store.put(key, body[:-1])
        return made

    def missing(self, good: Manifest, name: str) -> Manifest:
        """An object that is not there."""
        made, key, _ = self._object(good, name)
        self.store.purge(key)
        return made

    def swapped(self, good: Manifest, name: str) -> Manifest:
        """The bytes of another sealing of the same: readable, sound, and of another set."""
        made, key, _ = self._object(good, name)
        plain = self._plain(good, name)
        encrypt([plain], self.store, key, good.recipients, PART_BYTES)
        return made

    def edited(self, good: Manifest, name: str) -> Manifest:
        """A manifest that somebody has put his hand to."""
        made = self.copy(good)
        document = self.store.get(made.own_key)
        self.store.put(made.own_key, document.replace(b'"count": ', b'"count": 1', 1))
        return made

    def rewritten(self, good: Manifest, name: str) -> Manifest:
        """A manifest that promises one thing more than the set has, by somebody who knows how to hash it."""
        whole = self.opened(good)
        first = next(one for one in whole.fingerprint if one.digest)
        more = first.model_copy(update={"count": first.count + 1})
        return self.copy(
            good, fingerprint=tuple(more if one is first else one for one in whole.fingerprint)
        )

    # ------------------------------------------------------------------ as it was sealed
    def wrong_key(self, good: Manifest, name: str) -> Manifest:
        """An artefact that was sealed for somebody else, in a manifest that knows nothing of it."""
        stranger = str(pyrage.x25519.Identity.generate().to_public())
        return self._resealed(good, name, self._plain(good, name), (stranger,))

    def garbled(self, good: Manifest, name: str) -> Manifest:
        """An artefact whose inside was damaged before it was hashed and sealed: the engine's tools must see it."""
        plain = self._plain(good, name)
        at = _heart(plain) if name.endswith("base.tar") else len(plain) // 2 - 32
        return self._resealed(good, name, plain[:at] + secrets.token_bytes(64) + plain[at + 64 :])

    def with_content(self, good: Manifest, name: str, plain: bytes) -> Manifest:
        """An artefact with other plain bytes, hashed and sealed as they are: what a hostile tenant's engine gave."""
        return self._resealed(good, name, plain)

    def left_out(self, good: Manifest, name: str) -> Manifest:
        """An artefact that the set does not have, and its manifest does not miss."""
        kept = tuple(a for a in self.opened(good).artefacts if a.name != name + SUFFIX)
        assert len(kept) == len(good.artefacts) - 1, name
        return self.copy(good, artefacts=kept)

    # ------------------------------------------------------------------ as it was taken
    def promising(self, taken: Manifest, promised: Manifest) -> Manifest:
        """What was taken after something had gone, with the fingerprint from before: it promises what it has not."""
        return self.copy(taken, fingerprint=self.opened(promised).fingerprint)

    def with_lists_of(self, taken: Manifest, other: Manifest, name: str) -> Manifest:
        """A set with the fingerprint of another one, and with that one's artefacts of a name: as of a server that
        shows what its snapshot leaves out.
        """
        made = self.copy(taken, fingerprint=self.opened(other).fingerprint)
        lent = {a.name: a for a in other.artefacts if a.name.endswith(name + SUFFIX)}
        for artefact in lent.values():
            self.store.put(made.key(artefact), self.store.get(other.key(artefact)))
        whole = self.opened(made)
        theirs = {
            a.name: a.model_copy(update={"stored_in": ""}) for a in self.opened(other).artefacts
        }
        artefacts = tuple(theirs[a.name] if a.name in lent else a for a in whole.artefacts)
        return self.commit(whole.model_copy(update={"artefacts": artefacts}))

    # ------------------------------------------------------------------ inside
    def _earlier(self, stored: Manifest) -> tuple[Manifest, ...]:
        trust = Trust((BackupSigner(key=public_half(self.signing_key)),))
        return find_chain(self.store, stored.environment, stored.id, trust)[1]

    def _object(self, good: Manifest, name: str) -> tuple[Manifest, str, bytes]:
        made = self.copy(good)
        key = made.key(artefact_of(made, name))
        return made, key, self.store.get(key)

    def _plain(self, good: Manifest, name: str) -> bytes:
        target = io.BytesIO()
        decrypt(self.store, good.key(artefact_of(good, name)), self.identity, target)
        return target.getvalue()

    def _resealed(
        self, good: Manifest, name: str, plain: bytes, recipients: tuple[str, ...] | None = None
    ) -> Manifest:
        made = self.copy(good)
        old, whole = artefact_of(made, name), self.opened(made)
        for_whom = recipients or good.recipients
        stored = encrypt([plain], self.store, made.key(old), for_whom, PART_BYTES)
        new = old.model_copy(update=asdict(stored))
        artefacts = tuple(new if a.name == old.name else a for a in whole.artefacts)
        return self.commit(whole.model_copy(update={"artefacts": artefacts}))


def _heart(tar: bytes) -> int:
    """Somewhere in the largest file of data: the rest of a base backup may be WAL that nobody reads any more."""
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        found = max(
            (e for e in archive if e.isfile() and e.name.startswith(("base/", "./base/"))),
            key=lambda entry: entry.size,
        )
    return found.offset_data + found.size // 2


def artefact_of(manifest: Manifest, name: str) -> Artefact:
    """An artefact by its plain name."""
    return next(a for a in manifest.artefacts if a.name in (name, name + SUFFIX))


def largest(manifest: Manifest) -> str:
    """Plain name of the artefact with most of the data; the one whose damage hurts most."""
    sealed = [a for a in manifest.artefacts if a.sealed and a.format != digests.FORM]
    return max(sealed, key=lambda a: a.stored_size).name.removesuffix(SUFFIX)


Damage = Callable[[Forger, Manifest, str], Manifest]

# What it is → how it is made, and at which level it must be seen: at L0 where the size tells it already.
STORED: dict[str, tuple[Damage, tuple[str, ...]]] = {
    "flipped bit": (Forger.flipped, ("L1",)),
    "cut object": (Forger.cut, ("L0",)),
    "missing object": (Forger.missing, ("L0",)),
    "swapped object": (Forger.swapped, ("L0", "L1")),
    "manifest edited": (Forger.edited, ("L0",)),
    "wrong recipient key": (Forger.wrong_key, ("L1",)),
}
