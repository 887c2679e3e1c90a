"""A backup of PostgreSQL: from which node, as of which moment, and what one database's trouble costs the set."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psycopg
import pytest

from archive.backup.manifest import Measure
from components.access import Endpoint
from components.base import BackupContent
from components.postgresql import backup
from components.postgresql.backup import DROP_TRIES, back_up
from components.postgresql.base_backup.increment import Base
from components.postgresql.base_backup.replay import Pause
from components.postgresql.base_backup.source import Source
from components.postgresql.base_backup.writes import Written
from components.postgresql.catalog.properties import FILE, FORM, Globals
from components.postgresql.catalog.roles import Roles
from components.postgresql.client import NodeStatus
from components.postgresql.dumps.contents import Snapshot, Unreadable
from components.postgresql.replacement.remarks import NEEDED
from errors import PermanentError, TemporaryError

from .test_basetar import FILES, manifest
from .test_basetar import backup as base_tar

NODE = Endpoint("postgresql-ha-postgresql-1", "10.0.0.1", 5432, "10.0.0.1", "")
STANDBY = NodeStatus(True, "7", 3, "18.1", 180001)
PRIMARY = replace(STANDBY, standby=False)
TAKEN = datetime(2026, 1, 1, 1, tzinfo=UTC)
CLOCK = datetime(2026, 1, 1, 3, tzinfo=timezone(timedelta(hours=1)))
REACHED = {"Timeline": 4, "Start-LSN": "0/1", "End-LSN": "0/9"}


def snapshot(name: str, **more: Any) -> Snapshot:
    fields: dict[str, Any] = {
        "connection": None, "identity": f"snapshot-of-{name}", "visible": "10:12:", "taken": TAKEN,
        "extensions": (), "tablespaces": (), "invalid": (), "moving": False,
    }  # fmt: skip
    return Snapshot(**{**fields, **more})


@dataclass
class World:
    """A node and everything that a backup does with it.

    Attributes:
        status: of the node.
        databases: name → size.
        snapshots: name → what is held open.
        unreadable: databases that are known to be so from the beginning.
        pause: of a standby.
        count: of one database.
        written: what clients wrote on a primary.
        base: what the set may rest on.
        tablespaces: beyond the usual two.
        fails: database → what its dump ends with.
        unkept: names that are no UTF-8.
        stored: name → unit, form, content, expected size.
        plain: name → content of what is stored unsealed.
        dropped: folders.
        ran: programs with their words.
        happened: in order.
    """

    spool: Path
    status: NodeStatus = STANDBY
    databases: dict[str, int] = field(default_factory=lambda: {"isa": 100, "shop": 50})
    snapshots: dict[str, Snapshot] = field(
        default_factory=lambda: {name: snapshot(name) for name in ("isa", "shop")}
    )
    unreadable: dict[str, str] = field(default_factory=dict)
    pause: Pause = field(default_factory=lambda: Pause("0/5", {}))
    count: int = 7
    written: dict[str, dict[str, int]] = field(default_factory=dict)
    replaced: list[str] = field(default_factory=list)
    base: Base | None = None
    tablespaces: tuple[str, ...] = ()
    fails: dict[str, Exception] = field(default_factory=dict)
    unkept: list[str] = field(default_factory=list)
    stored: dict[str, tuple[str, str, bytes, int]] = field(default_factory=dict)
    plain: dict[str, bytes] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    ran: list[tuple[str, ...]] = field(default_factory=list)
    happened: list[str] = field(default_factory=list)
    earlier: tuple[Any, ...] = ()

    # ------------------------------------------------------------------ the node
    def choose_source(self, access: Any) -> Source:
        return Source(
            NODE,
            self.status,
            self.databases,
            self.unreadable,
            self.tablespaces,
            {"work_mem": "4MB"},
        )

    @contextmanager
    def paused_replay(self, access: Any, node: Endpoint) -> Iterator[Pause]:
        self.happened.append("pause")
        yield self.pause
        self.happened.append("resume")

    @contextmanager
    def open_snapshots(
        self, access: Any, node: Endpoint, names: Iterable[str], unreadable: Unreadable
    ) -> Iterator[dict[str, Snapshot]]:
        self.happened.append("snapshots")
        wanted = set(names) - unreadable.reasons.keys()
        yield {n: one for n, one in self.snapshots.items() if n in wanted}

    def measure_all(
        self,
        found: dict[str, Snapshot],
        unreadable: Unreadable,
        dropped: Callable[[str], None],
        *,
        still: bool,
    ) -> list[Measure]:
        self.happened.append("measure")
        digest = "a" * 32 if still else "b" * 32
        return [
            Measure(
                unit=f"database {n}", item="t", count=self.count, digest=digest, origin="source"
            )
            for n in found
        ]

    def watch(self, access: Any, node: Endpoint, names: Iterable[str], _: Unreadable) -> Any:
        self.happened.append("watch")
        assert set(names) == set(self.databases)

        def end(measures: Iterable[Measure]) -> Written:
            self.happened.append("end of watch")
            return Written([*measures], self.written, self.replaced)

        return SimpleNamespace(end=end)

    def find_base(self, *_: Any) -> Base | None:
        return self.base

    # ------------------------------------------------------------------ programs
    def program(self, access: Any, name: str, password: str, number: int) -> Any:
        assert (password, number) == ("postgresql-ha-auth/postgres-password", 180001)

        def stream(*words: str, stall: float) -> Iterator[bytes]:
            assert stall == 9.0
            self.ran.append((name, *words))
            if name == "pg_dump":
                database = words[0].partition("dbname=")[2].partition("dbname=")[2].split("'")[0]
                yield f"dump of {database}".encode()
                if database in self.fails:
                    raise self.fails[database]
            elif name == "pg_dumpall":
                yield b"CREATE ROLE a;"
            else:
                yield base_tar(text=manifest(FILES, [REACHED]))

        def run(*words: str, timeout: float) -> Any:
            assert words == ("--version",)
            return SimpleNamespace(stdout=f"{name} (PostgreSQL) 18.1\n")

        return SimpleNamespace(stream=stream, run=run)

    # ------------------------------------------------------------------ the writer
    def add(
        self, name: str, unit: str, form: str, source: Iterable[bytes], expected: int = 0
    ) -> None:
        self.stored[name] = (unit, form, b"".join(source), expected)

    def add_plain(self, name: str, unit: str, form: str, source: Iterable[bytes]) -> None:
        self.plain[name] = b"".join(source)

    def add_json(self, name: str, unit: str, document: Any) -> None:
        self.stored[name] = (unit, "JSON", json.dumps(document).encode(), 0)

    def drop(self, name: str) -> None:
        self.dropped.append(name)

    # ------------------------------------------------------------------ sessions
    @contextmanager
    def connect_long(self, access: Any, node: Endpoint, *settings: str) -> Iterator[Any]:
        def execute(text: str) -> Any:
            self.happened.append(" ".join(text.split())[:16])
            rows: list[tuple[Any, ...]] = []
            if "pg_settings" in text:
                rows = [("work_mem", "4MB", "configuration file")]
            elif "pg_hba" in text:
                rows = [("host", ["all"], ["all"], "::1", None, "md5")]
            elif "clock_timestamp" in text:
                rows = [(CLOCK, 1 << 24)]
            return SimpleNamespace(fetchall=lambda: rows, fetchone=lambda: rows[0])

        yield SimpleNamespace(execute=execute)

    def read_globals(self, connection: Any, used: Any, system: Any, tablespaces: Any) -> Globals:
        needed = {"isa": ["owner"], "shop": ["clerk"], "gone": ["nobody"]}
        roles = Roles(roles=[], memberships=[], everybody=[], needed=needed)
        return Globals(roles=roles, system=system, tablespaces=list(tablespaces), databases=[])

    def take(self) -> BackupContent:
        access: Any = SimpleNamespace(
            secret=lambda name, key: f"{name}/{key}",
            settings=SimpleNamespace(backup=SimpleNamespace(stall_seconds=9.0)),
        )
        return back_up(access, cast(Any, self))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path)
    names = (
        "choose_source", "program", "paused_replay", "measure_all", "find_base", "connect_long", "read_globals",
    )  # fmt: skip
    for name in names:
        monkeypatch.setattr(backup, name, getattr(made, name))
    monkeypatch.setattr(backup, "snapshots", made.open_snapshots)
    monkeypatch.setattr(backup, "Watch", made.watch)
    whole = Measure(unit="globals", item="roles", count=1, origin="source")
    monkeypatch.setattr(backup, "measure_globals", lambda connection: [whole])
    monkeypatch.setattr(backup, "read_unreadable", lambda connection: made.unkept)
    monkeypatch.setattr(backup, "locked", lambda access, node, name: f"a table of {name} is locked")
    return made


def units(taken: BackupContent) -> dict[str, tuple[int, int | None, str]]:
    return {
        one.unit: (one.count, one.until, one.digest)
        for one in taken.fingerprint
        if one.unit.startswith("database")
    }


# ---------------------------------------------------------------------- from a standby
def test_files_dumps_and_digests_of_a_standby_are_of_the_moment_at_which_it_is_held(
    world: World,
) -> None:
    taken = world.take()
    assert [(one.unit, one.point) for one in taken.consistency] == [
        ("all databases", "LSN 0/5"),
        ("database isa", "LSN 0/5"),
        ("database shop", "LSN 0/5"),
    ]
    assert taken.consistency[0].begun == taken.consistency[0].ended
    assert {one.ended for one in taken.consistency[1:]} == {TAKEN}
    assert world.happened[0] == "pause"
    assert world.happened[-1] == "resume"
    assert world.happened.count("snapshots") == 1
    assert units(taken) == {f"database {n}": (7, None, "a" * 32) for n in ("isa", "shop")}


def test_a_set_has_files_dumps_roles_and_what_they_were_taken_with(world: World) -> None:
    taken = world.take()
    assert {name: (unit, form) for name, (unit, form, _, _) in world.stored.items()} == {
        "base.tar": ("all databases", "tar of pg_basebackup with WAL"),
        "databases/isa.dump": ("database isa", "pg_dump custom"),
        "databases/shop.dump": ("database shop", "pg_dump custom"),
        "globals.sql": ("globals", "SQL of pg_dumpall --globals-only"),
        "configuration.json": ("globals", "JSON"),
        FILE: ("globals", FORM),
    }
    assert {name: size for name, (_, _, _, size) in world.stored.items() if size} == {
        "base.tar": 150, "databases/isa.dump": 100, "databases/shop.dump": 50,
    }  # fmt: skip
    assert b'"PG_VERSION"' in world.plain["backup_manifest"]
    assert json.loads(world.stored["configuration.json"][2]) == {
        "settings": {"work_mem": {"value": "4MB", "source": "configuration file"}},
        "pg_hba": [["host", ["all"], ["all"], "::1", None, "md5"]],
    }
    assert (taken.engine.name, taken.engine.version, taken.engine.identity) == (
        "PostgreSQL", "18.1", "7",
    )  # fmt: skip
    assert taken.topology == {
        "taken_from": NODE.member,
        "role": "standby",
        "timeline": 4,  # the files know of a promotion that the node does not
        "settled": "2026-01-01T02:00:00+00:00",
        "wal_segment_bytes": 16777216,
        "replay_paused": True,
        NEEDED: {"isa": ["owner"], "shop": ["clerk"]},
    }
    assert taken.tools == {n: f"{n} (PostgreSQL) 18.1" for n in backup.PROGRAMS}
    assert (taken.missing, taken.needs) == ((), ())
    assert taken.not_covered == backup.NOT_COVERED


def test_programs_ask_for_no_password_and_join_the_snapshot(world: World) -> None:
    world.snapshots["shop"] = snapshot("shop", moving=True)
    world.take()
    assert all("--no-password" in words for words in world.ran)
    dumps = [words for words in world.ran if words[0] == "pg_dump"]
    assert [
        (f"--snapshot=snapshot-of-{n}" in words, "--load-via-partition-root" in words)
        for n, words in zip(("isa", "shop"), dumps, strict=True)
    ] == [(True, False), (True, True)]
    limits = {"--exclude-schema=isa_cloud_probe", "--lock-wait-timeout=60s"}
    assert all(limits | {"--format=custom", "--compress=0"} <= {*words} for words in dumps)
    (base,) = (words for words in world.ran if words[0] == "pg_basebackup")
    assert {*base[2:]} == {
        "--pgdata=-", "--format=tar", "--wal-method=fetch", "--checkpoint=fast", "--label=isa-cloud", "--no-password",
    }  # fmt: skip
    assert all("host=10.0.0.1" in words[1] for words in world.ran)


def test_what_a_dump_leaves_out_is_named(world: World) -> None:
    world.snapshots["shop"] = snapshot("shop", invalid=("i_1", "i_2"))
    assert world.take().not_covered[-1] == "invalid indexes of database shop: i_1, i_2"


def test_extensions_are_told_by_database(world: World) -> None:
    world.snapshots["shop"] = snapshot("shop", extensions=(("postgis", "3.5"),))
    assert world.take().engine.extensions == {"shop.postgis": "3.5"}


def test_a_set_that_rests_on_another_is_taken_from_its_manifest(world: World) -> None:
    world.base = Base(b"the earlier manifest", ("full", "part"))
    taken = world.take()
    assert taken.needs == ("full", "part")
    assert world.stored["base.tar"][1] == "tar of pg_basebackup --incremental with WAL"
    (base,) = (words for words in world.ran if words[0] == "pg_basebackup")
    assert any(word.startswith(f"--incremental={world.spool}") for word in base)


# ---------------------------------------------------------------------- from the primary
def test_what_clients_write_on_a_primary_is_watched_from_before_the_snapshots_to_the_end(
    world: World,
) -> None:
    world.status, world.written = PRIMARY, {"shop": {"public.jobs": 9}}
    world.replaced = ["shop: public.again"]
    taken = world.take()
    assert units(taken) == {f"database {n}": (7, None, "b" * 32) for n in ("isa", "shop")}
    assert "pause" not in world.happened
    assert world.happened[:2] == ["watch", "snapshots"]
    assert world.happened[-1] == "end of watch"
    assert world.happened.count("measure") == 1
    assert [(one.unit, one.point) for one in taken.consistency] == [
        ("all databases", "LSN 0/9"),
        ("database isa", "snapshot 10:12:"),
        ("database shop", "snapshot 10:12:"),
    ]
    assert taken.consistency[0].begun < taken.consistency[0].ended
    assert (taken.topology["role"], taken.topology["replay_paused"]) == ("primary", False)
    assert taken.topology["rows_changed"] == {"shop": {"public.jobs": 9}}
    assert taken.not_covered[-1] == (
        "rows of tables that were truncated or made again during the backup are not compared: shop: public.again"
    )


# ---------------------------------------------------------------------- one database's trouble
def test_a_database_of_which_a_table_stays_locked_costs_itself_alone(world: World) -> None:
    world.pause = Pause("0/5", {"shop": "locked"})
    taken = world.take()
    assert taken.missing == ("database shop: a table of shop is locked",)
    assert "databases/shop.dump" not in world.stored
    assert [one.unit for one in taken.consistency] == ["all databases", "database isa"]
    assert list(units(taken)) == ["database isa"]
    assert taken.topology[NEEDED] == {"isa": ["owner"]}


def test_a_database_that_is_known_to_be_unreadable_is_named(world: World) -> None:
    world.unreadable = {"shop": "it takes no connections"}
    assert world.take().missing == ("database shop: it takes no connections",)


def failing(error: str) -> Callable[[World], None]:
    def fail(world: World) -> None:
        world.fails = {"shop": TemporaryError(error)}

    return fail


def test_what_pg_dump_alone_cannot_read_costs_its_database_and_goes_from_the_store(
    world: World,
) -> None:
    failing("pg_dump: warning: x\npg_dump: error: invalid page in block 7")(world)
    taken = world.take()
    (why,) = taken.missing
    assert why.startswith("database shop: pg_dump cannot read it: ")
    assert "invalid page in block 7" in why
    assert world.dropped == ["databases/shop.dump.zst.age"]
    assert list(units(taken)) == ["database isa"]


def test_a_lock_that_pg_dump_waits_for_in_vain_costs_its_database(world: World) -> None:
    failing("canceling statement due to statement timeout")(world)
    assert world.take().missing == ("database shop: a table of shop is locked",)


@pytest.mark.parametrize(
    "error", ["server closed the connection", "relation does not exist", "No space left on device"]
)
def test_what_another_attempt_may_heal_ends_the_backup(error: str, world: World) -> None:
    failing(error)(world)
    with pytest.raises(TemporaryError, match=error):
        world.take()


def test_a_store_that_fails_is_not_the_databases_fault(world: World) -> None:
    def away(*_: Any) -> None:
        raise TemporaryError("the store is away")

    world.add = away  # type: ignore[method-assign,assignment]
    with pytest.raises(TemporaryError, match="store is away"):
        world.take()


def test_tablespaces_leave_the_dumps_and_name_what_is_missing(world: World) -> None:
    world.tablespaces = ("fast", "slow")
    taken = world.take()
    assert taken.missing == (
        "no base backup: pg_basebackup cannot send tablespaces (fast, slow) as one stream",
    )
    assert "base.tar" not in world.stored
    assert [one.unit for one in taken.consistency] == ["database isa", "database shop"]
    assert taken.topology["timeline"] == 3


def test_names_that_no_other_server_would_take_are_missing(world: World) -> None:
    world.unkept = ["role x\\xff"]
    assert world.take().missing == (
        "globals: role x\\xff is not valid UTF-8, so no other server would accept it",
    )


def test_a_name_that_is_no_utf8_is_told_with_its_cure(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(access: Any) -> Source:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

    monkeypatch.setattr(backup, "choose_source", unreadable)
    with pytest.raises(PermanentError, match="is not valid UTF-8, so a manifest cannot hold it"):
        world.take()


def test_what_the_client_raises_is_told_in_the_projects_terms(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(access: Any) -> Source:
        raise psycopg.OperationalError("server closed the connection")

    monkeypatch.setattr(backup, "choose_source", lost)
    with pytest.raises(TemporaryError, match="PostgreSQL, backup"):
        world.take()


def test_a_database_whose_tables_are_dropped_at_every_attempt_is_missing_and_no_other(
    world: World,
) -> None:
    world.status = PRIMARY
    failing('pg_dump: error: relation "s.t" does not exist')(world)
    taken = world.take()
    dumps = [words for words in world.ran if words[0] == "pg_dump"]
    assert sum("dbname=shop " in " ".join(words) for words in dumps) == 1 + DROP_TRIES
    (lost,) = taken.missing
    assert lost.startswith("database shop: tables in it were dropped while it was read")
    assert set(units(taken)) == {"database isa"}
