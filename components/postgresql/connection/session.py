"""Settings of every session of isa. They override settings of the server, a database or a role.

The owner of a database can set most of them for all its sessions, but options of the connection have priority
(`PGC_S_CLIENT` over `PGC_S_DATABASE_USER` in src/include/utils/guc.h). The list has the settings of pg_dump and
pg_restore (`setup_connection` in src/bin/pg_dump/pg_dump.c, `_doSetFixedOutputState` in pg_backup_archiver.c), and
others that change how values, strings and expressions are read or printed.
https://www.postgresql.org/docs/18/runtime-config-client.html,
https://www.postgresql.org/docs/18/runtime-config-compatible.html

`lc_monetary` is left to the programs' sessions: a dump has amounts as its database prints them, and an older backup's
are read so only by the setting that comes back with the database. What makes a query slow or fast is left alone.
"""

from __future__ import annotations

from collections.abc import Iterable

# Of any session, a client program's too.
COMMON = (
    # limits that would end a backup or a restore
    "statement_timeout=0", "lock_timeout=0", "idle_in_transaction_session_timeout=0", "idle_session_timeout=0",
    # whose rights and rows
    "role=none", "row_security=off",
    # how text is read
    "array_nulls=on", "transform_null_equals=off", "standard_conforming_strings=on", "backslash_quote=safe_encoding",
    "xmloption=content", "datestyle=ISO", "intervalstyle=postgres",
    # how text is written
    "quote_all_identifiers=off", "extra_float_digits=1",
    # what a transaction is, and what is looked at to plan a query
    "default_transaction_isolation=read committed", "default_transaction_deferrable=off", "constraint_exclusion=off",
    # libraries that are loaded at its start
    "local_preload_libraries=",
)  # fmt: skip
# Only a superuser may set these: a damaged page must be an error, triggers must fire, and messages are
# searched for words.
OF_SUPERUSER = (
    "zero_damaged_pages=off", "ignore_checksum_failure=off", "session_replication_role=origin", "lc_messages=C",
)  # fmt: skip
# The same, of PostgreSQL 17 and newer. A trigger on login, or on the statements of a restore, is a tenant's code
# in the superuser's session.
SINCE_17 = 170000
OF_SUPERUSER_17 = ("event_triggers=off", "transaction_timeout=0")
# A table that is replaced by a view before it is read would run the view's functions (CVE-2024-7348). Servers know the
# setting since 12.20, 13.16, 14.13, 15.8, 16.4 and 17; pg_dump makes it itself.
# https://www.postgresql.org/docs/18/runtime-config-client.html#GUC-RESTRICT-NONSYSTEM-RELATION-KIND
TABLES_ONLY = "restrict_nonsystem_relation_kind=view,foreign-table"
# Of a session that is no program's: those set their own.
OWN = ("client_encoding=UTF8", "search_path=pg_catalog")
# Of one that writes. A database may be read-only by a setting of its own, and a restore sets that before the data.
WRITES = ("default_transaction_read_only=off", "synchronous_commit=local")
# Of one that measures: the text of a value depends on these. What they say never changes, or sets would differ.
SESSION = (
    "extra_float_digits=1", "datestyle=ISO", "intervalstyle=postgres", "timezone=UTC",
    "bytea_output=hex", "search_path=pg_catalog", "lc_monetary=C", "xmlbinary=base64",
)  # fmt: skip


def options(settings: Iterable[str]) -> str:
    """Settings, `name=value` each, as options of a connection; of two with one name the last one counts."""
    escaped = (setting.replace("\\", "\\\\").replace(" ", "\\ ") for setting in settings)
    return " ".join(f"-c {one}" for one in escaped)
