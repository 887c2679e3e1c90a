"""A live stream comes back with all that it was told to do; in a proof it keeps still."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any, cast

from archive.reader import SetReader
from components.nats.client import Account
from components.nats.restore import UNPROVEN, restore_stream

CONFIG = {
    "name": "COPY",
    "num_replicas": 3,
    "placement": {"cluster": "east"},
    "mirror": {"name": "ORDERS"},
    "republish": {"src": ">", "dest": "told.>"},
    "max_age": 3_600_000_000_000,
    "max_msgs": 100,
}


def asked_for(without: tuple[str, ...]) -> dict[str, Any]:
    """The configuration that JetStream is asked to restore a stream with."""
    asked: list[Any] = []

    async def request(subject: str, data: bytes, timeout: float) -> Any:
        if subject == "$JS.API.STREAM.RESTORE.COPY":
            asked.append(json.loads(data)["config"])
            return SimpleNamespace(data=json.dumps({"deliver_subject": "here"}).encode())
        return SimpleNamespace(data=b"")

    reader = SimpleNamespace(
        json=lambda name: {"config": CONFIG, "state": {}}, stream=lambda name: iter([b"snapshot"])
    )
    loop = asyncio.new_event_loop()
    try:
        to = Account("app", cast(Any, SimpleNamespace(request=request)), loop)
        restore_stream(to, cast(SetReader, reader), "app/COPY", without=without)
    finally:
        loop.close()
    return dict(asked[0])


def test_the_live_one_follows_and_forgets_as_it_did() -> None:
    wanted = {key: value for key, value in CONFIG.items() if key != "placement"}
    assert asked_for(("placement",)) == {**wanted, "num_replicas": 1}


def test_that_of_a_proof_takes_nothing_and_loses_nothing() -> None:
    assert asked_for(UNPROVEN) == {"name": "COPY", "num_replicas": 1, "max_msgs": 100}
