"""The role that restores each entry of a dump: entries that may run an owner's code get only the owner's permissions.

A superuser who restores a dump evaluates what is in it: CHECK constraints, domains and generated columns for each row,
casts of foreign keys, and while objects are made already constants of domains' arrays, bounds of partitions and
generation expressions. `SET SESSION AUTHORIZATION` or `SET ROLE` would be no wall: the code itself may RESET it. So
these entries go through a session that logged in as a role which has the owner's rights and no others
(`filling`). The rest makes objects, or is switched to the table's owner by PostgreSQL itself in
a context that allows no way back (CREATE INDEX, REFRESH MATERIALIZED VIEW: `SECURITY_RESTRICTED_OPERATION`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise

from components.postgresql.dumps.toc import DATA, POST_DATA, Entry
from components.postgresql.measures.expressions import TOKEN

# Rows are checked, or compared, by what their table's owner defined.
EVALUATING = frozenset(("TABLE DATA", "CHECK CONSTRAINT", "FK CONSTRAINT"))
# A generation expression and a partition key's are planned, which calls immutable functions of constants; an initial
# state is read by its type.
PLANNED = re.compile(r"\bGENERATED ALWAYS AS \(|\bPARTITION BY |\bINITCOND\b")
NAME = r'"(?:[^"]|"")*"|[^\W\d][\w$]*'
# Types and functions that are not the server's own are named with their schemas.
QUALIFIED = re.compile(rf"({NAME})\.({NAME})")
# A constant of a type that is not the server's own: pg_dump names those with their schemas.
CONSTANT = re.compile(rf"'::({NAME})\.({NAME})")
# A key that is more than columns; what is constant in it is evaluated when a partition is attached
# (`RelationBuildPartitionKey` in src/backend/utils/cache/partcache.c).
KEY_EXPRESSION = re.compile(r"\bPARTITION BY \w+ \(.*\(", re.DOTALL)
ATTACH = "TABLE ATTACH"
FOREIGN_KEY = "FK CONSTRAINT"
# What a query on a table may run to be planned. `RI_Initial_Check` in src/backend/utils/adt/ri_triggers.c queries both
# tables of a new foreign key with the rights of the role that adds it. The unique index that a key needs is of columns.
PLANNED_KINDS = frozenset(("INDEX", "STATISTICS"))
EXCLUSION = re.compile(r"\bEXCLUDE USING\b")
ENUM = re.compile(r"CREATE TYPE .* AS ENUM \(", re.DOTALL)
RANGE = re.compile(r"CREATE TYPE .* AS RANGE \(", re.DOTALL)
# What lies in a schema by itself; a materialized view's rows, rights, comments and what belongs to a table do not.
MAKING = frozenset(
    ("AGGREGATE", "COLLATION", "CONVERSION", "DOMAIN", "FOREIGN TABLE", "FUNCTION", "MATERIALIZED VIEW", "OPERATOR",
     "OPERATOR CLASS", "OPERATOR FAMILY", "PROCEDURE", "SEQUENCE", "SHELL TYPE", "STATISTICS", "TABLE",
     "TEXT SEARCH CONFIGURATION", "TEXT SEARCH DICTIONARY", "TYPE", "VIEW")
)  # fmt: skip
# In these a word before a dot may be the name that a query gives a table.
ALIASES = frozenset(
    ("FUNCTION", "MATERIALIZED VIEW", "POLICY", "PROCEDURE", "PUBLICATION TABLE", "RULE", "VIEW")
)
DATABASE_OWNER = "pg_database_owner"  # the owner of `public`; no role can be made a member of it


@dataclass(frozen=True)
class Run:
    """Entries that one pg_restore restores.

    Attributes:
        owner: with whose rights; "" is the superuser.
        section: of a restore.
        entries: of the dump.
        schemas: that they lie in, or refer to.
    """

    owner: str
    section: int
    entries: tuple[Entry, ...]
    schemas: frozenset[str]

    @property
    def numbers(self) -> tuple[int, ...]:
        """Of the entries."""
        return tuple(entry.number for entry in self.entries)

    def made_in(self, schema: str) -> int:
        """Number of objects that its entries make in a schema."""
        return sum(entry.schema == schema and entry.kind in MAKING for entry in self.entries)

    @property
    def references(self) -> int:
        """Number of foreign keys that its entries make."""
        return sum(entry.kind == FOREIGN_KEY for entry in self.entries)


def plan_runs(
    entries: Iterable[Entry], superusers: Collection[str], database_owner: str
) -> list[Run]:
    """Divide a dump's entries by whose rights they are restored with; their order stays, but for that of rows.

    Args:
        entries: in the dump's order.
        superusers: roles whose own code a superuser may run.
        database_owner: who owns the database.
    """
    contents, owners = _Contents(entries), dict[int, str]()
    superuser_only = True  # so far only the superuser
    for entry in contents.entries:
        owner = contents.owner(entry, superusers, database_owner, alone=superuser_only)
        owners[entry.number] = owner
        superuser_only = superuser_only and not owner
    runs = []
    for section, found in groupby(contents.entries, key=contents.section):
        for group in _in_order(section, list(found), owners):
            for owner, same in groupby(group, key=lambda entry: owners[entry.number]):
                same_owner = tuple(same)
                runs.append(Run(owner, section, same_owner, contents.schemas(same_owner)))
    return runs


# ---------------------------------------------------------------------- inside
class _Contents:
    """A dump's entries, and what a constant in one of them may be of."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.entries = list(entries)
        self._numbered = {entry.number: entry for entry in self.entries}
        self._sections: dict[int, int] = {}
        section = 0
        for entry in self.entries:  # rights and comments stand behind what they are of
            section = max(section, entry.section if entry.section > 1 else 0)
            self._sections[entry.number] = section
        types = [entry for entry in self.entries if entry.kind == "TYPE"]
        self._enums = {(e.schema, e.name) for e in types if ENUM.search(e.definition)}
        self._ranges = any(RANGE.search(entry.definition) for entry in types)
        self._types = {
            (entry.schema, entry.name)
            for entry in self.entries
            if entry.kind in ("TYPE", "DOMAIN", "TABLE", "VIEW", "MATERIALIZED VIEW")
        }

    def section(self, entry: Entry) -> int:
        return self._sections[entry.number]

    def owner(
        self, entry: Entry, superusers: Collection[str], database_owner: str, *, alone: bool
    ) -> str:
        """With whose rights an entry is restored.

        Args:
            entry: of the dump.
            superusers: roles.
            database_owner: role.
            alone: whether no owner's code can have run yet: later a type may be another one than the dump made.
        """
        owner = self._parent(entry).owner if entry.kind == ATTACH else entry.owner
        owner = database_owner if owner == DATABASE_OWNER else owner
        return "" if owner in superusers or not self._evaluates(entry, alone=alone) else owner

    def schemas(self, entries: Iterable[Entry]) -> frozenset[str]:
        """What entries lie in, and refer to; not what an owner may write as he likes, a constant or another name."""
        names = set[str]()
        for entry in entries:
            needed = (self._numbered[n].schema for n in entry.needs if n in self._numbered)
            names |= {entry.schema, *needed}
            if entry.kind not in ALIASES:
                names |= _schemas_in(entry.definition)
        return frozenset(names - {""})

    def _parent(self, partition: Entry) -> Entry:
        """The table whose partition it becomes: its bounds are of that one's types."""
        own = (partition.schema, partition.name)
        requirements = (self._numbered[n] for n in partition.needs if n in self._numbered)
        tables = (entry for entry in requirements if entry.kind == "TABLE")
        return next((table for table in tables if (table.schema, table.name) != own), partition)

    def _evaluates(self, entry: Entry, *, alone: bool) -> bool:
        if entry.kind in EVALUATING or PLANNED.search(entry.definition):
            return True
        if entry.kind == ATTACH:  # a bound is read by the type of the parent's column
            parent = self._parent(entry)
            if KEY_EXPRESSION.search(parent.definition):
                return True
            types = set(_names(QUALIFIED, parent)) - {(parent.schema, parent.name)}
        else:
            types = set(_names(CONSTANT, entry))
        return any(self._runs_code(schema, name, alone=alone) for schema, name in types)

    def _runs_code(self, schema: str, name: str, *, alone: bool) -> bool:
        """Whether reading a constant of a type may call a function of its owner.

        What the dump does not have is an extension's, or belongs to a range.
        """
        if (schema, name) not in self._types:
            return self._ranges
        return not (alone and (schema, name) in self._enums)


