"""What each service account of namespace.yaml may do, asked of the real API server with the account's own token.

The whole production tree, with stand-in charts and all three Neo4j members, is deployed once by an administrator;
from then on isa-deployer must manage alone, and must not be able to get at anything else.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from archive.backup.manifest import new_identity, set_prefix
from archive.catalogue.check import look
from cluster.kube import Kube, Manifest
from cluster.lease import API_VERSION, KIND, Lease
from components import SETS
from errors import PermanentError
from operations.environment import leases
from operations.environment.leases import backup_lease, verify_lease, wal_lease
from sandbox.cluster import Sandbox
from sandbox.site.object_store import ENVIRONMENT
from tests.contract import checked

from .accounts import CONTROL, PRODUCTION, VERIFY
from .archive.test_committed import make_set
from .archive.test_encryption import Place, place
from .production_accounts import (
    ACCOUNTS,
    Account,
    accounts,
    allowed,
    deployer,
    environ,
    production_tree,
    remove_releases,
    revisions,
)

__all__ = ["accounts", "deployer", "environ", "place"]  # the fixtures

pytestmark = pytest.mark.integration

RBAC = "rbac.authorization.k8s.io"
ONE_A_DAY = {
    f"ISA_BACKUP__RETENTION__{name}": str(number)
    for name, number in {"DAILY": 1, "WEEKLY": 0, "MONTHLY": 0, "YEARLY": 0}.items()
}
EPHEMERAL = {"PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true", "PREFECT_API_URL": ""}
DEBUG = {"emqxConfig": {"EMQX_LOG__CONSOLE__LEVEL": "debug"}}


# ---------------------------------------------------------------------- what the deployer must manage
def test_deployer_plans_and_finds_nothing_to_do(deployer: Account) -> None:
    plan = deployer.isa("plan", code=0)

    assert not plan["changes"]
    assert not plan["blocked"]
    assert len(plan["nodes"]) == 9


def test_deployers_second_deploy_changes_nothing(deployer: Account) -> None:
    before = revisions(deployer.kube)

    assert set(deployer.deploy().values()) == {"unchanged"}
    assert len(before) == 10
    assert revisions(deployer.kube) == before


def test_deployer_rolls_out_changed_values(
    accounts: dict[str, Account], deployer: Account, tmp_path: Path
) -> None:
    tree = production_tree(tmp_path / "helmfile.yaml", emqx=DEBUG)
    changed = Account(deployer.kube, {**deployer.environ, "ISA_PLATFORM__HELMFILE": str(tree)})
    before = revisions(deployer.kube)["emqx"]

    assert changed.actions(code=3) == {"emqx": "upgrade"}
    assert changed.deploy()["emqx"] == "upgraded"
    assert revisions(deployer.kube)["emqx"] == before + 1
    assert deployer.deploy()["emqx"] == "upgraded"  # and back


def test_deployer_repairs_what_was_edited_by_hand(sandbox: Sandbox, deployer: Account) -> None:
    administrator = sandbox.kube()
    edits: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
        ("apps/v1", "StatefulSet", "qdrant", {"spec": {"replicas": 2}}),
        ("v1", "Service", "nats", {"spec": {"selector": {"app.kubernetes.io/name": "other"}}}),
        ("policy/v1", "PodDisruptionBudget", "minio", {"spec": {"maxUnavailable": 4}}),
    )
    for api, kind, name, change in edits:
        live = administrator.get(api, kind, name, PRODUCTION)
        assert live is not None, name
        administrator.patch(live, change)

    wanted = {"qdrant": "drifted", "nats": "drifted", "minio": "drifted"}
    assert deployer.actions(code=3) == wanted
    outcomes = deployer.deploy()
    assert {name: outcomes[name] for name in wanted} == dict.fromkeys(wanted, "upgraded")
    assert deployer.actions(code=0) == {}


def test_deployer_uninstalls_and_installs_every_component_again(
    sandbox: Sandbox, deployer: Account
) -> None:
    remove_releases(sandbox, deployer.environ, *revisions(deployer.kube))
    assert revisions(deployer.kube) == {}

    outcomes = deployer.deploy()

    engines = set(outcomes) - {"storage-classes", "namespace"}
    assert {outcomes[name] for name in engines} == {"installed"}
    assert deployer.isa("status")["ready"]


def test_deployer_puts_a_lost_password_secret_back_but_leaves_the_others(
    sandbox: Sandbox, deployer: Account
) -> None:
    def passwords() -> dict[str, Any]:
        names = ("emqx-auth", "redis-auth")
        live = {name: deployer.kube.get("v1", "Secret", name, PRODUCTION) for name in names}
        return {name: (secret or {}).get("data") for name, secret in live.items()}

    before = passwords()
    live = sandbox.kube().get("v1", "Secret", "emqx-auth", PRODUCTION)
    assert live is not None
    key, kept = sorted(live["data"])[0], sorted(live["data"])[1]
    sandbox.kube().patch(live, {"data": {key: None}})

    assert deployer.deploy("namespace")["namespace"] == "upgraded"
    after = passwords()
    assert after["redis-auth"] == before["redis-auth"]
    assert after["emqx-auth"][kept] == before["emqx-auth"][kept]
    assert after["emqx-auth"][key] != before["emqx-auth"][key]


def test_deployer_adds_the_autoscaler_of_a_service(sandbox: Sandbox, deployer: Account) -> None:
    service = {"deployment": "orders", "min_replicas": 2, "max_replicas": 4, "cpu_percent": 70}
    services = {"ISA_AUTOSCALING__SERVICES": json.dumps([service])}
    scaling = Account(deployer.kube, {**deployer.environ, **services})

    assert scaling.deploy("namespace")["namespace"] == "upgraded"
    assert scaling.actions(code=0) == {}
    sandbox.kube().delete("autoscaling/v2", "HorizontalPodAutoscaler", "orders", PRODUCTION)


# ---------------------------------------------------------------------- what the deployer must not be able to do
WRITE = ("create", "update", "patch", "delete")


@pytest.mark.parametrize("namespace", ["", PRODUCTION, CONTROL, VERIFY, "kube-system", "default"])
def test_deployer_changes_no_rbac(deployer: Account, namespace: str) -> None:
    resources = ("roles", "rolebindings") if namespace else ("clusterroles", "clusterrolebindings")
    for resource in resources:
        for verb in (*WRITE, "bind", "escalate", "deletecollection"):
            assert not allowed(deployer.kube, verb, RBAC, resource, namespace), verb
            assert not allowed(deployer.kube, verb, RBAC, resource, namespace, "isa-deployer"), verb


def test_deployer_cannot_give_itself_more_through_neo4js_roles(
    sandbox: Sandbox, deployer: Account
) -> None:
    """It may write the members' Roles, by name; and Kubernetes lets nobody grant what he has not got."""
    role: Manifest = {
        "apiVersion": f"{RBAC}/v1",
        "kind": "Role",
        "metadata": {"name": "neo4j-1-service-reader", "namespace": PRODUCTION},
        "rules": [{"apiGroups": [RBAC], "resources": ["roles"], "verbs": ["create", "escalate"]}],
    }
    binding: Manifest = {
        "apiVersion": f"{RBAC}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "neo4j-1-service-binding", "namespace": PRODUCTION},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "isa-deployer", "namespace": CONTROL}],
    }
    reader = sandbox.kube().get(f"{RBAC}/v1", "Role", "neo4j-1-service-reader", PRODUCTION)
    for manifest in (role, binding):
        deployer.kube.delete(
            f"{RBAC}/v1", manifest["kind"], manifest["metadata"]["name"], PRODUCTION
        )
        with pytest.raises(
            PermanentError, match=r"HTTP 403.*(not currently held|escalat|forbidden)"
        ):
            deployer.kube.apply(manifest)

    assert deployer.deploy("neo4j")["neo4j"] == "upgraded"
    restored = sandbox.kube().get(f"{RBAC}/v1", "Role", "neo4j-1-service-reader", PRODUCTION)
    assert reader is not None and restored is not None
    assert restored["rules"] == reader["rules"]


