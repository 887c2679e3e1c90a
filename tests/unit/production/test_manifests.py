"""Rights, credentials and form of everything in the production tree."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from yaml import CSafeLoader

from cluster.pods.jobs import QUEUE
from components.neo4j.editions.offline import pod_of
from components.postgresql.client import SECRET
from config.models import Settings, StoreSecrets
from config.sections.backups import BackupSettings
from operations.environment.leases import wal_lease
from operations.environment.place import ENVIRONMENT
from operations.environment.render import render_manifest
from tasks.server.api import deployments

from .conftest import PRODUCTION, ROOT, merge

CLUSTER_WIDE = {
    "Namespace", "StorageClass", "BucketClass", "ClusterRole", "ClusterRoleBinding", "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
}  # fmt: skip
NAMESPACES = {"isa-cloud-production", "isa-cloud-control", "isa-cloud-verify"}
CREDENTIAL = re.compile(
    r"password|passwd|token|cookie|secret|apikey|api_key|credential", re.IGNORECASE
)
USER = re.compile(r"user(name)?$", re.IGNORECASE)
DEFAULT_USERS = {"admin", "root", "console", "minioadmin", "guest", "public", "neo4j"}
# Secrets that exist before the releases, and the keys by which charts are told to read them.
SECRETS = {
    "postgresql-ha-auth",
    "pgpool-auth",
    "redis-auth",
    "redis-password",
    "qdrant-auth",
    "nats-auth",
    "minio-auth",
    "neo4j-auth",
    "emqx-auth",
}


def pairs(value: Any, path: str = "") -> Iterator[tuple[str, str, Any]]:
    """Path, key and value of every entry; an environment variable's name counts as its key."""
    if isinstance(value, Mapping):
        if "name" in value and "value" in value:
            yield f"{path}.{value['name']}", str(value["name"]), value["value"]
        for key, entry in value.items():
            yield f"{path}.{key}", str(key), entry
            yield from pairs(entry, f"{path}.{key}")
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            yield from pairs(entry, f"{path}[{index}]")


def rules(
    manifests: list[dict[str, Any]], account: str, namespace: str | None
) -> list[dict[str, Any]]:
    """Rules that a service account has in a namespace, or in the cluster."""
    roles = {
        (m["kind"], m["metadata"]["name"], m["metadata"].get("namespace")): m for m in manifests
    }
    result: list[dict[str, Any]] = []
    for m in manifests:
        binds = m["kind"].endswith("RoleBinding") and m["metadata"].get("namespace") == namespace
        if binds and any(subject["name"] == account for subject in m["subjects"]):
            result += roles[(m["roleRef"]["kind"], m["roleRef"]["name"], namespace)]["rules"]
    return result


def verbs(granted: list[dict[str, Any]], resource: str, *, named: bool) -> set[str]:
    return {
        verb
        for rule in granted
        for verb in rule["verbs"]
        if resource in rule["resources"] and (named or "resourceNames" not in rule)
    }


