"""Checks that the code of one owner, which runs while its objects are restored, left the objects of others alone.

The owner of a schema may drop or rename what others own in it, and create something else of that name. A role with the
permission TRIGGER on a table may add a trigger. Then the next statement of the restore, with the rights of another
owner or of the superuser, would fill the wrong table, or run that trigger.
"""

from __future__ import annotations

from typing import Any

import psycopg

from errors import PermanentError

NAMED = 3
# Tables, functions, types and operators that others own, by what they are; beyond the server's own, whose numbers are
# below FirstNormalObjectId (src/include/access/transam.h). A type of a table's rows goes with its table.
OBJECTS = """
    SELECT what, o.oid::bigint, format('%%I.%%I', n.nspname, o.name), o.owner::bigint, triggers
    FROM (SELECT 'table' AS what, oid, relname AS name, relnamespace AS namespace, relowner AS owner,
                 ARRAY(SELECT t.oid::bigint FROM pg_trigger t WHERE tgrelid = c.oid AND NOT tgisinternal
                       ORDER BY t.oid) AS triggers
          FROM pg_class c WHERE relkind IN ('r', 'p', 'f', 'v', 'm', 'S')
          UNION ALL SELECT 'function', oid, proname, pronamespace, proowner, '{}' FROM pg_proc
          UNION ALL SELECT 'type', oid, typname, typnamespace, typowner, '{}' FROM pg_type WHERE typrelid = 0
          UNION ALL SELECT 'operator', oid, oprname, oprnamespace, oprowner, '{}' FROM pg_operator
    ) AS o JOIN pg_namespace n ON n.oid = o.namespace JOIN pg_roles r ON r.oid = o.owner
    WHERE o.oid >= 16384 AND n.nspname !~ '^pg_' AND r.rolname <> %s
"""
Objects = dict[tuple[str, int], tuple[str, int, tuple[int, ...]]]


def foreign_objects(connection: psycopg.Connection[Any], owner: str) -> Objects:
    """Name, owner and triggers of each object that another role owns.

    Args:
        connection: of the superuser, to the database.
        owner: whose code will run.
    """
    rows = connection.execute(OBJECTS, [owner]).fetchall()
    return {(what, oid): (name, role, tuple(triggers)) for what, oid, name, role, triggers in rows}


def check_unchanged(owner: str, before: Objects, after: Objects) -> None:
    """Compare the objects of others from before an owner's code ran with those behind it.

    Raises:
        PermanentError: one was changed.
    """
    changed = [
        f"{what} {state[0]}"
        for (what, oid), state in before.items()
        if after.get((what, oid)) != state
    ]
    if changed:
        more = f" and {len(changed) - NAMED} more" if len(changed) > NAMED else ""
        raise PermanentError(
            f"code of role {owner} that ran while its own objects were restored dropped or changed objects of other "
            f"roles: {', '.join(sorted(changed)[:NAMED])}{more}. Check its functions in the original database"
        )
