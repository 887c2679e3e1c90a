"""A scratch engine that is not what the set was taken of refuses sound data: then the set is not to blame."""

from __future__ import annotations

import sys
from typing import Any, cast

import pytest

from archive.backup.manifest import Engine, Manifest
from cluster.command import Command
from components import SETS
from components.postgresql.dumps.filling import run
from errors import PermanentError
from operations.runner.context import RunContext
from operations.verify.compatibility import incompatibility, version_mismatch
from operations.verify.scratch import Unrestorable
from operations.verify.scratch_pod import Request


def set_of(version: str) -> Manifest:
    return Manifest.model_construct(engine=Engine(name="PostgreSQL", version=version))


def why(said: str, version: str = "PostgreSQL 18.6", component: str = "postgresql") -> str:
    request = Request(cast(Any, None), cast(Any, None), (set_of("18.2"),), {}, "")
    refused = Unrestorable("L3", "pg_restore exited with 1", said)
    return incompatibility(
        request, SETS[component].restore, (), refused, version, RunContext("test")
    )


@pytest.mark.parametrize(
    ("scratch", "source", "other"),
    [
        ("PostgreSQL 18.6", "18.2 (Debian 18.2-1)", False),
        ("postgres (PostgreSQL) 18.6", "17.4", True),
        ("Valkey server v=9.1.2 sha=00000000:0 malloc=jemalloc-5.3.0", "8.0.1", True),
        ("valkey 9.1.2", "9.0.0", False),
        ("MinIO 2026-02-12T00-00-00Z", "2025-01-01T00-00-00Z", False),  # versions are days
        ("", "17.4", False),
    ],
)
def test_another_major_version_is_told_and_a_minor_one_is_none(
    scratch: str, source: str, other: bool
) -> None:
    assert bool(version_mismatch(set_of(source), scratch)) == other


@pytest.mark.parametrize(
    ("component", "said", "named"),
    [
        ("postgresql", 'ERROR:  extension "postgis" is not available', "postgis"),
        ("postgresql", 'could not access file "$libdir/vector": No such file', "vector"),
        ("redis", "no matching module type 'ReJSON-RL'", "no matching module"),
    ],
)
def test_an_image_without_what_the_set_needs_is_named(
    component: str, said: str, named: str
) -> None:
    assert named in why(said, component=component)


def test_whatever_else_is_refused_is_the_sets_fault() -> None:
    assert why("ERROR:  invalid byte sequence for encoding") == ""


def test_what_a_tool_quotes_of_a_row_is_kept_apart_from_what_it_stumbled_over() -> None:
    words = (
        "pg_restore: from TOC entry 3456; 0 16403 TABLE DATA shop turnover isa\n"
        "ERROR:  duplicate key\nDETAIL:  Key (email)=(ada@example.com) already exists."
    )
    code = f"import sys; sys.stderr.write({words!r}); sys.exit(1)"
    with pytest.raises(PermanentError, match=r"ada@example\.com") as refused:
        run(Command(sys.executable), "-c", code)
    assert "TABLE DATA shop turnover" in refused.value.plain
    assert "ada@example.com" not in refused.value.plain
