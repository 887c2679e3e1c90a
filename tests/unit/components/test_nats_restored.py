"""A live stream comes back with all that it was told to do; in a proof it keeps still."""

from __future__ import annotations

import asyncio
import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from components.nats import live
from components.nats.client import Account
from components.nats.restore import UNPROVEN, restore_stream
from errors import TemporaryError

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

    loop = asyncio.new_event_loop()
    try:
        to = Account("app", cast(Any, SimpleNamespace(request=request)), loop)
        restore_stream(to, {"config": CONFIG, "state": {}}, [b"snapshot"], without=without)
    finally:
        loop.close()
    return dict(asked[0])


def test_the_live_one_follows_and_forgets_as_it_did() -> None:
    wanted = {key: value for key, value in CONFIG.items() if key != "placement"}
    assert asked_for(("placement",)) == {**wanted, "num_replicas": 1}


def test_that_of_a_proof_takes_nothing_and_loses_nothing() -> None:
    assert asked_for(UNPROVEN) == {"name": "COPY", "num_replicas": 1, "max_msgs": 100}


def test_a_live_one_goes_only_when_all_that_replaces_it_is_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(name: str, file: Path) -> Path:
        raise TemporaryError("the store is away")

    backup = SimpleNamespace(spool=tmp_path, nats=SimpleNamespace(accounts=()))
    access = SimpleNamespace(settings=SimpleNamespace(backup=backup))
    reader = SimpleNamespace(
        names=lambda form: ["app/COPY/stream.tar.s2"],
        unit=lambda name: "stream app/COPY",
        size=lambda name: 8,
        save=away,
        manifest=SimpleNamespace(topology={"streams": {"app/COPY": {}}}),
    )
    leftovers = SimpleNamespace(replacing=lambda chosen: nullcontext())
    monkeypatch.setattr(live, "account", lambda *_: pytest.fail("JetStream was asked"))
    with pytest.raises(TemporaryError, match="store is away"):
        live.replace(
            cast(Any, access), None, cast(Any, reader), ["stream app/COPY"], cast(Any, leftovers)
        )
