"""How the stream of WAL stands, in Prometheus' text format (version 0.0.4)."""

from __future__ import annotations

from archive.wal.names import lsn_number
from config.text.prometheus import gauges
from operations.documents.wal import STREAMING, WalNote

PREFIX = "isa_cloud_wal"


def metrics(note: WalNote, environment: str, component: str) -> str:
    """Write the metrics of a stream; what is not known is left out.

    Args:
        note: how it stands.
        environment: name.
        component: name.
    """
    families: list[tuple[str, str, dict[str, float | None]]] = [
        ("streaming", "1 while WAL is received.", {"": float(note.state == STREAMING)}),
        ("recovery_point_seconds", "Age of the newest stored commit.",
         {"": note.recovery_point_seconds}),
        ("stored_lsn_bytes", "LSN behind the last stored byte, as a number.",
         {"": float(lsn_number(note.stored_lsn)) if note.timeline else None}),
        ("spool_bytes", "WAL that waits for the store.", {"": float(note.spool_bytes)}),
        ("spool_limit_bytes", "Size of the spool at which nothing more is received.",
         {"": float(note.spool_limit_bytes)}),
        ("gaps", "Gaps that streams have left so far.",
         {"": float(note.gaps)}),
        ("last_gap_timestamp_seconds", "When the WAL behind the newest gap began to be stored.",
         {"": note.last_gap.timestamp() if note.last_gap else None}),
        ("diverged", "1 if the server's WAL does not continue the stored one.",
         {"": float(bool(note.diverged))}),
        ("slot_held_bytes", "WAL that a node keeps until it is stored.",
         {slot.member: float(slot.held_bytes) for slot in note.slots}),
        ("slot_limit_bytes", "max_slot_wal_keep_size of a node.",
         {slot.member: slot.limit_bytes for slot in note.slots}),
    ]  # fmt: skip
    own = {"environment": environment, "component": component}
    return gauges(
        (
            f"{PREFIX}_{name}",
            help_text,
            [
                (own | ({"member": member} if member else {}), value)
                for member, value in values.items()
            ],
        )
        for name, help_text, values in families
    )
