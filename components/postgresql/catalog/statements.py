"""Roles of older backups, which have them as SQL of pg_dumpall only: taken apart by PostgreSQL's own rules of quoting.

A line is no statement: a setting's text may go on in the next one, with a statement of its author's choice in it. So
nothing is given to psql, which would also obey `\\!`: each statement is read to its own end, and only the kinds that
make a role are used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from errors import PermanentError

# What a statement is made of, up to its semicolon.
PIECE = re.compile(
    r"""\b[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|(?:(?!\b[eE]')[^'";-])+|-|;""",
    re.DOTALL,
)
NAME = r'(?P<name>"(?:[^"]|"")*"|\w+)'
ROLE = re.compile(rf"(?:CREATE|ALTER|COMMENT ON) ROLE {NAME}(?P<rest>.*)", re.DOTALL)
GRANT = re.compile(rf'GRANT (?:"(?:[^"]|"")*"|\w+) TO {NAME}(?P<rest>.*)', re.DOTALL)
# psql's own, that pg_dumpall writes around its statements since a security fix of 2025; not SQL.
PSQL = re.compile(r"^\\(?:un)?restrict .*\n", re.MULTILINE)


def role_statements(text: str, takes: Callable[[str], bool]) -> list[str]:
    """Statements that make roles, and grant them others.

    Args:
        text: SQL of pg_dumpall --globals-only.
        takes: whether a role, by its name, is made.

    Raises:
        PermanentError: it is no such SQL.
    """
    wanted = []
    for statement in _statements(text):
        match = ROLE.fullmatch(statement) or GRANT.fullmatch(statement)
        if match is not None and takes(_plain(match["name"])):
            wanted.append(statement)
    return wanted


# ---------------------------------------------------------------------- inside
def _statements(text: str) -> Iterator[str]:
    sql, at, pieces = PSQL.sub("", text), 0, list[str]()
    while at < len(sql):
        match = PIECE.match(sql, at)
        if match is None:
            raise PermanentError(
                "the roles of the backup are not valid output of pg_dumpall: a quote is not closed"
            )
        at = match.end()
        if match[0] == ";":
            yield "".join(pieces).strip()
            pieces.clear()
        elif not match[0].startswith("--"):
            pieces.append(match[0])


def _plain(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name
