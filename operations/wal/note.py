"""The note of a stream on its Lease: how it stands. Several accounts can write Leases, so it has one strict parser."""

from __future__ import annotations

import json

from operations.documents.wal import WalNote

LONGEST = 16 << 10  # characters; a stream's own notes have about one thousand


def note_text(note: WalNote) -> str:
    """The note as it stands on the Lease."""
    return json.dumps(note.plain())


def read_note(text: str) -> WalNote | None:
    """Read the note on a stream's Lease; None if there is none, or it cannot be read."""
    try:
        if not text or len(text) > LONGEST:
            return None
        return WalNote.read(json.loads(text))
    except (ValueError, RecursionError):
        return None
