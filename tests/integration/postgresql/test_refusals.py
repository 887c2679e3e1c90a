"""What a live server would refuse is known before anything of it is put aside."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from archive.backup.reader import SetReader
from components.postgresql import live
from components.postgresql.catalog import properties

from .conftest import Pair

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def backup(pair: Pair) -> SetReader:
    pair.primary.run("ALTER SYSTEM SET work_mem = '5MB'")
    return pair.take()


def refused(pair: Pair, backup: SetReader, *units: str) -> list[str]:
    return live.LIVE.can_take(pair.access, backup, units)


def changed(backup: SetReader, **engine: object) -> SetReader:
    """The same set, of an engine that was another one."""
    other = backup.manifest.engine.model_copy(update=engine)
    manifest = backup.manifest.model_copy(update={"engine": other})
    return SetReader(backup.store, manifest, backup._identity)


def test_a_server_like_the_one_that_was_backed_up_takes_everything(
    pair: Pair, backup: SetReader
) -> None:
    assert refused(pair, backup, *live.LIVE.units(backup)) == []


def test_an_older_server_is_named(pair: Pair, backup: SetReader) -> None:
    (why,) = refused(pair, changed(backup, version="99.1"), "database isa")
    assert why.startswith("database isa: the backup is from PostgreSQL 99, but the server is older")


def test_an_extension_that_is_not_installed_is_named_with_its_database(
    pair: Pair, backup: SetReader
) -> None:
    other = changed(backup, extensions={"isa.postgis": "3.5", "postgres.plpgsql": "1.0"})
    (why,) = refused(pair, other, "database isa", "database postgres")
    assert why.startswith("database isa: it needs extension postgis")


@pytest.fixture
def stored(pair: Pair, backup: SetReader, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The set says that database `isa` lies and compares otherwise, and knows a setting of a library."""
    found = properties.stored_globals(backup)
    assert found is not None
    databases = [
        one.model_copy(update={"tablespaces": ["fast"], "collate": "xx_XX.utf8"})
        if one.name == "isa"
        else one
        for one in found.databases
    ]
    other = found.model_copy(update={"databases": databases, "system": {"timescaledb.max": "1"}})
    monkeypatch.setattr(
        "components.postgresql.replacement.refusals.stored_globals", lambda _: other
    )
    yield


def test_tablespaces_locales_and_settings_that_are_not_there_are_named(
    pair: Pair, backup: SetReader, stored: None
) -> None:
    tablespace, locale, *settings = refused(pair, backup, "database isa", "globals")
    assert "uses tablespace fast" in tablespace
    assert "needs locale xx_XX.utf8" in locale
    assert [one.partition(": ")[0] for one in settings] == ["globals", "globals"]
    assert "node-1 does not know timescaledb.max" in settings[1]
    collations = "SELECT count(*) FROM pg_collation WHERE collname = 'isa_locale'"
    assert pair.primary.ask(collations, "template1") == 0


def test_a_prepared_transaction_is_named_since_nothing_could_be_renamed_under_it(
    pair: Pair, backup: SetReader
) -> None:
    with pair.primary.connect("isa") as client:
        client.execute("BEGIN")
        client.execute("CREATE TABLE pending (n int)")
        client.execute("PREPARE TRANSACTION 'left over'")
        try:
            (why,) = refused(pair, backup, "database isa", "database postgres")
        finally:
            client.execute("ROLLBACK PREPARED 'left over'")
    assert why.startswith("database isa: prepared transactions lock the current data (left over)")


def test_a_member_that_is_away_is_named_since_it_would_keep_its_settings(
    pair: Pair, backup: SetReader
) -> None:
    pair.standby.stop()
    try:
        (why,) = refused(pair, backup, "globals")
    finally:
        pair.standby.start()
    assert why.startswith("globals: node-1 could not be given its settings")
