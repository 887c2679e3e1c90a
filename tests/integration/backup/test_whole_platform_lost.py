"""The platform is lost with all its volumes, and comes back from the newest sets in a namespace that is new.

The last of this folder, on the platform that the others have used: it gives a new one to those that follow.
"""

from __future__ import annotations

import subprocess

import pytest

from components import COMPONENTS
from components.postgresql.client import connect as connect_postgresql
from sandbox.demo import drill

from .conftest import ISA, Backups

# five minutes on a machine that is otherwise at rest, and more than ten on one that is not
pytestmark = [pytest.mark.integration, pytest.mark.timeout(1500)]


def test_a_lost_platform_comes_back_from_its_sets(backups: Backups) -> None:
    environ = backups.sandbox.environ()
    # Prefect is not up here, so the set `platform` is partial: Secrets are in it all the same
    subprocess.run([ISA, "backup", "--local"], env=environ, check=False, timeout=300)
    before = backups.environment.cluster_uid
    done = drill.run(backups.sandbox, ISA, environ, "--local")
    assert {r["component"]: r["outcome"] for r in done.restores} == dict.fromkeys(
        COMPONENTS, "restored"
    )
    namespace = backups.environment.kube.get("v1", "Namespace", backups.live.namespace)
    assert namespace is not None
    assert namespace["metadata"]["uid"] != before
    # the old passwords open the new engines, as clients have them
    with backups.access() as access:
        node = access.endpoint("postgresql-ha-postgresql-0", 5432)
        with connect_postgresql(access, node) as connection:
            row = connection.execute("SELECT count(*) FROM shop.turnover").fetchone()
    assert row is not None
    assert row[0] > 0
    for component in COMPONENTS:
        backups.live.until(component, lambda found: found.state == "ready", "ready")
