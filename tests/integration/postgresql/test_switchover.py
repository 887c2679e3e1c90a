"""A set that is taken right after a switchover, under writes, is of the moment that it was measured at."""

from __future__ import annotations

import threading
from contextlib import suppress

import psycopg
import pytest

from errors import PermanentError

from .conftest import Pair

pytestmark = pytest.mark.integration


def test_files_of_a_standby_that_has_just_changed_its_timeline_recover_to_their_moment(
    pair: Pair,
) -> None:
    pair.primary.run("CREATE TABLE written (n serial)")
    stop = threading.Event()

    def write() -> None:
        while not stop.wait(0.002):
            with suppress(psycopg.Error), pair.primary.connect() as client:
                while not stop.is_set():
                    client.execute("INSERT INTO written DEFAULT VALUES")

    pair.switch_over()
    client = threading.Thread(target=write)
    client.start()
    try:
        backup = pair.take()
    finally:
        stop.set()
        client.join()
    assert backup.manifest.topology["role"] == "standby"
    assert backup.manifest.topology["timeline"] == 2
    assert pair.prove(backup) == ()

    # a target that recovery does not reach is no pass
    first = backup.manifest.consistency[0].model_copy(update={"point": "LSN 0/1000028"})
    moved = backup.manifest.model_copy(
        update={"consistency": (first, *backup.manifest.consistency[1:])}
    )
    backup.manifest = moved
    backup.chain = (moved,)
    with pytest.raises(PermanentError, match="instead of 0/1000028"):
        pair.prove(backup)


def test_files_of_a_primary_are_proven_too(pair: Pair) -> None:
    assert pair.prove(pair.take_from_primary()) == ()
