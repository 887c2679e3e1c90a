"""The state of a stream, asked without reading its messages: equal states mean that an earlier snapshot still holds.

| change | moves |
|---|---|
| a message is stored | last sequence and its time |
| a message is deleted, expires, or is taken from a work queue | messages, bytes, deleted, first sequence |
| the stream is deleted and created or restored | creation time, or times of the first and last message |
| a consumer is created, deleted or changed | its name, creation time, configuration |
| a consumer delivers, or a message is acknowledged | its sequences, pending and redelivered messages |
| a setting of the stream is changed | the configuration |

Ephemeral consumers are not compared: no backup holds them. Neither is what moves by itself: the server's time, the
leader, waiting pulls.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

# Of `StreamState` (server/store.go): without the count of consumers, which counts ephemeral ones too.
STREAM_KEYS = (
    "messages",
    "bytes",
    "first_seq",
    "first_ts",
    "last_seq",
    "last_ts",
    "num_subjects",
    "num_deleted",
    "lost",
)
# Of `ConsumerInfo` (server/consumer.go).
CONSUMER_KEYS = ("name", "created", "config", "num_ack_pending", "num_redelivered")
SEQUENCES = ("delivered", "ack_floor")
SEQUENCE_KEYS = ("consumer_seq", "stream_seq")


def state_of(
    info: Mapping[str, Any], consumers: Iterable[Mapping[str, Any]], version: str
) -> dict[str, Any]:
    """Return the state of a stream, as a JSON value to compare.

    Args:
        info: JetStream's answer to STREAM.INFO.
        consumers: its consumers, as JetStream lists them.
        version: of the server: another one writes other snapshots.
    """
    durable = [consumer for consumer in consumers if consumer["config"].get("durable_name")]
    return {
        "version": version,
        "created": info["created"],
        "config": info["config"],
        "state": {key: info["state"].get(key) for key in STREAM_KEYS},
        "consumers": sorted(map(_consumer, durable), key=lambda consumer: str(consumer["name"])),
    }


# ---------------------------------------------------------------------- inside
def _consumer(info: Mapping[str, Any]) -> dict[str, Any]:
    sequences = {name: [info.get(name, {}).get(key) for key in SEQUENCE_KEYS] for name in SEQUENCES}
    return {**{key: info.get(key) for key in CONSUMER_KEYS}, **sequences}
