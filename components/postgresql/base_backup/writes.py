"""What clients write while a primary is backed up: its files are of a later moment than its dumps.

PostgreSQL counts the rows that are inserted, updated and deleted, for every table. A table did not change if its
counters and its file are the same before the dumps' snapshot and after the end of the files: the files must then have
the snapshot's rows. Of any other table the files may have as many rows more or fewer as were inserted and deleted. Two
readings of the rows cannot tell this: a queue is empty at both, and full in between.

A session reports its counts at the end of a transaction, at most once a second; an idle one reports the rest after ten
seconds (`pgstat_report_stat` and `PGSTAT_IDLE_INTERVAL` in src/backend/utils/activity/pgstat.c). One that begins a long
transaction within that second keeps the counts of the one before to itself until it ends.
https://www.postgresql.org/docs/18/monitoring-stats.html
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import psycopg

from archive.backup.manifest import Manifest, Measure
from cluster.command import CANCELLATION
from components.access import Access, Endpoint
from components.postgresql.client import SUPERUSER
from components.postgresql.dumps.contents import Unreadable, connected
from components.postgresql.fingerprint import GLOBAL_UNIT, measure_definitions
from components.postgresql.measures.definitions import CATALOGUES, DEFINITIONS, GLOBALS
from components.postgresql.measures.rows import COPIED, UNMEASURED

CHANGED = "rows_changed"  # of the topology of a primary's backup: database → table → rows inserted and deleted
REPORT_SECONDS = 11.0
RELATIONS, SEQUENCES, LARGE_OBJECTS = "relations", "sequences", "contents of large objects"
# Of a table that was truncated or rewritten, the file is another one; of one that was made again, the table is.
COUNTERS = """
    SELECT format('%s.%s', n.nspname, c.relname), c.oid::bigint, c.relfilenode::bigint,
           pg_stat_get_tuples_inserted(c.oid) + pg_stat_get_tuples_deleted(c.oid), pg_stat_get_tuples_updated(c.oid),
           ARRAY(SELECT format('%s.%s', rn.nspname, root.relname)
                 FROM pg_partition_ancestors(c.oid) AS above (relid) JOIN pg_class root ON root.oid = above.relid
                 JOIN pg_namespace rn ON rn.oid = root.relnamespace WHERE above.relid <> c.oid)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND c.relpersistence <> 't'
"""
CATALOGUE = "pg_catalog."
DEFINED = {*CATALOGUES, *DEFINITIONS, *GLOBALS}  # items that depend on catalogues alone
# A client's ANALYZE writes the first two; large objects have an item of their own.
STATISTICS = {f"{CATALOGUE}pg_statistic", f"{CATALOGUE}pg_statistic_ext_data"}
OBJECTS = {f"{CATALOGUE}pg_largeobject", f"{CATALOGUE}pg_largeobject_metadata"}


@dataclass(frozen=True)
class Counters:
    """What was written to a table, or to all partitions of one, since the server counts.

    Attributes:
        files: object number of each table, and the number of its file.
        rows: inserted and deleted.
        updated: rows.
    """

    files: frozenset[tuple[int, int]]
    rows: int
    updated: int

    def __add__(self, other: Counters) -> Counters:
        return Counters(
            self.files | other.files, self.rows + other.rows, self.updated + other.updated
        )


NOTHING = Counters(frozenset(), 0, 0)


@dataclass(frozen=True)
class Written:
    """What clients wrote while a primary was read.

    Attributes:
        measures: what of a fingerprint a restore can be compared with.
        rows: database → table → rows that were inserted and deleted; for the manifest's topology (`CHANGED`).
        replaced: tables that were truncated or made again, `database: schema.table`; their rows are not measured.
    """

    measures: list[Measure]
    rows: dict[str, dict[str, int]]
    replaced: list[str]

    @property
    def not_covered(self) -> tuple[str, ...]:
        """As a manifest names them."""
        if not self.replaced:
            return ()
        names = ", ".join(self.replaced)
        return (
            f"rows of tables that were truncated or made again during the backup are not compared: {names}",
        )


class Watch:
    """Watches what clients write to a primary's databases, from before the first snapshot on."""

    def __init__(
        self, access: Access, node: Endpoint, databases: Iterable[str], unreadable: Unreadable
    ) -> None:
        """Read the counters.

        Args:
            access: the way in.
            node: the primary.
            databases: that are backed up.
            unreadable: gets those that cannot be read.
        """
        self._access, self._node, self._unreadable = access, node, unreadable
        # what all databases share is read in one that is always there
        self._before = {
            name: read_counters(connection)
            for name, connection in self._connections(dict.fromkeys([*databases, SUPERUSER]))
        }

    def end(
        self, fingerprint: Collection[Measure], sleep: Callable[[float], None] = CANCELLATION.sleep
    ) -> Written:
        """Read the counters again when all sessions have reported.

        Args:
            fingerprint: all measures, of databases and of what they share.
            sleep: waits so many seconds.
        """
        sleep(REPORT_SECONDS)
        result = Written([], {}, [])
        for name, connection in self._connections(self._before):
            unit = f"database {name}"
            changed = changed_tables(self._before[name], read_counters(connection))
            (sequences,) = measure_definitions(connection, unit, [SEQUENCES])
            units = {unit, GLOBAL_UNIT} if name == SUPERUSER else {unit}
            measures = [measure for measure in fingerprint if measure.unit in units]
            result.measures.extend(comparable(measures, changed, sequences))
            result.rows[name] = {
                label: rows
                for label, rows in changed.items()
                if rows is not None and not label.startswith(CATALOGUE)
            }
            result.replaced.extend(
                f"{name}: {_table(measure)}" for measure in measures if _replaced(measure, changed)
            )
        for name in self._before.keys() - result.rows.keys():
            self._unreadable.reasons.setdefault(name, "it was dropped while the primary was read")
        return result

    def _connections(self, names: Iterable[str]) -> Iterator[tuple[str, psycopg.Connection[Any]]]:
        for name in names:
            connection = connected(self._access, self._node, name, self._unreadable)
            if connection is not None:
                with connection:
                    yield name, connection


