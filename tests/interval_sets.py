"""Backups of one engine without a cluster around it: a full one, and those between two nights."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyrage
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from archive.backup.manifest import Capabilities, Manifest, new_identity, read_manifest
from archive.backup.reader import SetReader
from archive.backup.writer import SetWriter
from archive.catalogue.listing import find_chain
from archive.object_store.store import Missing
from archive.signing import Trust, public_half
from components.access import Access, Endpoint
from components.base import BackupContent
from config.sections.backups import BackupSigner
from tests.unit.archive.test_digests import Objects


class Bucket(Objects):
    """Objects in memory, for writers, readers and the catalogue."""

    bucket = "backups"

    def get(self, key: str, limit: int = 0, version: str = "") -> bytes:
        if key not in self.objects:
            raise Missing(key)
        return self.objects[key]

    def abort(self, key: str, upload: str) -> None:
        self._parts.pop(key, None)


class Sets:
    """The backups of one engine.

    Args:
        component: name.
        back_up: takes one.
        access: to the engine.
        spool: directory.
    """

    def __init__(
        self,
        component: str,
        back_up: Callable[[Access, SetWriter], BackupContent],
        access: Any,
        spool: Path,
    ) -> None:
        self.store = Bucket()
        self._component, self._back_up, self._access, self._spool = (
            component,
            back_up,
            access,
            spool,
        )
        self._key, self._signer = pyrage.x25519.Identity.generate(), Ed25519PrivateKey.generate()
        self._recipients = (str(self._key.to_public()),)
        self._taken: list[Manifest] = []
        self._begun = datetime.now(UTC) - timedelta(minutes=30)

    def take(self) -> Manifest:
        """Take one: the first is full, the others are between two nights. Their ids are a second apart."""
        self._begun += timedelta(seconds=1)
        begun, slot = self._begun, f"interval-{self._begun:%Y%m%dT%H%MZ}"
        identity = new_identity(self._component, begun, secrets.token_hex(3))
        writer = SetWriter(
            self.store, f"test/{self._component}/{identity}/", self._recipients, self._signer,
            self._spool, tuple(self._taken), interval=bool(self._taken),
        )  # fmt: skip
        content = self._back_up(cast(Access, self._access), writer)
        assert content.missing == ()
        stored = writer.commit(
            Manifest(
                id=identity,
                component=self._component,
                environment="test",
                cluster="uid",
                slot=slot if self._taken else "2026-01-01",
                begun=begun,
                ended=datetime.now(UTC),
                kind="incremental" if content.needs else "full",
                needs=content.needs,
                outcome="complete",
                not_covered=(),
                engine=content.engine,
                topology=content.topology,
                consistency=content.consistency,
                artefacts=writer.artefacts,
                fingerprint=content.fingerprint,
                states=content.states,
                recipients=self._recipients,
                store=Capabilities(
                    conditional_put=True, checksums=True, versioning=False, object_lock=False
                ),
            )
        )
        signers = (BackupSigner(key=public_half(self._signer)),)
        read = read_manifest(self.store.objects[stored.own_key], stored.own_key, signers)
        self._taken.append(read)
        return read

    def reader(self, manifest: Manifest) -> SetReader:
        """Reads one, as a restore does."""
        trust = Trust((BackupSigner(key=public_half(self._signer)),))
        _, earlier = find_chain(self.store, "test", manifest.id, trust)
        return SetReader(self.store, manifest, str(self._key), earlier)

    def bytes_of(self, manifest: Manifest) -> int:
        """Bytes that it takes in the bucket, its manifest included."""
        keys = (key for key in self.store.objects if key.startswith(manifest.prefix))
        return sum(len(self.store.objects[key]) for key in keys)


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def access_to(
    component: str, port: int, spool: Path, http: Any = None, secret: str = "secret"
) -> Any:
    """As much of `Access` as a backup of one local server needs."""
    endpoint = Endpoint(f"{component}-0", "127.0.0.1", port, "127.0.0.1", "")
    engine = SimpleNamespace(full_every_days=1, accounts=())
    backup = SimpleNamespace(spool=spool, stall_seconds=30.0, **{component: engine})
    object_store = SimpleNamespace(endpoint="http://127.0.0.1:1")
    settings = SimpleNamespace(
        components=SimpleNamespace(**{component: SimpleNamespace(members=1)}),
        backup=backup,
        storage=SimpleNamespace(object=object_store),
    )
    return SimpleNamespace(
        settings=settings, endpoints=lambda *_: [endpoint], secret=lambda *_: secret,
        http=http, timeout_seconds=10.0,
    )  # fmt: skip
