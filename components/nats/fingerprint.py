"""The fingerprint of a stream: its configuration, its state at the snapshot, its consumers, its messages.

Messages and consumers that expire are counted separately. A consumer that NATS deletes when it is not used expires in a
scratch engine too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any

from archive.backup.manifest import Manifest, Measure
from components.digest import expiring, few, part
from components.nats.streams.messages import MessageStats

MESSAGES, EXPIRING, CONFIGURATION = "messages", "messages that expire", "configuration"
CONSUMERS, EXPIRING_CONSUMERS = "consumers", "consumers that expire"
# Settings that belong to the platform, and the prefix of metadata that the server adds to the owner's.
ELSEWHERE = ("name", "num_replicas", "placement")
SERVERS_OWN = "_nats."
# A consumer's own settings: without the server's defaults, and without what changes while it is read.
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
    stats: MessageStats,
    until: int | None = None,
    *,
    consumers_apart: bool = False,
) -> list[Measure]:
    """The measures of a stream.

    Messages and consumers that expire get measures of their own if they are counted separately: any number of them may
    be missing after a restore.

    Args:
        unit: the stream's name in the manifest.
        state: its state at the snapshot.
        consumers: its consumers, as JetStream lists them.
        stats: the result of `measure_messages`.
        until: the largest number of messages that it may have held before clients took some.
        consumers_apart: count consumers that expire separately.
    """
    message_count, subjects = int(state["messages"]), int(state.get("num_subjects", 0))
    digest = stats.digest if stats.count == message_count else ""
    lasting_count = message_count - stats.expiring
    fewest_subjects: int | None = None
    expiring_measures: list[Measure] = []
    if stats.apart:
        # some messages had left before they were read; how many of those would have expired is unknown
        most_expiring = stats.expiring + message_count - stats.count
        fewest_subjects = max(0, subjects - most_expiring)
        if message_count > stats.count:
            until = message_count - most_expiring
        expiring_measures = [expiring(unit, EXPIRING, most_expiring)]
    durable = [c for c in consumers if c["config"].get("durable_name")]
    if consumers_apart:
        expiring_measures += [
            expiring(unit, EXPIRING_CONSUMERS, sum(map(consumer_expires, durable)))
        ]
        durable = [c for c in durable if not consumer_expires(c)]
    durable_by_name = {str(c["name"]): _consumer(c) for c in durable}
    text = json.dumps(durable_by_name, sort_keys=True)
    return [
        Measure(
            unit=unit,
            item=MESSAGES,
            count=lasting_count,
            until=until,
            digest=digest,
            origin="source",
        ),
        Measure(unit=unit, item="subjects", count=subjects, until=fewest_subjects, origin="source"),
        Measure(unit=unit, item="last sequence", count=int(state["last_seq"]), origin="source"),
        Measure(
            unit=unit,
            item=CONSUMERS,
            count=len(durable_by_name),
            digest=blake2b(text.encode(), digest_size=16).hexdigest(),
            origin="source",
            names=few({name: part(consumer) for name, consumer in durable_by_name.items()}),
        ),
        *expiring_measures,
    ]


def measure_configuration(
    unit: str, config: Mapping[str, Any], saved: Mapping[str, Any]
) -> Measure:
    """The measure of a stream's configuration, setting by setting.

    Args:
        unit: the stream's name in the manifest.
        config: its configuration on the server.
        saved: its configuration in the backup. Settings that it lacks are ignored: a newer server adds some by itself.
    """
    digests = {key: part(value) for key, value in _own(config).items() if key in _own(saved)}
    return Measure(
        unit=unit,
        item=CONFIGURATION,
        count=len(digests),
        digest=part(digests),
        origin="source",
        names=few(digests),
    )


def has_configuration(manifest: Manifest, unit: str) -> bool:
    """Whether a backup measured the configuration of a stream. Backups of earlier versions did not; they stay valid."""
    return measured(manifest, unit, CONFIGURATION) is not None


def consumer_expires(consumer: Mapping[str, Any]) -> bool:
    """Whether NATS deletes a consumer when it is not used for some time."""
    return bool(consumer["config"].get("inactive_threshold"))


def has_expiring_consumers(manifest: Manifest, unit: str) -> bool:
    """Whether a backup counted the stream's consumers that expire separately."""
    return measured(manifest, unit, EXPIRING_CONSUMERS) is not None


def has_expiring(manifest: Manifest, unit: str) -> bool:
    """Whether a backup counted the stream's messages that expire separately. Backups of earlier versions did not."""
    return measured(manifest, unit, EXPIRING) is not None


def measured(manifest: Manifest, unit: str, item: str) -> Measure | None:
    """A backup's measure of an item of a stream; None if it has none."""
    matches = (
        measure for measure in manifest.fingerprint if measure.unit == unit and measure.item == item
    )
    return next(matches, None)


# ---------------------------------------------------------------------- inside
def _own(config: Mapping[str, Any]) -> dict[str, Any]:
    """The values that are set. Empty ones are left out: some servers write defaults and others do not."""
    metadata = config.get("metadata") or {}
    own_metadata = {
        key: value for key, value in metadata.items() if not key.startswith(SERVERS_OWN)
    }
    settings = {**config, "metadata": own_metadata}
    return {key: value for key, value in settings.items() if value and key not in ELSEWHERE}


def _consumer(info: dict[str, Any]) -> dict[str, Any]:
    config = info["config"]
    settings = {key: config[key] for key in CONSUMER_KEYS if config.get(key)}
    return {**settings, "acknowledged": info.get("ack_floor", {}).get("stream_seq", 0)}
