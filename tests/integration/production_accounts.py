"""The whole production tree, deployed once by an administrator, and the service accounts that live in it from then on.

Charts are stand-ins; all three Neo4j members are there.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.helm.records import read_records
from cluster.kube import Kube
from config.loading import ROOT
from sandbox.cluster import Sandbox
from tests.contract import checked

from .accounts import PRODUCTION, identity_of, log_in

ISA = str(Path(sys.executable).with_name("isa"))
TREE = ROOT / "deployments/kubernetes"
ACCOUNTS = (
    "isa-deployer",
    "isa-backup",
    "isa-verify",
    "isa-restore",
    "isa-rebuild",
    "isa-retention",
    "isa-wal",
    "isa-reader",
)


@dataclass(frozen=True)
class Account:
    """A service account, as the product would run with it.

    Attributes:
        kube: the cluster, seen with its token.
        environ: of its processes.
    """

    kube: Kube
    environ: Mapping[str, str]

    def isa(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        """Run a command with `--json`; its exit status must be `code`."""
        done = subprocess.run(
            [ISA, *arguments, "--json"],
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == code, done.stderr + done.stdout
        return checked(arguments, done.stdout, done.stderr)

    def deploy(self, *only: str) -> dict[str, str]:
        """Deploy; outcome by node."""
        chosen = [part for node in only for part in ("--only", node)]
        report = self.isa("deploy", "--local", *chosen)
        return {node["name"]: node["outcome"] for node in report["nodes"]}

    def actions(self, *, code: int) -> dict[str, str]:
        """What a plan would do to the nodes that are not as declared."""
        plan = self.isa("plan", code=code)
        return {n["name"]: n["action"] for n in plan["nodes"] if n["action"] != "unchanged"}


def production_tree(file: Path, **added: Mapping[str, Any]) -> Path:
    """Write production's helmfile with stand-in charts, and with last values for the named releases."""
    source = TREE / "production/helm/helmfile.yaml"
    document = yaml.safe_load(source.read_text())
    del document["repositories"]
    for release in document["releases"]:
        release["chart"] = str(TREE / "sandbox/charts" / release["chart"].split("/")[1])
        release["values"] = [
            str(source.parent / value) if isinstance(value, str) else value
            for value in release["values"]
        ]
        release["values"] += [added[release["name"]]] if release["name"] in added else []
    file.write_text(yaml.safe_dump(document))
    return file


@pytest.fixture(scope="module")
def environ(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment of an administrator of the production tree."""
    helmfile = production_tree(tmp_path_factory.mktemp("tree") / "helmfile.yaml")
    return {
        **sandbox.environ(),
        "ISA_PLATFORM__HELMFILE": str(helmfile),
        "ISA_COMPONENTS__NEO4J__MEMBERS": "3",
        "ISA_COMPONENTS__NEO4J__EDITION": "enterprise",
        "ISA_COMPONENTS__NEO4J__MIN_AVAILABLE": "2",
    }


def remove_releases(sandbox: Sandbox, environ: Mapping[str, str], *names: str) -> None:
    helm = str(sandbox.binary("helm"))
    for name in names:
        subprocess.run(
            [helm, "uninstall", name, "-n", PRODUCTION],
            env=environ,
            check=True,
            capture_output=True,
        )


@pytest.fixture(scope="module")
def accounts(
    sandbox: Sandbox, environ: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Account]]:
    """The four accounts, after an administrator has deployed everything once."""
    remove_releases(sandbox, environ, *read_records(sandbox.kube(), PRODUCTION))
    administrator = Account(sandbox.kube(), environ)
    assert set(administrator.deploy().values()) <= {"installed", "upgraded", "unchanged"}
    directory = tmp_path_factory.mktemp("accounts")
    yield {name: account(sandbox, environ, directory, name) for name in ACCOUNTS}
    remove_releases(sandbox, environ, *read_records(sandbox.kube(), PRODUCTION))


def account(sandbox: Sandbox, environ: Mapping[str, str], directory: Path, name: str) -> Account:
    """A service account as the product would run with it."""
    settings = log_in(sandbox, directory, name)
    assert settings.kubeconfig is not None
    return Account(Kube.connect(settings), {**environ, **identity_of(settings.kubeconfig)})


@pytest.fixture
def deployer(accounts: dict[str, Account]) -> Account:
    return accounts["isa-deployer"]


def allowed(
    kube: Kube, verb: str, group: str, resource: str, namespace: str = "", name: str = ""
) -> bool:
    """Ask the API server whether this identity may do something (SelfSubjectAccessReview)."""
    attributes = {"verb": verb, "group": group, "namespace": namespace, "name": name}
    attributes["resource"], _, attributes["subresource"] = resource.partition("/")
    answer = kube.request(
        "POST",
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
        body={
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        },
    )
    return bool(answer["status"]["allowed"])


def revisions(kube: Kube) -> dict[str, int]:
    return {name: history[-1].revision for name, history in read_records(kube, PRODUCTION).items()}