def test_deployer_sees_a_changed_quota_and_says_who_may_put_it_right(
    sandbox: Sandbox, environ: dict[str, str], deployer: Account
) -> None:
    live = sandbox.kube().get("v1", "ResourceQuota", "platform", PRODUCTION)
    assert live is not None
    sandbox.kube().patch(live, {"spec": {"hard": {"pods": "81"}}})
    before = revisions(deployer.kube)

    assert deployer.actions(code=3) == {"namespace": "upgrade"}
    report = deployer.isa("deploy", "--local", code=1)

    nodes = {node["name"]: node for node in report["nodes"]}
    assert nodes["namespace"]["outcome"] == "failed"
    assert "ResourceQuota platform has to change" in nodes["namespace"]["reason"]
    assert "isa deploy --only namespace" in nodes["namespace"]["reason"]
    assert nodes["redis"]["reason"] == "needs namespace"
    assert revisions(deployer.kube) == before
    administrator = Account(sandbox.kube(), environ)
    assert administrator.deploy("namespace")["namespace"] == "upgraded"
    assert deployer.actions(code=0) == {}


@pytest.mark.parametrize("namespace", [VERIFY, "default", "kube-system"])
def test_deployer_reads_no_secret_elsewhere_and_changes_nothing_there(
    deployer: Account, namespace: str
) -> None:
    with pytest.raises(PermanentError, match="HTTP 403"):
        deployer.kube.list("v1", "Secret", namespace)
    for group, resource in (
        ("", "secrets"), ("", "configmaps"), ("", "services"), ("", "serviceaccounts"), ("", "pods"),
        ("", "pods/exec"), ("", "pods/portforward"), ("", "persistentvolumeclaims"), ("apps", "statefulsets"),
        ("apps", "deployments"), ("batch", "jobs"), ("networking.k8s.io", "networkpolicies"),
        ("coordination.k8s.io", "leases"), ("", "resourcequotas"),
    ):  # fmt: skip
        for verb in WRITE:
            assert not allowed(deployer.kube, verb, group, resource, namespace), (verb, resource)
    assert not allowed(deployer.kube, "get", "", "secrets", namespace)


