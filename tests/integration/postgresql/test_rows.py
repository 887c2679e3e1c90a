"""A table whose rows cannot be measured, or lie otherwise after a restore, costs a set at most its own measure."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .conftest import Pair

pytestmark = pytest.mark.integration

COMPUTED = """
    CREATE TABLE computed (id int, part int GENERATED ALWAYS AS (1 / id) VIRTUAL,
                           twice int GENERATED ALWAYS AS (id * 2) STORED);
    INSERT INTO computed VALUES (0), (2);
"""
# As text of a row each quote is two, and a text has at most 1 GiB; as text of a column it is one.
WIDE = """CREATE TABLE wide AS SELECT repeat('"', 600000000) AS text"""
MOODS = ("fine", "good", "bad", "odd", "sad", "glad")
SPREAD = """
    CREATE TYPE mood AS ENUM ({moods});
    CREATE TABLE {name} (mood {kind}, n int) PARTITION BY HASH (mood);
    CREATE TABLE {name}_0 PARTITION OF {name} FOR VALUES WITH (MODULUS 3, REMAINDER 0);
    CREATE TABLE {name}_1 PARTITION OF {name} FOR VALUES WITH (MODULUS 3, REMAINDER 1);
    CREATE TABLE {name}_2 PARTITION OF {name} FOR VALUES WITH (MODULUS 3, REMAINDER 2);
    INSERT INTO {name} SELECT {value}, n FROM generate_series(1, 60) n, unnest(enum_range(NULL::mood)) mood;
"""


@pytest.fixture
def made(pair: Pair) -> Iterator[Pair]:
    pair.primary.run("CREATE DATABASE made")
    yield pair
    pair.drop_kept()
    pair.primary.run("ALTER DATABASE made RESET ALL", "DROP DATABASE made (FORCE)")


def test_a_column_that_is_computed_when_it_is_read_is_not_read(made: Pair) -> None:
    made.primary.run(COMPUTED, database="made")
    for backup in (made.take_from_primary(), made.take()):
        assert backup.manifest.missing == ()
        items = {one.item: one for one in backup.manifest.fingerprint}
        assert items["rows of public.computed"].count == 2
    assert made.prove(backup) == ()
    made.primary.run("UPDATE computed SET id = 3 WHERE id = 2", database="made")
    found = made.differences(backup, "database made")
    assert [one.item for one in found] == ["rows of public.computed"]
    assert made.restore(backup, "database made")[1] == ()


def test_a_table_that_cannot_be_read_as_text_costs_its_own_measure_only(made: Pair) -> None:
    made.primary.run(WIDE, database="made")
    backup = made.take()
    (missing,) = backup.manifest.missing
    assert missing.startswith("table public.wide of database made is not compared: ")
    assert "database made" in {one.unit for one in backup.manifest.artefacts}
    assert made.restore(backup, "database made")[1] == ()


@pytest.mark.parametrize(("kind", "value"), [("mood", "mood"), ("mood[]", "ARRAY[mood]")])
def test_rows_that_lie_in_other_partitions_after_a_restore_are_the_same(
    made: Pair, kind: str, value: str
) -> None:
    moods = ", ".join(f"'{mood}'" for mood in MOODS)
    text = SPREAD.format(name="spread", kind=kind, value=value, moods=moods)
    made.primary.run(text, database="made")
    backup = made.take()
    assert made.prove(backup) == ()
    assert made.restore(backup, "database made")[1] == ()
    made.primary.run("UPDATE spread_1 SET n = 0", database="made")
    assert [one.item for one in made.differences(backup, "database made")] == [
        "rows of public.spread"
    ]
