"""The pod of a scratch engine under images that a site brings: users, licences."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from archive.backup.manifest import Manifest as Set
from components.base import Scratch
from components.neo4j import restore as neo4j
from config.models import Settings
from errors import ConfigurationError
from operations.verify.scratch_pod import GIB, Request, pod_of

MANIFEST = cast(
    Set, SimpleNamespace(id="set-1", component="postgresql", plain_size=1, artefacts=[])
)
SCRATCH = Scratch("", "postgresql", "postgresql", ("postgres",), 5432, placed=("base.tar.zst.age",))


def request(
    image: str | None = "registry.example.com/isa/worker:1", chain: tuple[Set, ...] = (MANIFEST,)
) -> Request:
    verify = SimpleNamespace(
        image=SimpleNamespace(reference=image) if image else None,
        storage_class="block",
        timeout_seconds=60.0,
    )
    settings = SimpleNamespace(verify=verify, kubernetes=SimpleNamespace(verify_namespace="verify"))
    return Request(cast(Settings, settings), cast(Any, None), chain, {}, "")


def release(**context: Any) -> dict[str, Any]:
    server = {"name": "postgresql", "image": "pg:17", "securityContext": context}
    return {"spec": {"template": {"spec": {"containers": [server]}}}}


def test_what_fetches_a_data_directory_is_the_user_that_reads_it() -> None:
    pod = pod_of(
        request(), SCRATCH, "proof", release(runAsUser=1001, runAsGroup=1002, privileged=True)
    )
    fetch = pod["spec"]["initContainers"][0]["securityContext"]
    assert (fetch["runAsUser"], fetch["runAsGroup"]) == (1001, 1002)
    assert "privileged" not in fetch and fetch["runAsNonRoot"]


def test_the_volume_holds_a_small_backup_and_all_that_it_depends_on() -> None:
    full = cast(Set, SimpleNamespace(id="full", component="postgresql", plain_size=100 * GIB))
    pod = pod_of(request(chain=(full, MANIFEST)), SCRATCH, "proof", release())
    (claim,) = (v["ephemeral"] for v in pod["spec"]["volumes"] if "ephemeral" in v)
    wanted = claim["volumeClaimTemplate"]["spec"]["resources"]["requests"]["storage"]
    assert int(wanted.removesuffix("Gi")) > 300


def test_without_the_workers_image_nothing_is_fetched() -> None:
    with pytest.raises(ConfigurationError, match=r"verify\.image"):
        pod_of(request(None), SCRATCH, "proof", release())


def test_neo4j_enterprise_starts_under_the_licence_that_the_platform_has() -> None:
    settings = SimpleNamespace(licences=SimpleNamespace(neo4j="yes"))
    (server,) = neo4j.scratch(cast(Settings, settings), MANIFEST, "")
    assert server.environ["NEO4J_ACCEPT_LICENSE_AGREEMENT"] == "yes"