def test_deployer_knows_one_secret_of_the_control_namespace(deployer: Account) -> None:
    assert deployer.kube.get("v1", "Secret", "isa-store-deployer", CONTROL)
    for call in (
        lambda: deployer.kube.list("v1", "Secret", CONTROL),
        lambda: deployer.kube.get("v1", "Secret", "prefect", CONTROL),
    ):
        with pytest.raises(PermanentError, match="HTTP 403"):
            call()


# ---------------------------------------------------------------------- keys and Leases, each role its own
ENGINES = ("postgresql", "redis", "nats", "minio", "qdrant", "neo4j", "emqx")
STORE_SECRETS = {
    "isa-deployer": {"deployer"},
    "isa-backup": {"backup"},
    "isa-verify": {"verify"},
    # they may what isa-backup and isa-verify may
    "isa-restore": {"backup", "verify", "restore"},
    "isa-rebuild": {"deployer", "backup", "verify", "rebuild"},
    "isa-retention": {"retention"},
    "isa-wal": {"wal"},
    "isa-reader": set(),
}
DEPLOYS = {leases.DEPLOY, "isa-storage-classes", "isa-namespace"}
OF_ENGINES = {f"isa-{name}" for name in ENGINES}
BACKUPS = {backup_lease(name) for name in SETS}
PROOFS = {verify_lease(name) for name in SETS}
REBUILDS = {f"isa-rebuild-{name}" for name in ENGINES}
LEASES: dict[str, set[str]] = {
    "isa-deployer": DEPLOYS | OF_ENGINES,
    "isa-backup": BACKUPS,
    "isa-verify": PROOFS,
    "isa-restore": OF_ENGINES | BACKUPS | PROOFS,
    "isa-rebuild": DEPLOYS | OF_ENGINES | BACKUPS | PROOFS | REBUILDS,
    "isa-retention": BACKUPS,
    "isa-wal": {wal_lease("postgresql")},
    "isa-reader": set(),
}


def readable(kube: Kube, name: str) -> bool:
    """Whether a Secret of the control namespace is given out."""
    try:
        return kube.get("v1", "Secret", name, CONTROL) is not None
    except PermanentError as exc:
        assert "HTTP 403" in str(exc)
        return False


@pytest.mark.parametrize("name", ACCOUNTS)
def test_an_account_reads_its_own_key_of_the_store(accounts: dict[str, Account], name: str) -> None:
    roles = set().union(*STORE_SECRETS.values())
    kube = accounts[name].kube
    assert {role for role in roles if readable(kube, f"isa-store-{role}")} == STORE_SECRETS[name]
    assert not readable(kube, "infotrend-object")  # the sandbox's root user


@pytest.mark.parametrize("name", ACCOUNTS)
def test_the_private_key_is_read_by_those_alone_who_open_backups(
    accounts: dict[str, Account], name: str
) -> None:
    may = name in ("isa-verify", "isa-restore", "isa-rebuild")
    assert readable(accounts[name].kube, "isa-verify-identity") == may


@pytest.mark.parametrize("name", ACCOUNTS)
def test_an_account_takes_the_leases_of_its_role_and_no_others(
    sandbox: Sandbox, accounts: dict[str, Account], name: str
) -> None:
    kube, taken = accounts[name].kube, set()
    for lease in sorted(set().union(*LEASES.values())):
        sandbox.kube().delete(API_VERSION, KIND, lease, CONTROL)  # so that it has to be created
        try:
            with Lease(kube, CONTROL, lease, purpose="a test") as held:
                held.note("at work")
            taken.add(lease)
        except PermanentError as exc:
            assert "HTTP 403" in str(exc)
    assert taken == LEASES[name]


