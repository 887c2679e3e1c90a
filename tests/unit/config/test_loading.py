"""Loading of settings: one report with every fault, each with its place and what to do."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from config.loading import ROOT, load
from config.models import Settings
from errors import ConfigurationError, Fault, InputError

KEYS = (
    "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p",
    "age1lggyhqrw2nlhcxprm67z43rta597azn8gknawjehu9d9dl0jq3yqqvfafg",
)
REQUIRED = [
    "storage.block.provisioner",
    "storage.block.parameters",
    "storage.nfs.server",
    "storage.nfs.share",
    "storage.object.endpoint",
    "storage.object.bucket",
    "licences.neo4j",
    "licences.emqx",
    "images.postgresql",
    "images.pgpool",
    "images.postgres_exporter",
    "images.redis",
    "images.redis_exporter",
    "images.minio",
    "images.minio_client",
    "backup.age_recipients",
]
FILE = "config/environments/sandbox.yaml"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The shipped environments, with the files that they declare standing empty."""
    directory = tmp_path / "config" / "environments"
    shutil.copytree(ROOT / "config" / "environments", directory)
    for environment in directory.glob("*.yaml"):
        for declared in yaml.safe_load(environment.read_text())["platform"].values():
            (tmp_path / declared).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / declared).touch()
    return tmp_path


def sandbox(project: Path, **environ: str) -> Settings:
    return load("sandbox", {f"ISA_{name}": text for name, text in environ.items()}, project)


def faults(
    project: Path, environment: str = "sandbox", environ: Mapping[str, str] | None = None
) -> list[Fault]:
    with pytest.raises(InputError) as caught:
        load(environment, environ or {}, project)
    return list(caught.value.faults)


def fault(project: Path, **environ: str) -> Fault:
    (only,) = faults(project, environ={f"ISA_{name}": text for name, text in environ.items()})
    return only


def edit(project: Path, old: str, new: str) -> None:
    file = project / FILE
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


class TestTheShippedEnvironments:
    @pytest.mark.parametrize("environment", ["production", "staging"])
    def test_without_the_sites_facts_list_all_of_them_at_once(
        self, project: Path, environment: str
    ) -> None:
        found = faults(project, environment)
        file = f"config/environments/{environment}.yaml"
        assert [one.where for one in found] == [f"{file}: {key}" for key in REQUIRED]

    def test_say_where_each_missing_fact_is_read(self, project: Path) -> None:
        hints = {one.where.split(": ")[1]: one.hint for one in faults(project, "production")}
        assert "kubectl get csidrivers,storageclass" in hints["storage.block.provisioner"]
        assert "share page" in hints["storage.nfs.server"]
        assert '"Images"' in hints["images.redis"]
        assert '"Licences"' in hints["licences.emqx"]
        assert "age-keygen" in hints["backup.age_recipients"]
        assert all(f"ISA_{key.upper().replace('.', '__')}" in hints[key] for key in hints)

    def test_a_missing_section_lists_its_keys_too(self, project: Path) -> None:
        file = project / "config/environments/production.yaml"
        file.write_text(file.read_text().replace("backup: {}", "").replace("images: {}", "images:"))
        assert [one.where.split(": ")[1] for one in faults(project, "production")] == REQUIRED

    def test_production_loads_with_its_facts_from_variables(self, project: Path) -> None:
        facts = {
            "ISA_STORAGE__BLOCK__PROVISIONER": "block.csi.example.com",
            "ISA_STORAGE__BLOCK__PARAMETERS": '{"pool": "gold"}',
            "ISA_STORAGE__NFS__SERVER": "192.0.2.7",
            "ISA_STORAGE__NFS__SHARE": "/share",
            "ISA_STORAGE__OBJECT__ENDPOINT": "https://s3.example.com:9000/",
            "ISA_STORAGE__OBJECT__BUCKET": "20260701",
            "ISA_LICENCES__NEO4J": "yes",
            "ISA_LICENCES__EMQX": "apache",
            "ISA_BACKUP__AGE_RECIPIENTS": json.dumps(KEYS),
        } | {
            f"ISA_{key.upper().replace('.', '__')}": "registry.example.com/some/image:1.2"
            for key in REQUIRED
            if key.startswith("images.")
        }
        settings = load("production", facts, project)
        assert settings.storage.block.parameters == {
            "pool": "gold",
            "csi.storage.k8s.io/fstype": "xfs",
        }
        assert settings.storage.object.endpoint == "https://s3.example.com:9000"
        assert settings.storage.object.bucket == "20260701"
        assert settings.licences.neo4j == "yes"
        assert settings.backup.age_recipients == KEYS

    def test_the_sandbox_loads_with_the_defaults_of_the_models(self, project: Path) -> None:
        settings = sandbox(project)
        members = {name: part.members for name, part in settings.components}
        assert members == {
            "postgresql": 3, "redis": 6, "nats": 3, "minio": 4, "qdrant": 3, "neo4j": 1, "emqx": 3
        }  # fmt: skip
        assert settings.deploy.max_parallel_releases == 3
        assert settings.storage.minio_class == "infotrend-block"

    def test_declared_files_become_absolute_paths(self, project: Path) -> None:
        assert sandbox(project).platform.site_values == project / "config/site-values.yaml"

    def test_an_unknown_environment_lists_the_known_ones(self, project: Path) -> None:
        (only,) = faults(project, "live")
        assert "'live'" in only.message
        assert only.hint == "known: production, sandbox, staging"


