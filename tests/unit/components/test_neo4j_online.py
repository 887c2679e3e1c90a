"""Enterprise's backup, driven against a stand-in for neo4j-admin: the program itself is not free to run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from components.neo4j.editions import online
from errors import PermanentError, TemporaryError

PROGRAM = """#!/bin/sh
echo "$@" >> {log}
case "$1 $2" in
"--version ") echo 5.26.30;;
"database backup")
  for word in "$@"; do case $word in --to-path=*) to=${{word#*=}};; esac; done
  for word in "$@"; do name=$word; done
  {backup};;
"database check") {check};;
esac
"""


@dataclass
class Writer:
    """What of a SetWriter is used."""

    spool: Path
    added: dict[str, bytes] = field(default_factory=dict)

    def add(self, name: str, unit: str, form: str, source: Any, estimate: int = 0) -> None:
        self.added[name] = b"".join(source)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Back two databases up with a program that does this and that; returns what was stored and the program's log."""

    backup_settings = SimpleNamespace(backup=SimpleNamespace(programs=(tmp_path,)))
    member = SimpleNamespace(host="10.0.0.1", url="10.0.0.1:6362")
    monkeypatch.setattr(online, "members_of", lambda access, port: [member, member])

    def run(backup: str, check: str = "exit 0") -> tuple[dict[str, bytes], str]:
        program, log = tmp_path / "neo4j-admin", tmp_path / "log"
        program.write_text(PROGRAM.format(log=log, backup=backup, check=check))
        program.chmod(0o755)
        writer: Any = Writer(tmp_path)
        access: Any = SimpleNamespace(settings=backup_settings)
        lacking = online.back_up_databases(access, writer, ["neo4j", "system"])
        assert len(lacking) + len(writer.added) == 2
        return writer.added, log.read_text()

    return run


def test_every_database_is_asked_for_from_all_members_and_checked(run: Any, tmp_path: Path) -> None:
    stored, log = run('echo "$name" > $to/$name-2026-11-23.backup')
    assert stored == {
        "neo4j-2026-11-23.backup": b"neo4j\n",
        "system-2026-11-23.backup": b"system\n",
    }
    assert "--from=10.0.0.1:6362,10.0.0.1:6362" in log
    assert log.count("database check") == 2
    assert [
        entry.name for entry in tmp_path.iterdir() if entry.is_dir()
    ] == []  # the staging is gone


def test_a_status_of_one_with_an_artefact_is_left_to_the_check(run: Any) -> None:
    assert len(run("echo x > $to/$name.backup; exit 1")[0]) == 2


def test_no_artefact_is_a_failure_that_may_pass(run: Any) -> None:
    with pytest.raises(TemporaryError, match="exited with 1: no server"):
        run('echo "no server" >&2; exit 1')


def test_an_inconsistent_store_is_said_and_not_stored(run: Any) -> None:
    with pytest.raises(PermanentError, match=r"not consistent.*broken chain"):
        run("echo x > $to/$name.backup", 'echo "broken chain"; exit 1')


def test_a_database_with_an_inconsistent_store_costs_the_set_itself_only(
    run: Any, tmp_path: Path
) -> None:
    stored, _ = run(
        "echo x > $to/$name.backup", 'case "$*" in *" neo4j") echo "broken chain"; exit 1;; esac'
    )
    assert set(stored) == {"system.backup"}