@pytest.mark.parametrize("name", [one for one in ACCOUNTS if one != "isa-rebuild"])
def test_an_account_cannot_take_a_lease_from_another_role(
    sandbox: Sandbox, accounts: dict[str, Account], name: str
) -> None:
    kube = accounts[name].kube
    with Lease(sandbox.kube(), CONTROL, "isa-rebuild-nats", purpose="a rebuild"):
        found = sandbox.kube().get(API_VERSION, KIND, "isa-rebuild-nats", CONTROL)
        assert found is not None
        for change in (
            lambda: kube.replace(found),
            lambda: kube.patch(found, {"spec": {"holderIdentity": name}}),
            lambda: kube.delete(API_VERSION, KIND, "isa-rebuild-nats", CONTROL),
            lambda: kube.create({**found, "metadata": {"name": "isa-x", "namespace": CONTROL}}),
        ):
            with pytest.raises(PermanentError, match="HTTP 403"):
                change()


@pytest.mark.parametrize("name", ACCOUNTS)
def test_nobody_gets_another_identity_or_at_the_cluster_itself(
    accounts: dict[str, Account], name: str
) -> None:
    kube = accounts[name].kube
    for verb, group, resource, namespace in (
        ("create", "", "serviceaccounts/token", CONTROL), ("create", "", "serviceaccounts/token", "kube-system"),
        ("create", "", "serviceaccounts/token", PRODUCTION), ("impersonate", "", "serviceaccounts", CONTROL),
        ("impersonate", "", "users", ""), ("impersonate", "", "groups", ""),
        ("create", "", "namespaces", ""), ("patch", "", "namespaces", ""), ("delete", "", "namespaces", ""),
        ("patch", "", "nodes", ""), ("create", "", "nodes/proxy", ""), ("get", "", "nodes/proxy", ""),
        ("delete", "", "persistentvolumes", ""), ("create", "", "persistentvolumes", ""),
        ("delete", "storage.k8s.io", "storageclasses", ""), ("create", "", "pods/exec", PRODUCTION),
        ("create", "apiextensions.k8s.io", "customresourcedefinitions", ""),
        ("create", "admissionregistration.k8s.io", "validatingwebhookconfigurations", ""),
        ("create", "certificates.k8s.io", "certificatesigningrequests", ""),
        ("patch", "", "resourcequotas", PRODUCTION), ("delete", "", "limitranges", PRODUCTION),
    ):  # fmt: skip
        assert not allowed(kube, verb, group, resource, namespace), (verb, resource, namespace)
    # a rebuild puts volumes aside, which makes them outlive their claims
    assert allowed(kube, "patch", "", "persistentvolumes") == (name == "isa-rebuild")


# ---------------------------------------------------------------------- the reader, the backup, the verifier
def test_reader_sees_the_status_and_no_secret(accounts: dict[str, Account]) -> None:
    reader = accounts["isa-reader"]

    status = reader.isa("status")
    assert status["ready"]
    assert all(component["members"] for component in status["components"])
    for namespace in (PRODUCTION, CONTROL, VERIFY, "kube-system"):
        with pytest.raises(PermanentError, match="HTTP 403"):
            reader.kube.list("v1", "Secret", namespace)
    with pytest.raises(PermanentError, match="HTTP 403"):
        reader.kube.get("v1", "Secret", "redis-auth", PRODUCTION)


@pytest.mark.parametrize("name", ["isa-reader", "isa-backup", "isa-verify"])
def test_who_does_not_deploy_changes_nothing_in_production(
    accounts: dict[str, Account], name: str
) -> None:
    kube = accounts[name].kube
    for group, resource in (
        ("", "pods"), ("", "services"), ("", "secrets"), ("", "configmaps"), ("", "serviceaccounts"),
        ("", "persistentvolumeclaims"), ("apps", "statefulsets"), ("apps", "deployments"),
        ("apps", "statefulsets/scale"), ("batch", "jobs"), ("policy", "poddisruptionbudgets"),
        ("networking.k8s.io", "networkpolicies"), (RBAC, "roles"), (RBAC, "rolebindings"),
    ):  # fmt: skip
        for verb in WRITE:
            assert not allowed(kube, verb, group, resource, PRODUCTION), (verb, resource)