def _in_order(section: int, entries: list[Entry], owners: dict[int, str]) -> list[list[Entry]]:
    """Entries of a section in groups that follow each other; pg_restore may restore those of one run in any order."""
    if section == DATA:  # rows of different tables are independent before there are constraints
        return [sorted(entries, key=lambda entry: owners[entry.number])]
    if section == POST_DATA:  # so are constraints that rest on rows
        return [_gathered(group, owners) for group in _keys_first(entries)]
    return [entries]


def _keys_first(entries: list[Entry]) -> list[list[Entry]]:
    """Entries up to the last foreign key, but for indexes and statistics that no key needs; then those and the rest."""
    last = max((at for at, entry in enumerate(entries) if entry.kind == FOREIGN_KEY), default=-1)
    needed, numbers = set[int](), set[int]()
    for entry in reversed(entries[: last + 1]):  # what is needed stands before
        if entry.kind == FOREIGN_KEY or entry.number in needed:
            needed |= {entry.number, *entry.needs}
    before, later = list[Entry](), list[Entry]()
    for entry in entries[: last + 1]:
        if entry.number not in needed and (_is_planned(entry) or numbers & {*entry.needs}):
            numbers.add(entry.number)
            later.append(entry)
        else:
            before.append(entry)
    return [before, later + entries[last + 1 :]]


def _is_planned(entry: Entry) -> bool:
    """Whether it may hold an expression that is planned with each query on its table."""
    excludes = entry.kind == "CONSTRAINT" and EXCLUSION.search(entry.definition) is not None
    return excludes or entry.kind in PLANNED_KINDS


def _gathered(entries: list[Entry], owners: dict[int, str]) -> list[Entry]:
    """Entries with those of one owner together, where no entry of the superuser's stands between them."""
    ordered: list[Entry] = []
    for restricted, group in groupby(entries, key=lambda entry: owners[entry.number] != ""):
        group_entries = list(group)
        ordered += (
            sorted(group_entries, key=lambda entry: owners[entry.number])
            if restricted
            else group_entries
        )
    return ordered


def _names(pattern: re.Pattern[str], entry: Entry) -> Iterator[tuple[str, str]]:
    """Schema and name of each thing that a definition names by both."""
    for schema, name in pattern.findall(entry.definition):
        yield plain_name(schema), plain_name(name)


def _schemas_in(definition: str) -> set[str]:
    """What stands before a dot, outside of constants."""
    tokens = [match[0] for match in TOKEN.finditer(definition)]
    return {
        plain_name(before)
        for before, dot in pairwise(tokens)
        if dot == "." and re.fullmatch(NAME, before)
    }


def plain_name(name: str) -> str:
    """A name as it is, of one as SQL writes it."""
    return name[1:-1].replace('""', '"') if name.startswith('"') else name
