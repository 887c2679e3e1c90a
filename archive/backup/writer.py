"""Writes one backup: artefacts first, the manifest last."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from archive.backup import digests
from archive.backup.cleanup_journal import CleanupJournal
from archive.backup.digests import document_of, without_digests
from archive.backup.encryption import SUFFIX, Encrypted, encrypt
from archive.backup.manifest import FILE, Artefact, Manifest
from archive.bounds import excess
from archive.object_store.store import Refused, Store
from archive.object_store.upload import Upload, part_size
from archive.signing import canonical
from archive.streams.spool import Spool, require_room
from errors import IsaError, PermanentError

log = logging.getLogger(__name__)
STATE_PURPOSE = b"isa-cloud state of a unit 1"  # HKDF's info: the signing key itself only signs


class SetWriter:
    """A backup in progress. Safe to use from several threads.

    Args:
        store: the bucket.
        prefix: of the backup.
        recipients: age public keys.
        signing_key: the backup worker's, for the manifest.
        spool: directory for streams that cannot wait.
        earlier: the component's committed backups, the oldest first, that an incremental one may depend on.
        watch: called with name and size of every chunk before it is stored: for progress, and to stop a cancelled run.
        cleanup: resources that engines hold during the backup.
        interval: the backup is one between two nightly ones.
    """

    def __init__(
        self,
        store: Store,
        prefix: str,
        recipients: tuple[str, ...],
        signing_key: Ed25519PrivateKey,
        spool: Path,
        earlier: tuple[Manifest, ...] = (),
        watch: Callable[[str, int], None] = lambda name, size: None,
        cleanup: CleanupJournal | None = None,
        *,
        interval: bool = False,
    ) -> None:
        self.store = store
        self.prefix = prefix
        self.recipients = recipients
        self._signing_key = signing_key
        self.spool = spool
        self.earlier = earlier
        self.interval = interval
        self.cleanup = cleanup or CleanupJournal()
        self._watch = watch
        self._lock = threading.Lock()
        self._artefacts: dict[str, Artefact] = {}

    @property
    def artefacts(self) -> tuple[Artefact, ...]:
        """The artefacts stored so far, by name."""
        return tuple(self._artefacts[name] for name in sorted(self._artefacts))

    def add(
        self, name: str, unit: str, form: str, source: Iterable[bytes], estimate: int = 0
    ) -> Artefact:
        """Store a stream, compressed and encrypted.

        Args:
            name: of the plain file, inside the backup.
            unit: unit of the engine that it holds.
            form: format of the content, named after the tool that reads it.
            source: the plain bytes.
            estimate: of their number; decides the part size.

        Raises:
            TemporaryError, PermanentError: from the store; any exception of the source.
        """
        part = part_size(estimate)
        key = f"{self.prefix}{name}{SUFFIX}"
        stored = encrypt(self._watched(name, source), self.store, key, self.recipients, part)
        return self._note(name + SUFFIX, unit, form, stored, part, sealed=True)

    def add_json(self, name: str, unit: str, document: Any) -> Artefact:
        """Store a small document.

        Raises:
            PermanentError: it holds a value that JSON cannot express.
        """
        try:
            text = json.dumps(document, indent=1, sort_keys=True)
        except TypeError as exc:
            raise PermanentError(f"{name} cannot be stored as JSON: {exc}") from exc
        return self.add(name, unit, "JSON", [text.encode()])

    def add_plain(self, name: str, unit: str, form: str, source: Iterable[bytes]) -> Artefact:
        """Store a stream unencrypted, for the next incremental backup: backup workers have no key to read others.

        Args:
            name: of the object, inside the backup.
            unit: unit that it belongs to.
            form: format of the content; never any of the data itself.
            source: its bytes.
        """
        part = part_size(0)
        with Upload(self.store, self.prefix + name, part) as upload:
            for piece in self._watched(name, source):
                upload.write(piece)
        stored = Encrypted(upload.size, upload.sha256, upload.size, upload.sha256)
        return self._note(name, unit, form, stored, part, sealed=False)

    def read_plain(self, manifest: Manifest, name: str) -> bytes:
        """Read an unencrypted object of an earlier backup.

        Raises:
            PermanentError: it does not exist, or was changed.
        """
        artefact = next(
            (artefact for artefact in manifest.artefacts if artefact.name == name), None
        )
        if artefact is None:
            raise PermanentError(f"{manifest.id} has no {name}")
        data = self.store.get(manifest.key(artefact), artefact.stored_size)
        if hashlib.sha256(data).hexdigest() != artefact.plain_sha256:
            raise PermanentError(
                f"{manifest.key(artefact)} is not what was stored: take a full backup"
            )
        return data

    def spooled(self, source: Iterable[bytes], expected: int) -> Spool:
        """Drain a stream that cannot wait onto the disk.

        Args:
            source: the stream.
            expected: bytes, at most.

        Raises:
            PermanentError: the disk has less free space.
        """
        require_room(self.spool, expected)
        return Spool(source, self.spool, f"the data of {self.prefix}", expected)

    def refer(self, artefact: Artefact, holder: Manifest) -> None:
        """Add an artefact that an earlier backup stores, instead of storing it again.

        Args:
            artefact: as an earlier backup lists it.
            holder: that backup. If it refers to an even older one, so does this one.
        """
        entry = artefact.model_copy(update={"stored_in": artefact.stored_in or holder.id})
        with self._lock:
            self._artefacts[entry.name] = entry

    def keyed_digest(self, value: Any) -> str:
        """Digest of a JSON value that only the backup workers can compute, because it stands in the manifest.

        A new signing key makes all digests differ.
        """
        hkdf = HKDF(hashes.SHA256(), 32, salt=None, info=STATE_PURPOSE)
        key = hkdf.derive(self._signing_key.private_bytes_raw())
        return hmac.digest(key, canonical({"": value}), "sha256").hex()

    def drop(self, folder: str) -> None:
        """Remove from the backup what was stored below a folder; locked objects cannot be deleted and stay.

        Args:
            folder: of the plain names, with its slash.
        """
        with self._lock:
            names = [name for name in self._artefacts if name.startswith(folder)]
            dropped = [self._artefacts.pop(name) for name in names]
        with suppress(IsaError):
            for artefact in dropped:
                if not artefact.stored_in:
                    self.store.purge(self.prefix + artefact.name)

    def commit(self, manifest: Manifest) -> Manifest:
        """Store the digests, encrypted, and then the manifest without them: from then on the backup exists.

        Returns:
            The manifest as it is stored.

        Raises:
            PermanentError: the manifest is too large to be read again.
            TemporaryError: the store did not answer.
        """
        artefact = self.add(digests.NAME, digests.UNIT, digests.FORM, [document_of(manifest)])
        stored = without_digests(manifest, artefact)
        document = stored.signed(self._signing_key)
        if why := excess(document):
            raise PermanentError(
                f"the manifest of {manifest.id} would be too large to read: {why}. Its component has too many objects "
                "to count"
            )
        self.store.put(stored.own_key, document)
        return stored

    def discard(self) -> None:
        """Delete what was stored of a failed backup; garbage collection removes what remains.

        A backup worker's own key may not delete (deployments/object-store): then nothing is deleted here.

        The manifest is deleted first: its upload may have succeeded although it was reported as failed, and a listed
        backup must be complete.
        """
        try:
            self.store.purge(self.prefix + FILE)
            for entry in self.store.list(self.prefix):
                self.store.purge(entry.key)
        except Refused as exc:
            log.warning("%s; the stored objects stay until retention removes them", exc)
        except IsaError:
            return

    def _note(
        self, name: str, unit: str, form: str, stored: Encrypted, part: int, *, sealed: bool
    ) -> Artefact:
        artefact = Artefact(
            name=name, unit=unit, format=form, part_size=part, sealed=sealed, **asdict(stored)
        )
        with self._lock:
            self._artefacts[artefact.name] = artefact
        return artefact

    def _watched(self, name: str, source: Iterable[bytes]) -> Iterator[bytes]:
        for piece in source:
            self._watch(name, len(piece))
            yield piece