class TestVariables:
    def test_win_over_the_file(self, project: Path) -> None:
        assert sandbox(project, STORAGE__NFS__SERVER="nas").storage.nfs.server == "nas"

    def test_reach_sections_that_the_file_does_not_have(self, project: Path) -> None:
        services = '[{"deployment": "search", "min_replicas": 2, "max_replicas": 6}]'
        settings = sandbox(project, DEPLOY__ATTEMPTS="7", AUTOSCALING__SERVICES=services)
        assert settings.deploy.attempts == 7
        assert settings.autoscaling.services[0].max_replicas == 6

    def test_reach_a_section_that_stands_empty_in_the_file(self, project: Path) -> None:
        file = project / FILE
        file.write_text(file.read_text() + "deploy:\n")
        assert sandbox(project, DEPLOY__ATTEMPTS="7").deploy.attempts == 7

    def test_of_a_key_win_over_one_of_its_section_in_any_order(self, project: Path) -> None:
        whole = {"ISA_COMPONENTS__NEO4J": "{members: 3, edition: enterprise}"}
        single = {"ISA_COMPONENTS__NEO4J__MEMBERS": "5"}
        for environ in (whole | single, single | whole):
            neo4j = load("sandbox", environ, project).components.neo4j
            assert (neo4j.members, neo4j.edition) == (5, "enterprise")

    def test_null_takes_an_optional_value_away(self, project: Path) -> None:
        assert sandbox(project, KUBERNETES__CONTEXT="null").kubernetes.context is None

    def test_text_that_looks_like_a_number_stays_text(self, project: Path) -> None:
        assert sandbox(project, KUBERNETES__CONTEXT="0123").kubernetes.context == "0123"

    def test_may_quote_a_text(self, project: Path) -> None:
        assert sandbox(project, KUBERNETES__CONTEXT='"prod eu"').kubernetes.context == "prod eu"

    def test_of_others_are_ignored(self, project: Path) -> None:
        others = {"ENV": "production", "SANDBOX_NAME": "a", "STORAGE": "c"}
        assert sandbox(project, **others) == sandbox(project)

    def test_with_a_slip_suggest_the_setting(self, project: Path) -> None:
        found = fault(project, STORAGE__NFS__SEVER="nas")
        assert found.where == "environment variable ISA_STORAGE__NFS__SEVER"
        assert found.hint == "did you mean storage.nfs.server?"

    def test_with_a_slip_in_the_section_are_a_fault_too(self, project: Path) -> None:
        found = fault(project, KUBERNETS__NAMESPACE="isa")
        assert found.where == "environment variable ISA_KUBERNETS__NAMESPACE"
        assert found.hint == "did you mean kubernetes.namespace?"

    def test_are_named_by_the_faults_of_their_values(self, project: Path) -> None:
        found = fault(project, DEPLOY__ATTEMPTS="often")
        assert found.where == "environment variable ISA_DEPLOY__ATTEMPTS"
        found = fault(project, STORAGE__BLOCK__PARAMETERS='{"pool": 7}')
        assert found.where.endswith("PARAMETERS: storage.block.parameters.pool")
        whole = {"ISA_COMPONENTS__NEO4J": "{edition: community}"}
        (found,) = faults(project, environ=whole | {"ISA_COMPONENTS__NEO4J__MEMBERS": "many"})
        assert found.where == "environment variable ISA_COMPONENTS__NEO4J__MEMBERS"

    def test_with_broken_json_are_a_fault(self, project: Path) -> None:
        messages = [one.message for one in faults(
            project, environ={"ISA_STORAGE__BLOCK__PARAMETERS": '{"pool": '}
        )]  # fmt: skip
        assert "is not valid JSON or YAML" in messages[0]

    def test_of_a_part_of_a_plain_value_say_what_to_set_instead(self, project: Path) -> None:
        assert "ISA_IMAGES__REDIS " in fault(project, IMAGES__REDIS__TAG="1").hint

    @pytest.mark.parametrize("section", ["STORAGE__BLOCK", "STORAGE__NFS", "COMPONENTS__NEO4J"])
    def test_with_text_for_a_section_are_a_fault(self, project: Path, section: str) -> None:
        (found,) = faults(project, environ={f"ISA_{section}": "text"})
        assert found.where == f"environment variable ISA_{section}"


