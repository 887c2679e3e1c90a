"""helmfile itself, built from its Go module, takes our files: the operator's way out is not a promise on paper."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.helm.records import read_records
from cluster.helm.releases import load_releases
from cluster.kube import Manifest
from cluster.manifests import parse_manifests
from config.loading import ROOT, load
from config.models import COMPONENTS
from operations.deploy.plan import make_plan
from operations.environment.environment import Environment
from sandbox.cluster import Sandbox
from tests.documents import shell_blocks

pytestmark = pytest.mark.integration

TREE = ROOT / "deployments/kubernetes"
PRODUCTION = TREE / "production/helm/helmfile.yaml"
NAMESPACE = "isa-cloud-production"
# as isa itself applies: in its name, and taking what others hold
APPLY_FLAGS = ("--server-side", "--force-conflicts", "--field-manager=isa-cloud")
ISA = str(Path(sys.executable).with_name("isa"))


@pytest.fixture(scope="module")
def environ(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The sandbox's environment, with helmfile's cache in a directory of its own.

    helmfile pulls charts of OCI repositories even to print what it has read. It looks into its cache first, where the
    stand-in charts wait for it.
    """
    cache = tmp_path_factory.mktemp("helmfile")
    for release in yaml.safe_load(PRODUCTION.read_text())["releases"]:
        repository, chart = release["chart"].split("/")
        kept = cache / repository / chart / release["version"] / chart
        if repository == "bitnami":
            shutil.copytree(TREE / "sandbox/charts" / chart, kept)
    return {
        **sandbox.environ(),
        "HELMFILE_CACHE_HOME": str(cache),
        "HELMFILE_UPGRADE_NOTICE_DISABLED": "1",
    }


@pytest.fixture(scope="module")
def rendered(environ: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `isa render` writes for the sandbox."""
    target = tmp_path_factory.mktemp("render") / "rendered"
    run(environ, ISA, "render", "--output", str(target))
    return target


@pytest.fixture
def platform(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Environment:
    """The sandbox's platform, as the commands open it."""
    monkeypatch.setenv("PATH", environ["PATH"])
    return Environment(load("sandbox", environ)).open_releases()


@pytest.fixture
def no_releases(sandbox: Sandbox, environ: dict[str, str]) -> Iterator[None]:
    """A cluster without releases, before and after."""

    def remove() -> None:
        for name in read_records(sandbox.kube(), NAMESPACE):
            run(environ, str(sandbox.binary("helm")), "uninstall", name, "-n", NAMESPACE)

    remove()
    yield
    remove()


def run(environ: Mapping[str, str], *command: str, code: int = 0) -> str:
    done = subprocess.run(
        command, env=environ, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == code, done.stderr + done.stdout
    return done.stdout


def helmfile(sandbox: Sandbox, environ: Mapping[str, str], file: Path, *arguments: str) -> str:
    return run(environ, str(sandbox.binary("helmfile")), "--file", str(file), *arguments)


def identity(manifest: Manifest) -> str:
    metadata = manifest["metadata"]
    return f"{manifest['apiVersion']} {manifest['kind']} {metadata['name']}"


@pytest.mark.parametrize(
    "file", [PRODUCTION, TREE / "sandbox/helmfile.yaml"], ids=lambda f: f.parent.name
)
def test_helmfile_lists_exactly_the_releases_that_we_deploy(
    sandbox: Sandbox, environ: dict[str, str], file: Path
) -> None:
    ours = load_releases(file, COMPONENTS).releases

    listed = json.loads(helmfile(sandbox, environ, file, "list", "--output", "json"))

    assert {(entry["name"], entry["namespace"]) for entry in listed} == {
        (release.name, release.namespace) for release in ours
    }
    assert all(entry["enabled"] and entry["installed"] for entry in listed)
    components = {release.name: release.component for release in ours}
    for entry in listed:
        assert f"component:{components[entry['name']]}" in entry["labels"].split(",")


def test_helmfile_reads_productions_file_as_we_do(
    sandbox: Sandbox, environ: dict[str, str]
) -> None:
    ours = {release.name: release for release in load_releases(PRODUCTION, COMPONENTS).releases}

    built = yaml.safe_load(helmfile(sandbox, environ, PRODUCTION, "build"))

    repositories = {entry["name"]: entry for entry in built["repositories"]}
    assert [entry["name"] for entry in built["releases"]] == list(ours)
    for entry in built["releases"]:
        release = ours[entry["name"]]
        repository, chart = entry["chart"].split("/")
        address = repositories[repository]["url"]
        oci = repositories[repository].get("oci", False)
        where = (f"oci://{address}/{chart}", "") if oci else (chart, address)
        assert (release.chart, release.repository) == where
        assert entry["version"] == release.version
        assert entry.get("wait", built["helmDefaults"]["wait"]) == release.wait
        assert entry.get("timeout", built["helmDefaults"]["timeout"]) == release.timeout
        values: list[Any] = [
            (PRODUCTION.parent / value).resolve() if isinstance(value, str) else value
            for value in entry["values"]
        ]
        assert values == list(release.values)


def test_helmfile_renders_what_a_deploy_would_apply(
    sandbox: Sandbox, environ: dict[str, str], rendered: Path, platform: Environment
) -> None:
    plan = make_plan(platform)
    ours = [m for node in plan.nodes for release in node.releases for m in release.manifests]
    # as the plan does: without a cluster to ask, helm has to be told what it serves (EMQX's budget depends on it)
    served = " ".join(f"--api-versions {version}" for version in platform.kube.api_versions())

    text = helmfile(
        sandbox, environ, rendered / "helmfile.yaml",
        "template", "--skip-deps", "--skip-tests", "--no-hooks",
        "--kube-version", platform.kube.version(), "--args", served,
    )  # fmt: skip

    theirs = {identity(manifest): manifest for manifest in parse_manifests(text)}
    assert len(ours) >= 60  # no chart brings a NetworkPolicy of its own
    assert sorted(theirs) == sorted(map(identity, ours))
    for manifest in ours:
        assert theirs[identity(manifest)] == manifest


def test_kubectl_and_helmfile_alone_install_what_isa_finds_complete(
    sandbox: Sandbox, environ: dict[str, str], tmp_path: Path, no_releases: None
) -> None:
    """docs/operations/deploy.md, "Deploying without isa": afterwards `isa deploy` has nothing left to do."""
    run(environ, ISA, "deploy", "--local", "--only", "namespace")  # brings the Secrets
    (block,) = (b for b in shell_blocks("docs/operations/deploy.md") if "helmfile" in b.script)
    programs = (Path(ISA), sandbox.binary("kubectl"), sandbox.binary("helmfile"))
    path = os.pathsep.join([*(str(one.parent) for one in programs), environ["PATH"]])
    script = f"cd '{tmp_path}'\n{block.script.replace('--env production', '--env sandbox')}"

    run({**environ, "PATH": path}, "bash", "-euo", "pipefail", "-c", script)

    assert len(read_records(sandbox.kube(), NAMESPACE)) == 8
    plan = json.loads(run(environ, ISA, "plan", "--json"))
    assert [node["reasons"] for node in plan["nodes"] if node["action"] != "unchanged"] == []


def test_render_names_the_way_out_that_works(environ: dict[str, str], tmp_path: Path) -> None:
    said = run(environ, ISA, "render", "--output", str(tmp_path / "rendered"))

    assert f"kubectl apply {' '.join(APPLY_FLAGS)} -f {tmp_path}/rendered/manifests" in said
    assert f"helmfile -f {tmp_path}/rendered/helmfile.yaml sync" in said
