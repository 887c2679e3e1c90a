"""What a stream is and holds: its configuration, its state at the snapshot's moment, its consumers, its messages.

Messages and consumers that time takes are counted apart. A consumer with an end by inactivity goes in a proof, too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any

from archive.manifest import Manifest, Measure
from components.digest import expiring, few, part
from components.nats.messages import Seen

MESSAGES, EXPIRING, CONFIGURATION = "messages", "messages that expire", "configuration"
CONSUMERS, EXPIRING_CONSUMERS = "consumers", "consumers that expire"
# What is not the stream's own: the platform that it is on, and what its server writes beside the owner's metadata.
ELSEWHERE = ("name", "num_replicas", "placement")
SERVERS_OWN = "_nats."
# What a consumer is, without what its server fills in or what moves while it is read.
CONSUMER_KEYS = (
    "durable_name",
    "ack_policy",
    "filter_subject",
    "filter_subjects",
    "deliver_policy",
    "max_deliver",
)


def measures(
    unit: str,
    state: dict[str, Any],
    consumers: Iterable[dict[str, Any]],
    seen: Seen,
    until: int | None = None,
    *,
    consumers_apart: bool = False,
) -> list[Measure]:
    """The measures of a stream. Messages and consumers that expire are some by themselves where they are counted apart:
    a restore may have any number of them.

    Args:
        unit: its name in the manifest.
        state: at the snapshot's moment.
        consumers: as JetStream lists them.
        seen: what `measure_messages` found.
        until: as many messages may have been there before clients took them.
        consumers_apart: whether consumers that expire are counted apart.
    """
    promised, subjects = int(state["messages"]), int(state.get("num_subjects", 0))
    digest = seen.digest if seen.count == promised else ""
    wanted = promised - seen.expiring
    fewest: int | None = None
    passing: list[Measure] = []
    if seen.apart:
        # it is unknown which of both the messages were that had left before they were read
        most = seen.expiring + promised - seen.count
        fewest = max(0, subjects - most)
        if promised > seen.count:
            until = promised - most
        passing = [expiring(unit, EXPIRING, most)]
    durable = [c for c in consumers if c["config"].get("durable_name")]
    if consumers_apart:
        passing += [expiring(unit, EXPIRING_CONSUMERS, sum(map(consumer_expires, durable)))]
        durable = [c for c in durable if not consumer_expires(c)]
    named = {str(c["name"]): _consumer(c) for c in durable}
    text = json.dumps(named, sort_keys=True)
    return [
        Measure(
            unit=unit, item=MESSAGES, count=wanted, until=until, digest=digest, origin="source"
        ),
        Measure(unit=unit, item="subjects", count=subjects, until=fewest, origin="source"),
        Measure(unit=unit, item="last sequence", count=int(state["last_seq"]), origin="source"),
        Measure(
            unit=unit,
            item=CONSUMERS,
            count=len(named),
            digest=blake2b(text.encode(), digest_size=16).hexdigest(),
            origin="source",
            names=few({name: part(consumer) for name, consumer in named.items()}),
        ),
        *passing,
    ]


def measure_configuration(
    unit: str, config: Mapping[str, Any], saved: Mapping[str, Any]
) -> Measure:
    """The measure of what a stream is: subjects, limits, what it mirrors, gathers and republishes, setting by setting.

    Args:
        unit: its name in the manifest.
        config: as its server has it.
        saved: as its backup has it; what a newer server adds to that by itself is no difference.
    """
    named = {key: part(value) for key, value in _own(config).items() if key in _own(saved)}
    return Measure(
        unit=unit,
        item=CONFIGURATION,
        count=len(named),
        digest=part(named),
        origin="source",
        names=few(named),
    )


def has_configuration(manifest: Manifest, unit: str) -> bool:
    """Whether a backup measured its stream's configuration: earlier ones did not, and are as good for that."""
    return measured(manifest, unit, CONFIGURATION) is not None


def consumer_expires(consumer: Mapping[str, Any]) -> bool:
    """Whether NATS deletes a consumer that is unused for some time."""
    return bool(consumer["config"].get("inactive_threshold"))


def has_expiring_consumers(manifest: Manifest, unit: str) -> bool:
    """Whether a backup counted its stream's consumers that expire apart."""
    return measured(manifest, unit, EXPIRING_CONSUMERS) is not None


def has_expiring(manifest: Manifest, unit: str) -> bool:
    """Whether a backup counted its stream's messages that expire apart: earlier ones did not."""
    return measured(manifest, unit, EXPIRING) is not None


def measured(manifest: Manifest, unit: str, item: str) -> Measure | None:
    """What a backup measured of a stream, if it did."""
    found = (
        measure for measure in manifest.fingerprint if measure.unit == unit and measure.item == item
    )
    return next(found, None)


# ---------------------------------------------------------------------- inside
def _own(config: Mapping[str, Any]) -> dict[str, Any]:
    """Explicitly set values: one server writes a default and another leaves it out, which is no difference."""
    metadata = config.get("metadata") or {}
    kept = {key: value for key, value in metadata.items() if not key.startswith(SERVERS_OWN)}
    found = {**config, "metadata": kept}
    return {key: value for key, value in found.items() if value and key not in ELSEWHERE}


def _consumer(info: dict[str, Any]) -> dict[str, Any]:
    config = info["config"]
    kept = {key: config[key] for key in CONSUMER_KEYS if config.get(key)}
    return {**kept, "acknowledged": info.get("ack_floor", {}).get("stream_seq", 0)}