class TestTheFile:
    def test_and_variables_report_all_their_faults_together(self, project: Path) -> None:
        edit(project, "  emqx: apache", "  emqx: free")
        edit(project, "backup:", "deploi: {}\nbackup:")
        (project / "config/site-values.yaml").unlink()
        found = faults(project, environ={"ISA_DEPLOY__ATEMPTS": "1", "ISA_DEPLOY__ATTEMPTS": "0"})
        assert sorted(one.where for one in found) == [
            f"{FILE}: deploi",
            f"{FILE}: licences.emqx",
            f"{FILE}: platform.site_values",
            "environment variable ISA_DEPLOY__ATEMPTS",
            "environment variable ISA_DEPLOY__ATTEMPTS",
        ]

    def test_with_a_slip_in_a_key_suggests_the_right_one(self, project: Path) -> None:
        edit(project, "    server:", "    sever:")
        hints = {one.where: one.hint for one in faults(project)}
        assert hints[f"{FILE}: storage.nfs.sever"] == "did you mean storage.nfs.server?"
        assert f"{FILE}: storage.nfs.server" in hints  # now missing

    def test_with_a_key_twice_is_a_fault_with_its_line(self, project: Path) -> None:
        edit(project, "licences:\n", "licences:\n  emqx: apache\n")
        lines = (project / FILE).read_text().splitlines()
        second = [i for i, line in enumerate(lines, 1) if line.startswith("  emqx:")][1]
        (found,) = faults(project)
        assert found.message == f"key 'emqx' is defined twice, again in line {second}"

    @pytest.mark.parametrize("text", ["a: [", "- a", "", "? [a]\n: 1\n", "\x00"])
    def test_that_is_no_map_in_yaml_is_a_fault(self, project: Path, text: str) -> None:
        (project / FILE).write_text(text)
        (found,) = faults(project)
        assert found.where == FILE

    def test_must_carry_its_own_name(self, project: Path) -> None:
        edit(project, "environment: sandbox", "environment: production")
        (found,) = faults(project)
        assert found.where == f"{FILE}: environment"

    def test_declares_only_files_that_exist(self, project: Path) -> None:
        (project / "deployments/kubernetes/production/namespace.yaml").unlink()
        (found,) = faults(project)
        assert found.where == f"{FILE}: platform.namespace_manifest"
        assert "does not exist" in found.message

    @pytest.mark.parametrize(("yaml_text", "held"), [("yes", True), ("eval", True), ("no", False)])
    def test_takes_a_bare_yes_though_yaml_makes_it_true(
        self, project: Path, yaml_text: str, held: bool
    ) -> None:
        edit(project, "neo4j: eval", f"neo4j: {yaml_text}")
        if held:
            assert sandbox(project).licences.neo4j == yaml_text
        else:
            (found,) = faults(project)
            assert "YAML reads a bare no as false" in found.message

    def test_takes_no_truth_value_for_a_number(self, project: Path) -> None:
        edit(project, "backup:", "deploy: {attempts: true}\nbackup:")
        (found,) = faults(project)
        assert found.message == "must be a number, not true"


def test_loading_imports_neither_prefect_nor_kubernetes() -> None:
    code = "import sys, config.loading; print({'prefect', 'kubernetes'} & set(sys.modules))"
    run = [sys.executable, "-c", code]
    printed = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "set()"


def test_neo4js_image_and_edition_are_of_one_kind() -> None:
    environ = {"ISA_IMAGES__NEO4J": "docker.io/library/neo4j:5.26.30-enterprise"}
    with pytest.raises(ConfigurationError, match="both must be the same edition"):
        load("sandbox", environ)
