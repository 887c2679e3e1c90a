"""The first step of a scratch pod: fetch, decrypt and unpack a backup into the engine's volume.

`python -m operations.verify.fetch REQUEST DIRECTORY`. It exits with 0, with 3 if the backup is damaged, with 4 if it
is what was stored but cannot be unpacked, or with 75 (EX_TEMPFAIL) if it may be tried again; the last line says why.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from archive.backup.reader import Damaged, SetReader
from archive.catalogue.listing import find_chain
from archive.object_store.store import Store
from archive.signing import Trust
from archive.streams.unpacking import Unreadable, readable
from archive.wal.bucket import WalReader
from archive.wal.point import base_of, find_point, stored_wal
from archive.wal.target import RecoveryTarget
from components import SETS
from config.models import ObjectStoreSettings
from config.sections.backups import BackupSigner
from errors import IsaError
from redaction import redact, shown

DAMAGED, UNREADABLE, AGAIN = 3, 4, 75


def fetch(request: dict[str, Any], directory: Path) -> None:
    """Write a part of a backup to the volume.

    Args:
        request: what `operations.verify.scratch` wrote: environment, set, scratch, store, credentials,
            identity, signers, at (the point that is recovered to; "" for the backup itself).
        directory: the volume.

    Raises:
        Damaged: an artefact is not what was stored.
        Unreadable: it is, but cannot be unpacked.
        IsaError: the store does not answer, or refuses.
    """
    for secret in (*request["credentials"].values(), request["identity"]):
        redact.remember(secret)
    store = Store.open(ObjectStoreSettings(**request["store"]), request["credentials"])
    trust = Trust(tuple(BackupSigner(**signer) for signer in request["signers"]))
    manifest, earlier = find_chain(store, request["environment"], request["set"], trust)
    reader = SetReader(store, manifest, request["identity"], earlier)
    target = SETS[manifest.component]
    with readable(f"an artefact of {manifest.id}"):
        target.restore.place(reader, request["scratch"], directory)
    if request.get("at") and target.point:
        base, at = base_of(manifest), RecoveryTarget.parse(request["at"])
        if base is None:
            raise Damaged(f"{manifest.id} has no base backup")
        wal = stored_wal(store, request["environment"], trust.backups)(base.system)
        reading = WalReader(store, request["identity"])
        target.point.place_wal(find_point(base, wal, at), reading, directory)


def main(request: str, directory: str) -> int:
    """Do it; returns the exit status."""
    try:
        fetch(json.loads(Path(request).read_text(encoding="utf-8")), Path(directory))
    except Damaged as exc:
        print(shown(str(exc)))
        return DAMAGED
    except Unreadable as exc:
        print(redact(exc.plain))  # a tar's own names are nobody's to print
        return UNREADABLE
    except (IsaError, OSError) as exc:
        print(shown(f"{type(exc).__name__}: {exc}"))
        return AGAIN
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
