"""Every database of a server is in a set and comes back: also those that are templates, or that every server has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from archive.backup.manifest import Manifest
from archive.backup.reader import SetReader
from components.postgresql import live
from errors import PermanentError

from .conftest import Pair

pytestmark = pytest.mark.integration


class Garbled(SetReader):
    """Gives dumps whose rows end too early."""

    def stream(self, name: str, of: Manifest | None = None) -> Iterator[bytes]:
        plain = b"".join(super().stream(name, of))
        yield plain[:-20] if name.endswith(".dump") else plain


LIMIT = "SELECT datconnlimit FROM pg_database WHERE datname = 'golden'"
UNITS = ("database golden", "database postgres", "database template1")
TEMPLATE = "SELECT datistemplate FROM pg_database WHERE datname = 'golden'"


@pytest.fixture
def filled(pair: Pair) -> Iterator[Pair]:
    run = pair.primary.run
    run(
        "CREATE DATABASE golden IS_TEMPLATE true CONNECTION LIMIT 5",
        "CREATE TABLE mine AS SELECT 7 AS n",
    )
    run("COMMENT ON DATABASE postgres IS 'ours'", "GRANT CREATE ON DATABASE postgres TO isa")
    run("ALTER DATABASE postgres SET gin_fuzzy_search_limit = 3")
    run("CREATE TABLE master AS SELECT 1 AS n", database="golden")
    run("CREATE TABLE for_all AS SELECT 1 AS n", database="template1")
    yield pair
    pair.drop_kept()
    run(
        "ALTER DATABASE golden IS_TEMPLATE false",
        "DROP DATABASE golden (FORCE)",
        "DROP TABLE IF EXISTS mine, newer",
    )
    run("DROP TABLE IF EXISTS for_all", database="template1")


def test_templates_and_the_databases_of_every_server_come_back(filled: Pair) -> None:
    run, ask = filled.primary.run, filled.primary.ask
    backup = filled.take()
    assert backup.manifest.outcome == "complete"
    assert filled.prove(backup) == ()
    run("DROP TABLE mine", "CREATE TABLE newer (n int)", "COMMENT ON DATABASE postgres IS 'theirs'")
    run("REVOKE CREATE ON DATABASE postgres FROM isa", "ALTER DATABASE postgres RESET ALL")
    run("DROP TABLE for_all", database="template1")
    run("ALTER DATABASE golden IS_TEMPLATE false CONNECTION LIMIT 9")
    run("DROP TABLE master", database="golden")
    with filled.busy():  # clients of `postgres` connect all the time
        told, differences = filled.restore(backup, *UNITS)
    assert differences == ()
    assert len(told) == 3
    assert ask("SELECT n FROM mine") == 7
    assert ask("SELECT to_regclass('newer')") is None
    assert ask("SELECT n FROM for_all", "template1") == 1
    assert ask("SELECT n FROM master", "golden") == 1
    assert (ask(LIMIT), ask(TEMPLATE)) == (5, True)
    run("CREATE TABLE writable AS SELECT 1 AS n", "DROP TABLE writable")
    run("CREATE DATABASE made_of_template1", "DROP DATABASE made_of_template1")


def test_a_set_that_is_taken_behind_a_fence_is_proven_and_lets_writers_in_again(
    filled: Pair,
) -> None:
    units = ("globals", *UNITS)
    with live.LIVE.fence(filled.access, units):
        backup = filled.take()
    assert filled.prove(backup) == ()
    filled.primary.run("DROP TABLE mine")
    assert filled.restore(backup, *units)[1] == ()
    for name in ("postgres", "template1", "golden"):
        filled.primary.run("CREATE TABLE written (n int)", "DROP TABLE written", database=name)


def test_a_database_of_every_server_that_holds_what_it_should_is_left_alone(filled: Pair) -> None:
    backup = filled.take()
    told, differences = filled.restore(backup, "database postgres")
    assert (told, differences) == ([], ())


def test_a_failure_leaves_the_databases_of_every_server_as_they_are(filled: Pair) -> None:
    backup = filled.take()
    filled.primary.run("DROP TABLE mine", "CREATE TABLE newer (n int)")
    garbled = Garbled(backup.store, backup.manifest, str(filled.key))
    with pytest.raises(PermanentError, match="pg_restore exited with 1"):
        filled.restore(garbled, "database postgres")
    assert filled.primary.ask("SELECT count(*) FROM newer") == 0
    assert filled.primary.ask("SELECT count(*) FROM pg_database WHERE datname ~ '__'") == 0