@pytest.mark.parametrize("name", ["isa-reader", "isa-backup", "isa-verify"])
def test_who_may_not_deploy_is_told_so_and_leaves_all_as_it_was(
    sandbox: Sandbox, accounts: dict[str, Account], tmp_path: Path, name: str
) -> None:
    tree = production_tree(tmp_path / "helmfile.yaml", emqx=DEBUG)
    account = accounts[name]
    changed = Account(account.kube, {**account.environ, "ISA_PLATFORM__HELMFILE": str(tree)})
    before = revisions(sandbox.kube())

    refusal = changed.isa("deploy", "--local", code=1)

    assert "HTTP 403" in refusal["message"]
    assert name in refusal["message"]
    assert revisions(sandbox.kube()) == before
    live = sandbox.kube().get("apps/v1", "StatefulSet", "emqx", PRODUCTION)
    assert live is not None
    assert "debug" not in json.dumps(live["spec"])


def test_backup_reads_what_it_saves(accounts: dict[str, Account]) -> None:
    kube = accounts["isa-backup"].kube

    names = {secret["metadata"]["name"] for secret in kube.list("v1", "Secret", PRODUCTION)}
    assert {"postgresql-ha-auth", "redis-auth", "neo4j-auth"} <= names
    assert len(revisions(kube)) == 10
    assert allowed(kube, "create", "", "pods/portforward", PRODUCTION)
    assert kube.list("v1", "Pod", PRODUCTION)


def test_verifier_makes_scratch_engines_and_sees_no_password(accounts: dict[str, Account]) -> None:
    kube = accounts["isa-verify"].kube

    for resource in ("pods", "secrets"):
        assert allowed(kube, "create", "", resource, VERIFY), resource
    assert allowed(kube, "delete", "", "pods", VERIFY)
    for verb, resource in (
        ("get", "secrets"),  # it writes them, and its pods read them
        ("create", "configmaps"),
        ("create", "persistentvolumeclaims"),  # they come and go with the pods
        ("create", "pods/exec"),
    ):
        assert not allowed(kube, verb, "", resource, VERIFY), (verb, resource)
    assert kube.get("apps/v1", "StatefulSet", "redis-cluster", PRODUCTION)
    with pytest.raises(PermanentError, match="HTTP 403"):
        kube.list("v1", "Secret", PRODUCTION)


# ---------------------------------------------------------------------- retention
FLOW = """
import json
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from flows.retention import retention
from tasks.pages.artifacts import read_report
state = retention("sandbox", components=["redis", "nats"], apply=True, return_state=True)
print(state.type.value, state.message)
key = ArtifactFilterKey(any_=["retention-sandbox-report"])
with get_client(sync_client=True) as client:
    (artifact,) = client.read_artifacts(artifact_filter=ArtifactFilter(key=key))
print(json.dumps(read_report(artifact.data)))
"""


def test_the_retention_run_removes_backups_with_the_rights_of_its_account_alone(
    accounts: dict[str, Account], place: Place, tmp_path: Path
) -> None:
    """The flow itself with a Prefect server of its own, the account's token and its key of the real store."""
    here = replace(place, prefix=ENVIRONMENT)
    root, now = here.store()[0], datetime.now(UTC)
    one = partial(make_set, here, root, spool=tmp_path, body=b"data")
    kept, removed, hidden = (one(now - timedelta(days=days)) for days in (0, 500, 600))
    root.delete(hidden.own_key)
    junk = set_prefix(ENVIRONMENT, "nats", new_identity("nats", now, "0a1b2c")) + "manifest.json"
    root.put(junk, b"junk")
    try:
        done = subprocess.run(
            [sys.executable, "-c", FLOW],
            env={
                **accounts["isa-retention"].environ, **ONE_A_DAY, **EPHEMERAL, "PREFECT_HOME": str(tmp_path),
            },
            capture_output=True, text=True, timeout=300, check=True,
        )  # fmt: skip
        assert done.stdout.startswith("FAILED 1 of 2 backups removed"), done.stdout + done.stderr
        assert (
            f"no backup of nats is removed, because manifests cannot be read: {junk}" in done.stdout
        )
        report = checked(["retention"], done.stdout.splitlines()[-1])
        assert {one["id"]: one["keep"] for one in report["backups"]} == {
            kept.id: True, removed.id: False,
        }  # fmt: skip
        assert (report["applied"], list(report["unread"])) == (True, [junk])
        left = {entry.key.split("/")[2] for entry in root.versions(f"{ENVIRONMENT}/redis/")}
        assert left == {kept.id, hidden.id}
        assert removed.id not in left
        assert look(root, kept) == []
    finally:
        for entry in [*root.versions(f"{ENVIRONMENT}/redis/"), *root.versions(junk)]:
            root.purge(entry.key)