def test_every_document_says_where_it_belongs(manifests: list[dict[str, Any]]) -> None:
    seen = set()
    for m in manifests:
        assert {"apiVersion", "kind", "metadata"} <= set(m)
        namespace = m["metadata"].get("namespace")
        assert (namespace is None) == (m["kind"] in CLUSTER_WIDE), (
            m["kind"],
            m["metadata"]["name"],
        )
        assert namespace is None or namespace in NAMESPACES
        assert m["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "isa-cloud"
        identity = (m["kind"], namespace, m["metadata"]["name"])
        assert identity not in seen, f"{identity} stands twice"
        seen.add(identity)
    assert "${" not in yaml.safe_dump(manifests)


def test_each_namespace_has_a_quota_defaults_and_pod_security(
    manifests: list[dict[str, Any]],
) -> None:
    for kind in ("ResourceQuota", "LimitRange"):
        assert {m["metadata"]["namespace"] for m in manifests if m["kind"] == kind} == NAMESPACES
    for m in manifests:
        if m["kind"] == "Namespace":
            assert m["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
            assert m["metadata"]["labels"][ENVIRONMENT] == "production"


def test_each_stateless_service_of_the_settings_gets_an_autoscaler(
    manifests: list[dict[str, Any]],
) -> None:
    scalers = {
        m["metadata"]["name"]: m["spec"]
        for m in manifests
        if m["kind"] == "HorizontalPodAutoscaler"
    }
    assert set(scalers) == {"orders", "search"}
    assert scalers["orders"]["scaleTargetRef"]["name"] == "orders"
    assert (scalers["orders"]["minReplicas"], scalers["orders"]["maxReplicas"]) == (2, 10)
    assert scalers["orders"]["metrics"][0]["resource"]["target"]["averageUtilization"] == 70


def test_the_bucket_class_is_there_only_with_a_driver(
    settings: Settings, manifests: list[dict[str, Any]]
) -> None:
    assert not [m for m in manifests if m["kind"] == "BucketClass"]
    objects = settings.storage.object.model_copy(update={"cosi_driver": "cosi.example.com"})
    storage = settings.storage.model_copy(update={"object": objects})
    with_driver = settings.model_copy(update={"storage": storage})
    rendered = render_manifest(PRODUCTION / "storage" / "storage-classes.yaml", with_driver)
    (bucket_class,) = [m for m in rendered if m["kind"] == "BucketClass"]
    assert bucket_class["driverName"] == "cosi.example.com"
    assert bucket_class["deletionPolicy"] == "Retain"


def test_no_right_is_a_wildcard(manifests: list[dict[str, Any]]) -> None:
    for m in manifests:
        for rule in m.get("rules", []):
            assert "*" not in [*rule["verbs"], *rule["resources"], *rule["apiGroups"]], m[
                "metadata"
            ]["name"]


def test_every_binding_names_a_role_and_an_account_that_exist(
    manifests: list[dict[str, Any]],
) -> None:
    accounts = {m["metadata"]["name"] for m in manifests if m["kind"] == "ServiceAccount"}
    assert accounts == {
        "isa-deployer",
        "isa-backup",
        "isa-verify",
        "isa-restore",
        "isa-rebuild",
        "isa-retention",
        "isa-wal",
        "isa-dispatcher",
        "isa-recovery-dispatcher",
        "isa-reader",
    }
    for m in manifests:
        if m["kind"].endswith("RoleBinding"):
            assert rules(manifests, m["subjects"][0]["name"], m["metadata"].get("namespace"))
            assert {s["name"] for s in m["subjects"]} <= accounts
            assert {s["namespace"] for s in m["subjects"]} == {"isa-cloud-control"}


def test_the_deployer_changes_no_rbac_but_the_roles_of_neo4js_members(
    manifests: list[dict[str, Any]],
) -> None:
    read = {"get", "list", "watch"}
    for namespace in [None, *NAMESPACES]:
        granted = rules(manifests, "isa-deployer", namespace)
        for resource in ("roles", "rolebindings", "clusterroles", "clusterrolebindings"):
            assert verbs(granted, resource, named=False) <= read, (namespace, resource)
    production = rules(manifests, "isa-deployer", "isa-cloud-production")
    named = {n for r in production if "roles" in r["resources"] for n in r.get("resourceNames", [])}
    assert named == {f"neo4j-{i}-service-reader" for i in (1, 2, 3)}
    # Kubernetes lets nobody grant what he does not hold himself.
    for resource in ("services", "endpoints"):
        assert read <= verbs(production, resource, named=True)


def test_only_who_needs_secrets_reads_them(manifests: list[dict[str, Any]]) -> None:
    for namespace in [None, *NAMESPACES]:
        assert not verbs(rules(manifests, "isa-reader", namespace), "secrets", named=True)
    assert not verbs(rules(manifests, "isa-verify", "isa-cloud-production"), "secrets", named=True)
    assert verbs(rules(manifests, "isa-backup", "isa-cloud-production"), "secrets", named=True) == {
        "get",
        "list",
    }
    for account in ("isa-deployer", "isa-backup", "isa-verify"):
        control = rules(manifests, account, "isa-cloud-control")
        assert not verbs(control, "secrets", named=False), (
            f"{account} reads more than the object store's Secret"
        )


def test_backup_and_reader_change_nothing_in_production(manifests: list[dict[str, Any]]) -> None:
    for account in ("isa-backup", "isa-reader"):
        for rule in rules(manifests, account, "isa-cloud-production"):
            if rule["resources"] != ["pods/portforward"]:
                assert set(rule["verbs"]) <= {"get", "list", "watch"}, (account, rule)


def test_the_stream_of_wal_reads_one_password_and_its_keys_and_changes_its_lease_alone(
    manifests: list[dict[str, Any]],
) -> None:
    production = rules(manifests, "isa-wal", "isa-cloud-production")
    control = rules(manifests, "isa-wal", "isa-cloud-control")
    assert [rule["verbs"] for rule in production] == [["get"]] * 3
    named = {
        resource: rule.get("resourceNames")
        for rule in (*production, *control)
        for resource in rule["resources"]
    }
    assert named["secrets"] == [
        StoreSecrets().wal,
        BackupSettings.model_fields["signing_secret"].default,
    ]
    (password,) = (rule for rule in production if rule["resources"] == ["secrets"])
    assert password["resourceNames"] == [SECRET]
    assert named["leases"] == [wal_lease("postgresql")]
    assert set(named) == {"pods", "secrets", "namespaces", "leases"}
    assert not rules(manifests, "isa-wal", None)
    assert not rules(manifests, "isa-wal", "isa-cloud-verify")


def test_no_password_and_no_default_user_stands_in_the_tree() -> None:
    files = [*PRODUCTION.rglob("*.yaml"), ROOT / "config" / "site-values.yaml"]
    assert len(files) >= 11
    for file in files:
        for document in yaml.load_all(file.read_text(), Loader=CSafeLoader):
            for path, key, value in pairs(document):
                where = f"{file.relative_to(ROOT)}: {path}"
                if isinstance(value, str) and value and CREDENTIAL.search(key):
                    assert value in SECRETS or value.startswith(("<< $", "${")), where
                if isinstance(value, str) and USER.search(key):
                    assert value not in DEFAULT_USERS, where


def test_a_password_in_a_values_file_would_be_found() -> None:
    document = {
        "a": {"rootPassword": "x"},
        "env": [{"name": "QDRANT__SERVICE__API_KEY", "value": "y"}],
    }
    caught = [
        path
        for path, key, value in pairs(document)
        if CREDENTIAL.search(key) and isinstance(value, str)
    ]
    assert caught == [".a.rootPassword", ".env[0].QDRANT__SERVICE__API_KEY"]


def test_defaults_of_the_charts_that_make_users_or_secrets_are_off(
    values: dict[str, dict[str, Any]],
) -> None:
    assert values["minio"]["users"] == []
    assert values["emqx"]["emqxConfig"]["EMQX_DASHBOARD__DEFAULT_PASSWORD"] == ""
    assert values["emqx"]["metrics"]["enabled"] is False
    assert values["nats"]["natsBox"]["enabled"] is False
    assert values["neo4j-1"]["disableLookups"] is True
    assert not {"apiKey", "readOnlyApiKey"} & set(values["qdrant"])
    assert values["neo4j-1"]["services"]["neo4j"]["enabled"] is False


def test_staging_is_production_but_for_its_facts() -> None:
    environments = ROOT / "config" / "environments"
    production, staging = (
        yaml.safe_load((environments / f"{name}.yaml").read_text())
        for name in ("production", "staging")
    )
    assert staging["platform"] == production["platform"]
    assert staging["kubernetes"] == production["kubernetes"]
    assert merge(staging, {"environment": "production"})["environment"] == production["environment"]
    assert staging["licences"] == production["licences"] == {}
    assert staging["images"] == production["images"] == {}


def test_the_policy_of_neo4js_helper_admits_the_pod_that_is_made(settings: Settings) -> None:
    """A change of one without the other would end every backup; the policy itself is tried on a real API server."""
    neo4j = settings.backup.neo4j.model_copy(update={"offline": True})
    backup = settings.backup.model_copy(update={"neo4j": neo4j})
    rendered = render_manifest(
        settings.platform.namespace_manifest, settings.model_copy(update={"backup": backup})
    )
    kind, name = "ValidatingAdmissionPolicy", "isa-neo4j-dump"
    (policy,) = [m for m in rendered if (m["kind"], m["metadata"]["name"]) == (kind, name)]
    server = {"name": "neo4j", "image": "neo4j:5", "volumeMounts": []}
    template = {"spec": {"containers": [server]}}
    pod = pod_of({"metadata": {"namespace": "isa"}, "spec": {"template": template}})
    expressions = " ".join(one["expression"] for one in policy["spec"]["validations"])
    for value in (
        pod["metadata"]["name"],
        pod["metadata"]["labels"],
        pod["spec"]["containers"][0]["command"],
    ):
        assert json.dumps(value) in expressions, value
    (condition,) = policy["spec"]["matchConditions"]
    bound = next(
        m
        for m in rendered
        if m["kind"] == "RoleBinding" and m["metadata"]["name"] == "isa-backup-neo4j-offline"
    )
    assert all(f'"{subject["name"]}"' in condition["expression"] for subject in bound["subjects"])
    assert '"system:serviceaccount:isa-cloud-control:"' in condition["expression"]


def test_a_policy_that_reads_an_object_is_asked_about_few_objects(settings: Settings) -> None:
    """Else no pod or Job of a namespace is made while the object that it reads is not there, whoever makes it."""
    neo4j = settings.backup.neo4j.model_copy(update={"offline": True})
    backup = settings.backup.model_copy(update={"neo4j": neo4j})
    rendered = render_manifest(
        settings.platform.namespace_manifest, settings.model_copy(update={"backup": backup})
    )
    bindings = [m for m in rendered if m["kind"] == "ValidatingAdmissionPolicyBinding"]
    reading = {m["metadata"]["name"]: m for m in rendered if "paramKind" in m.get("spec", {})}
    assert reading.keys() == {"isa-neo4j-dump-image", "isa-run-template"}
    for rule in reading["isa-neo4j-dump-image"]["spec"]["matchConstraints"]["resourceRules"]:
        assert rule["resourceNames"] == ["neo4j-1-dump"]
    for one in bindings:
        if one["spec"]["policyName"] == "isa-run-template":
            queue = one["metadata"]["name"].removeprefix("isa-run-")
            selector = one["spec"]["matchResources"]["objectSelector"]
            assert selector == {"matchLabels": {QUEUE: queue}}
            assert one["spec"]["paramRef"]["name"] == f"isa-run-{queue}"


def test_the_pods_of_every_queue_have_a_policy(settings: Settings) -> None:
    rendered = render_manifest(settings.platform.namespace_manifest, settings)
    bound = {
        one["spec"]["paramRef"]["name"]
        for one in rendered
        if one["kind"] == "ValidatingAdmissionPolicyBinding" and "paramRef" in one["spec"]
    }
    assert bound == {f"isa-run-{one['work_pool']['work_queue_name']}" for one in deployments()}
