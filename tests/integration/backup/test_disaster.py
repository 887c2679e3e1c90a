"""The platform is lost with all its volumes, and comes back from the newest sets in a namespace that is new."""

from __future__ import annotations

import subprocess

import pytest

from components import COMPONENTS
from components.access import Access
from components.postgresql.client import connect as connect_postgresql
from deployments.sandbox import drill
from tests.filled import filled

from .conftest import ISA, until

pytestmark = pytest.mark.integration


def test_a_lost_platform_comes_back_from_its_sets() -> None:
    with filled("disaster") as platform:
        environ = platform.sandbox.environ()
        # Prefect is not up here, so the set `platform` is partial: Secrets are in it all the same
        subprocess.run([ISA, "backup", "--local"], env=environ, check=False, timeout=300)
        before = platform.vault.cluster
        done = drill.run(platform.sandbox, ISA, environ, "--local")
        assert {r["component"]: r["outcome"] for r in done.restores} == dict.fromkeys(
            COMPONENTS, "restored"
        )
        kube = platform.vault.kube
        namespace = kube.get("v1", "Namespace", platform.vault.settings.kubernetes.namespace)
        assert namespace is not None
        assert namespace["metadata"]["uid"] != before
        # the old passwords open the new engines, as clients have them
        with Access(platform.vault.settings, kube, 30) as access:
            node = access.endpoint("postgresql-ha-postgresql-0", 5432)
            with connect_postgresql(access, node) as connection:
                row = connection.execute("SELECT count(*) FROM shop.turnover").fetchone()
        assert row is not None
        assert row[0] > 0

        def ready() -> bool:
            return subprocess.run([ISA, "status"], env=environ, check=False).returncode == 0

        until(ready, "the whole platform is ready", 180)
