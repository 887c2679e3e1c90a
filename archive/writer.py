"""Writes one backup set: artefacts first, the manifest last."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from archive.manifest import FILE, Artefact, Manifest
from archive.seal import SUFFIX, seal
from archive.spool import Spool, require_room
from archive.store import Store
from archive.upload import part_size
from errors import IsaError


class SetWriter:
    """A set that is being made. Safe to use from several threads.

    Args:
        store: the bucket.
        prefix: where the set is to lie.
        recipients: age public keys.
        spool: directory for streams that do not wait.
        watch: called with name and size of every piece before it is stored; progress, and the place where a cancelled
            run ends.
    """

    def __init__(
        self,
        store: Store,
        prefix: str,
        recipients: tuple[str, ...],
        spool: Path,
        watch: Callable[[str, int], None] = lambda name, size: None,
    ) -> None:
        self.store = store
        self.prefix = prefix
        self.recipients = recipients
        self._spool = spool
        self._watch = watch
        self._lock = threading.Lock()
        self._artefacts: dict[str, Artefact] = {}

    @property
    def artefacts(self) -> tuple[Artefact, ...]:
        """What has been stored, by name."""
        return tuple(self._artefacts[name] for name in sorted(self._artefacts))

    def add(
        self, name: str, unit: str, form: str, source: Iterable[bytes], estimate: int = 0
    ) -> Artefact:
        """Store a stream, compressed and encrypted.

        Args:
            name: of the plain file, below the set.
            unit: what of the engine it holds.
            form: what is inside, as the tool that reads it calls it.
            source: the plain bytes.
            estimate: of their number; decides the part size.

        Raises:
            TemporaryError, PermanentError: the store's; whatever the source raised.
        """
        part = part_size(estimate)
        key = f"{self.prefix}{name}{SUFFIX}"
        sealed = seal(self._watched(name, source), self.store, key, self.recipients, part)
        return self._note(
            Artefact(
                name=name + SUFFIX,
                unit=unit,
                format=form,
                plain_size=sealed.plain_size,
                plain_sha256=sealed.plain_sha256,
                stored_size=sealed.stored_size,
                stored_sha256=sealed.stored_sha256,
                part_size=part,
            )
        )

    def add_json(self, name: str, unit: str, document: Any) -> Artefact:
        """Store a small document."""
        text = json.dumps(document, indent=1, sort_keys=True, default=str)
        return self.add(name, unit, "JSON", [text.encode()])

    def spooled(self, source: Iterable[bytes], expected: int) -> Spool:
        """Drain a stream that does not wait onto the disk.

        Args:
            source: the stream.
            expected: bytes, at most.

        Raises:
            PermanentError: the disk has less.
        """
        require_room(self._spool, expected)
        return Spool(source, self._spool)

    def commit(self, manifest: Manifest) -> str:
        """Make the set exist; returns the manifest's key."""
        key = self.prefix + FILE
        self.store.put(key, manifest.to_bytes())
        return key

    def discard(self) -> None:
        """Delete what was stored of a set that will not be; what that leaves, the sweep finds."""
        try:
            for entry in self.store.list(self.prefix):
                self.store.purge(entry.key)
        except IsaError:
            return

    def _note(self, artefact: Artefact) -> Artefact:
        with self._lock:
            self._artefacts[artefact.name] = artefact
        return artefact

    def _watched(self, name: str, source: Iterable[bytes]) -> Iterator[bytes]:
        for piece in source:
            self._watch(name, len(piece))
            yield piece
