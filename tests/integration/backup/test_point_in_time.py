"""PostgreSQL to a point between two backups: verified in scratch engines, and restored into the live platform."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg import sql

from archive.backup.manifest import Manifest
from archive.evidence.verdicts import read_evidence
from archive.wal.point import Point
from archive.wal.target import RecoveryTarget
from components.postgresql.client import PORT, STATEFULSET, at_primary, connect_long
from components.postgresql.wal.slots import SLOT
from operations.verify.point import point_of

from ..accounts import environ_of, log_in
from .conftest import ISA, Backups, Restorer, until
from .test_proofs import Prover, prover

__all__ = ["prover"]  # the fixture

pytestmark = pytest.mark.integration

DROP_SLOT = (
    "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s"
)
MARKS = "SELECT string_agg(name, '' ORDER BY name) FROM public.marks"


@dataclass
class History:
    """A backup and two marks behind it.

    Attributes:
        base: the backup.
        between: a time between the two marks.
    """

    backups: Backups
    base: Manifest
    between: datetime

    @property
    def text(self) -> str:
        return RecoveryTarget(time=self.between).text

    @property
    def point(self) -> Point:
        return point_of(self.backups.environment, RecoveryTarget(time=self.between))


def run(backups: Backups, *statements: str) -> Any:
    """Run statements on the primary; the value of the last one."""
    with backups.access() as access, at_primary(access, "isa") as connection:
        for statement in statements:
            cursor = connection.execute(statement.encode())
        row = cursor.fetchone() if cursor.description else None
    return row[0] if row else None


@pytest.fixture(scope="module")
def history(backups: Backups, report: Any, tmp_path_factory: Any) -> Iterator[History]:
    spool = tmp_path_factory.mktemp("wal")
    account = log_in(backups.sandbox, spool, "isa-wal")
    assert account.kubeconfig is not None
    environ = environ_of(
        backups.sandbox, account.kubeconfig, ISA_WAL__POSTGRESQL__ENABLED="true",
        ISA_WAL__POSTGRESQL__SPOOL=str(spool / "spool"),
    )  # fmt: skip
    with (spool / "log").open("w") as log:
        stream = subprocess.Popen([ISA, "wal", "stream"], env=environ, stdout=log, stderr=log)
    try:
        backups.isa("backup", "postgresql", "--local")
        run(
            backups,
            "CREATE TABLE public.marks (name text)",
            "INSERT INTO public.marks VALUES ('a')",
        )
        between = run(backups, "SELECT clock_timestamp()")
        run(backups, "INSERT INTO public.marks VALUES ('b')")
        made = History(backups, backups.manifest("postgresql"), between)

        def covered() -> bool:
            assert stream.poll() is None, (spool / "log").read_text()
            try:
                return bool(made.point)
            except Exception:
                return False

        until(covered, "the WAL is stored", 120)
        yield made
    finally:
        stream.terminate()
        stream.wait(60)
        run(backups, "DROP TABLE IF EXISTS public.marks")
        with backups.access() as access:
            members = access.settings.components.postgresql.members
            for node in access.endpoints(STATEFULSET, members, PORT):
                with connect_long(access, node) as connection:
                    connection.execute(DROP_SLOT, [SLOT])
        # the newest backup is an ordinary one again
        backups.isa("backup", "postgresql", "--local")


def test_a_point_is_verified_and_says_nothing_of_its_backup(
    history: History, prover: Prover
) -> None:
    (proof,) = prover.isa("postgresql", "--at", history.text)["proofs"]
    assert (proof["verdict"], proof["level"]) == ("pass", "L4"), proof
    assert proof["backup"] == f"{history.base.id}@{history.text}"
    assert "stopped before the commit of" in proof["reason"]
    store = history.backups.environment.store
    (entry,) = (e for e in store.list(history.base.prefix) if "/proof-point-" in e.key)
    signers = history.backups.environment.settings.verify.signers
    assert read_evidence(store.get(entry.key), entry.key, signers).point == history.text
    catalogue = history.backups.environment.catalogue(["postgresql"])
    assert catalogue.verdict(history.base.id) == ""


def test_a_point_that_is_not_covered_is_refused_with_what_is(history: History) -> None:
    later = RecoveryTarget(time=datetime.now(UTC) + timedelta(hours=1)).text
    done = subprocess.run(
        [ISA, "verify", "postgresql", "--at", later, "--local"],
        env=history.backups.sandbox.environ(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "is in the future. Covered: " in done.stderr
    assert "(from postgresql-" in done.stderr  # the oldest backup from which stored WAL leads on


def test_every_night_a_random_time_and_the_newest_point_are_verified(
    history: History, prover: Prover
) -> None:
    proofs = prover.isa("postgresql", ISA_WAL__POSTGRESQL__ENABLED="true")["proofs"]
    assert [(one["verdict"], one["level"]) for one in proofs] == [("pass", "L4")] * 3, proofs
    assert proofs[-1]["backup"].endswith("@newest")


def test_a_damaged_segment_makes_the_verdict_a_fail_that_names_it(
    history: History, prover: Prover
) -> None:
    store, key = history.backups.environment.store, history.point.line.objects[-1].key
    body = store.get(key, 32 << 20)
    store.put(key, body[:-1] + bytes([body[-1] ^ 1]))
    try:
        (proof,) = prover.isa("postgresql", "--at", history.text, code=1)["proofs"]
        assert (proof["verdict"], key in proof["reason"]) == ("fail", True), proof
    finally:
        store.put(key, body)


def test_the_databases_of_a_point_come_back_into_the_live_platform(
    history: History, restorer: Restorer
) -> None:
    words = ("postgresql", "--at", history.text, "--unit", "isa")
    done = restorer.run(*words, "--plan")
    assert f"back to {history.text} ({history.base.id} and " in " ".join(done.stderr.split())
    (restored,) = restorer.isa(*words)["restores"]
    assert restored["outcome"] == "restored", restored
    assert run(history.backups, MARKS) == "a"
    restorer.ready("postgresql")
    with history.backups.access() as access, at_primary(access) as connection:
        for (name,) in connection.execute(
            "SELECT datname FROM pg_database WHERE datname ~ '^isa__before_'"
        ).fetchall():
            drop = sql.SQL("DROP DATABASE {} (FORCE)").format(sql.Identifier(name))
            connection.execute(drop)
