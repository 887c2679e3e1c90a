"""Every component answers in the same words: its files are imported late, so here the type checker sees them."""

from __future__ import annotations

import subprocess
import sys

import pytest

import components.emqx.backup
import components.emqx.credentials
import components.emqx.live
import components.emqx.readiness
import components.emqx.restore
import components.minio.backup
import components.minio.credentials
import components.minio.live
import components.minio.readiness
import components.minio.restore
import components.nats.backup
import components.nats.credentials
import components.nats.live
import components.nats.readiness
import components.nats.restore
import components.neo4j.backup
import components.neo4j.credentials
import components.neo4j.live
import components.neo4j.readiness
import components.neo4j.restore
import components.platform.backup
import components.platform.restore
import components.postgresql.backup
import components.postgresql.credentials
import components.postgresql.live
import components.postgresql.readiness
import components.postgresql.restore
import components.qdrant.backup
import components.qdrant.credentials
import components.qdrant.live
import components.qdrant.readiness
import components.qdrant.restore
import components.redis.backup
import components.redis.credentials
import components.redis.live
import components.redis.readiness
import components.redis.restore
from components import COMPONENTS, SETS
from components.base import (
    BackupModule,
    CredentialsModule,
    LiveModule,
    ReadinessModule,
    RestoreModule,
)

CLIENTS = ("psycopg", "redis", "nats", "minio", "neo4j", "components.redis")


# mypy compares each module with its protocol.
BACKUPS: dict[str, BackupModule] = {
    "postgresql": components.postgresql.backup,
    "redis": components.redis.backup,
    "nats": components.nats.backup,
    "minio": components.minio.backup,
    "qdrant": components.qdrant.backup,
    "neo4j": components.neo4j.backup,
    "emqx": components.emqx.backup,
    "platform": components.platform.backup,
}
RESTORES: dict[str, RestoreModule] = {
    "postgresql": components.postgresql.restore,
    "redis": components.redis.restore,
    "nats": components.nats.restore,
    "minio": components.minio.restore,
    "qdrant": components.qdrant.restore,
    "neo4j": components.neo4j.restore,
    "emqx": components.emqx.restore,
    "platform": components.platform.restore,
}
READINESS: dict[str, ReadinessModule] = {
    "postgresql": components.postgresql.readiness,
    "redis": components.redis.readiness,
    "nats": components.nats.readiness,
    "minio": components.minio.readiness,
    "qdrant": components.qdrant.readiness,
    "neo4j": components.neo4j.readiness,
    "emqx": components.emqx.readiness,
}
CREDENTIALS: dict[str, CredentialsModule] = {
    "postgresql": components.postgresql.credentials,
    "redis": components.redis.credentials,
    "nats": components.nats.credentials,
    "minio": components.minio.credentials,
    "qdrant": components.qdrant.credentials,
    "neo4j": components.neo4j.credentials,
    "emqx": components.emqx.credentials,
}
LIVES: dict[str, LiveModule] = {
    "postgresql": components.postgresql.live,
    "redis": components.redis.live,
    "nats": components.nats.live,
    "minio": components.minio.live,
    "qdrant": components.qdrant.live,
    "neo4j": components.neo4j.live,
    "emqx": components.emqx.live,
}


def test_every_engine_is_compared_with_its_protocols() -> None:
    assert list(READINESS) == list(CREDENTIALS) == list(LIVES) == list(COMPONENTS)
    assert list(BACKUPS) == list(RESTORES) == list(SETS)


@pytest.mark.parametrize("name", SETS)
def test_everything_that_is_backed_up_can_be_backed_up_and_restored(name: str) -> None:
    assert SETS[name].back_up == BACKUPS[name].back_up
    assert SETS[name].restore is RESTORES[name].RESTORE


@pytest.mark.parametrize("name", COMPONENTS)
def test_every_engine_can_be_deployed_asked_and_replaced(name: str) -> None:
    component = COMPONENTS[name]
    assert component.secrets is CREDENTIALS[name].SECRETS
    assert component.secrets
    assert component.workloads == READINESS[name].workloads
    assert component.ask == READINESS[name].ask
    assert component.live is LIVES[name].LIVE


def test_who_asks_for_one_engine_loads_no_others_client() -> None:
    program = (
        "import sys; from components import COMPONENTS; COMPONENTS['qdrant'].back_up; print(*[n for n in sys.argv[1:]"
        " if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *CLIENTS], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
