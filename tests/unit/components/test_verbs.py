"""Every component answers in the same words; its files are imported late, so no type checker sees that."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from inspect import signature
from typing import Any, get_type_hints

import pytest

from archive.writer import SetWriter
from cluster.credentials import SecretSpec
from components import COMPONENTS, SETS
from components.access import Access
from components.base import BackupContent, Live, Report, Restore, Workload
from config.models import Settings

CLIENTS = ("psycopg", "redis", "nats", "minio", "neo4j", "components.redis")


def types_of(verb: Callable[..., Any]) -> tuple[list[Any], Any]:
    hints = get_type_hints(verb)
    return [hints[name] for name in signature(verb).parameters], hints["return"]


@pytest.mark.parametrize("name", SETS)
def test_everything_that_is_backed_up_can_be_backed_up_and_restored(name: str) -> None:
    assert types_of(SETS[name].back_up) == ([Access, SetWriter], BackupContent)
    assert isinstance(SETS[name].restore, Restore)


@pytest.mark.parametrize("name", COMPONENTS)
def test_every_engine_can_be_deployed_asked_and_replaced(name: str) -> None:
    component = COMPONENTS[name]
    assert component.secrets and all(isinstance(s, SecretSpec) for s in component.secrets)
    assert types_of(component.workloads) == ([Settings], tuple[Workload, ...])
    assert types_of(component.ask) == ([Access], Report)
    assert isinstance(component.live, Live)


def test_who_asks_for_one_engine_loads_no_others_client() -> None:
    program = (
        "import sys; from components import COMPONENTS; COMPONENTS['qdrant'].back_up; print(*[n for n in sys.argv[1:]"
        " if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *CLIENTS], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
