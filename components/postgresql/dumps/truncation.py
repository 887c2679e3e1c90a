"""Saves a dump so that each table is truncated in the transaction that fills it: then its rows need no WAL.

A server with `wal_level = minimal`, as a proof's, writes no WAL for rows of a file that the same transaction made
(`RelationNeedsWAL` in src/include/utils/rel.h), and TRUNCATE makes one. pg_restore truncates only tables that it
created in the same run (`use_truncate` in src/bin/pg_dump/pg_backup_archiver.c), and `filling`
fills them in another one. So TRUNCATE is put before COPY in the dump. pg_restore sends both as one query
(`ExecuteSqlCommand` in src/bin/pg_dump/pg_backup_db.c), which the server runs as one transaction:
https://www.postgresql.org/docs/18/protocol-flow.html#PROTOCOL-FLOW-MULTI-STATEMENT
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from archive.backup.reader import SetReader
from archive.streams.chunks import as_file
from components.postgresql.dumps.rights import ENUM, NAME, plain_name
from components.postgresql.dumps.toc import Entry, replace_statements
from components.postgresql.measures.expressions import TOKEN
from errors import PermanentError

COPY = re.compile(rf"COPY (({NAME})\.({NAME})) ")
CHUNK_BYTES = 1 << 20


def save_dump(reader: SetReader, name: str, path: Path) -> Path:
    """Save a dump whose tables are truncated before they are filled.

    Args:
        reader: of the backup.
        name: of the artefact.
        path: of the file; only its owner may read it.

    Raises:
        Damaged: the dump is not what was stored.
        PermanentError: it is no dump that is known here.
    """
    pieces = reader.stream(name)
    source = as_file(pieces)
    path.touch(mode=0o600)
    with path.open("wb") as target:
        try:
            target.write(replace_statements(source, truncating))
        except PermanentError:
            for _ in pieces:  # damage is found at the end, and explains more
                pass
            raise
        shutil.copyfileobj(source, target, CHUNK_BYTES)
    return path


def truncating(entries: Iterable[Entry]) -> dict[int, str]:
    """Statements that truncate and fill tables, by the number of the entry.

    Tables that have rows before are left out: those that an extension creates, and partitions whose rows go through the
    root. TRUNCATE locks a table until it is filled. If its rows are checked by functions that read other tables, two
    such transactions could wait for each other, so a table is left out too if its definition names something of this
    database that is not an enum.

    Args:
        entries: of a dump.
    """
    known = list(entries)
    tables = {(one.schema, one.name): one for one in known if one.kind == "TABLE"}
    objects = {
        (one.schema, one.name.partition("(")[0] if one.kind == "FUNCTION" else one.name)
        for one in known
        if not ENUM.search(one.definition)
    }
    found = {}
    for rows in known:
        table, copied = (rows.schema, rows.name), COPY.match(rows.definition)
        if rows.kind != "TABLE DATA" or table not in tables or copied is None:
            continue
        named = _names(tables[table].definition) - {table}
        if (plain_name(copied[2]), plain_name(copied[3])) == table and not named & objects:
            found[rows.number] = f"TRUNCATE TABLE ONLY {copied[1]};\n{rows.definition}"
    return found


# ---------------------------------------------------------------------- inside
def _names(definition: str) -> set[tuple[str, str]]:
    """Schema and name of what a definition names by both, outside of constants."""
    tokens = [match[0] for match in TOKEN.finditer(definition)]
    return {
        (plain_name(schema), plain_name(name))
        for schema, dot, name in zip(tokens, tokens[1:], tokens[2:], strict=False)
        if dot == "." and re.fullmatch(NAME, schema) and re.fullmatch(NAME, name)
    }
