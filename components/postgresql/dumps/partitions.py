"""Attaches partitions whose owner is not their parent's, where a key's expressions may run the parent's owner's code.

Such code runs with no more than its owner's rights (`rights`), and ATTACH PARTITION takes the
owner of both tables (`ATExecAttachPartition` in src/backend/commands/tablecmds.c). So the partition, which has no rows
yet, becomes the restoring role's own while it is attached, and must be what it was when it goes back to its owner.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from components.postgresql.dumps.rights import ATTACH
from components.postgresql.dumps.toc import Entry
from errors import PermanentError

# What an owner can change of a table, but for what an attachment does: what hangs on it (constraints, indexes,
# triggers, rules, policies, defaults, statistics, views, publications), its rights, its options and its columns.
STATE = """
    SELECT pg_get_userbyid(c.relowner),
           concat_ws('|', c.relacl::text, c.reloptions::text, c.relrowsecurity, c.relforcerowsecurity, c.relreplident,
               (SELECT count(*) FROM pg_depend WHERE refclassid = 'pg_class'::regclass AND refobjid = c.oid),
               (SELECT count(*) FROM pg_trigger WHERE tgrelid = c.oid),
               (SELECT string_agg(pg_get_constraintdef(oid), '|' ORDER BY oid)
                FROM pg_constraint WHERE conrelid = c.oid),
               (SELECT string_agg(concat_ws(' ', attname, atttypid, atttypmod, attcollation, attnotnull, atthasdef,
                                            attidentity, attgenerated, attisdropped, attacl::text,
                                            attoptions::text), '|' ORDER BY attnum)
                FROM pg_attribute WHERE attrelid = c.oid))
    FROM pg_class c WHERE c.oid = %s::regclass
"""
GIVE = sql.SQL("ALTER TABLE {} OWNER TO {}")


@dataclass(frozen=True)
class Lent:
    """A partition that a restoring role has for a while.

    Attributes:
        table: it.
        owner: to whom it goes back.
        state: what it was.
    """

    table: sql.Identifier
    owner: str
    state: str


def lend_partitions(
    connection: psycopg.Connection[Any],
    role: sql.Identifier,
    owner: str,
    entries: Iterable[Entry],
) -> list[Lent]:
    """Give a role the tables of other owners that it attaches.

    Args:
        connection: of the superuser, to the database.
        role: that restores the entries, as a member of `owner`.
        owner: of the parents.
        entries: of a dump.
    """
    lent = []
    for entry in entries:
        if entry.kind == ATTACH:
            table = sql.Identifier(entry.schema, entry.name)
            current_owner, state = _state(connection, table)
            if current_owner != owner:
                lent.append(Lent(table, current_owner, state))
                connection.execute(GIVE.format(table, role))
    return lent


def take_back(connection: psycopg.Connection[Any], owner: str, lent: Iterable[Lent]) -> None:
    """Give partitions back to their owners; no session of the role is left.

    Args:
        connection: of the superuser, to the database.
        owner: of the parents.
        lent: what `lend_partitions` gave.

    Raises:
        PermanentError: one was changed.
    """
    for partition in lent:
        connection.execute(GIVE.format(partition.table, sql.Identifier(partition.owner)))
        if _state(connection, partition.table) != (partition.owner, partition.state):
            raise PermanentError(
                f"code of role {owner} that ran while its own objects were restored changed table "
                f"{partition.table.as_string(connection)} of role {partition.owner}, for which it has no right: look "
                "into its functions in the original database"
            )


# ---------------------------------------------------------------------- inside
def _state(connection: psycopg.Connection[Any], table: sql.Identifier) -> tuple[str, str]:
    row = connection.execute(STATE, [table.as_string(connection)]).fetchone()
    assert row is not None
    return row[0], row[1]