def read_counters(connection: psycopg.Connection[Any]) -> dict[str, Counters]:
    """Read the counters of a database and of what all databases share.

    Args:
        connection: to it, in no transaction: a transaction sees the counters of its first look.

    Returns:
        `schema.table` → counters; a partitioned table has those of its partitions together.
    """
    counters: dict[str, Counters] = {}
    for label, oid, file, rows, updated, parents in connection.execute(COUNTERS.encode()):
        of_table = Counters(frozenset([(oid, file)]), rows, updated)
        for name in (label, *parents):
            counters[name] = counters.get(name, NOTHING) + of_table
    return counters


def changed_tables(
    before: Mapping[str, Counters], after: Mapping[str, Counters]
) -> dict[str, int | None]:
    """Tables that were written to between two readings.

    Returns:
        `schema.table` → number of rows that were inserted and deleted; None if the table was truncated, rewritten,
        made or dropped, or if the server has reset its counters.
    """
    changed: dict[str, int | None] = {}
    for label in before.keys() | after.keys():
        was, now = before.get(label, NOTHING), after.get(label, NOTHING)
        if was == now:
            continue
        counted = was.files == now.files and was.rows <= now.rows and was.updated <= now.updated
        changed[label] = now.rows - was.rows if counted else None
    return changed


def comparable(
    measures: Iterable[Measure], changed: Mapping[str, int | None], sequences: Measure | None
) -> list[Measure]:
    """What of a database's measures a restore of its dump can be compared with.

    A dump reads rows on the snapshot, but asks the server of today for names, definitions and sequences.

    Args:
        measures: on the dump's snapshot; of a database, or of what all databases share.
        changed: tables that were written to since (`changed_tables`).
        sequences: their measure now.

    Returns:
        The measures; a definition that may have changed has the numbers that are possible and no digest, and a table
        that is another one now is not measured.
    """
    result = []
    for measure in measures:
        if _replaced(measure, changed):
            item = f"{UNMEASURED} {_table(measure)}"
            measure = Measure(unit=measure.unit, item=item, count=0, origin="source")
        elif measure.item in DEFINED:
            written = _written(changed, measure.item == LARGE_OBJECTS)
            if measure.item == SEQUENCES and measure != sequences:
                written = written or 0
            if written is not None:
                measure = _about(measure, measure.count, written)
        result.append(measure)
    return result


def of_files(manifest: Manifest, database: str, measures: Collection[Measure]) -> list[Measure]:
    """What the files of a primary hold, as far as the backup's moment says what they must hold.

    Args:
        manifest: of the backup; of a standby that stood still, files are exact.
        database: its name.
        measures: of that database in the files.
    """
    changed = manifest.topology.get(CHANGED, {}).get(database)
    if changed is None:
        return list(measures)
    known = {one.item: one for one in manifest.fingerprint if one.unit == f"database {database}"}
    tables_came = RELATIONS in known and known[RELATIONS].until is not None
    result = []
    for measure in measures:
        if tables_came and measure.item not in known:
            continue
        rows = changed.get(_table(measure))
        result.append(measure if rows is None else _about(measure, measure.count, rows))
    return result


# ---------------------------------------------------------------------- inside
def _table(measure: Measure) -> str:
    """The table that a measure has the rows of; "" if it is of something else."""
    kind, _, label = measure.item.partition(f"{COPIED} ")
    return "" if kind else label


def _replaced(measure: Measure, changed: Mapping[str, int | None]) -> bool:
    """Whether the table of these rows is another one now."""
    return changed.get(_table(measure), 0) is None


def _written(changed: Mapping[str, int | None], objects: bool) -> int | None:
    """Rows of catalogues that were inserted and deleted; None if there was no change at all."""
    rows = [
        count or 0
        for label, count in changed.items()
        if label.startswith(CATALOGUE) and label not in STATISTICS and (label in OBJECTS) == objects
    ]
    return sum(rows) if rows else None


def _about(measure: Measure, count: int, rows: int) -> Measure:
    """A measure that is known up to so many rows more or fewer."""
    return measure.model_copy(
        update={"count": max(0, count - rows), "until": count + rows, "digest": "", "names": {}}
    )
