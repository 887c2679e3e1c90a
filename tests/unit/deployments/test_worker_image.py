from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.models import StoreSecrets
from sandbox.control_room import CLIENT, QUEUES
from sandbox.object_store import POLICY_OF
from tasks.server import deployments

PROJECT = Path(__file__).resolve().parents[3]


def test_the_sandbox_is_as_patient_with_its_server_as_the_workers_image() -> None:
    text = (PROJECT / "deployments" / "worker" / "Containerfile").read_text()
    (line,) = re.findall(r"^ENV (.*PREFECT_.*)$", text, re.MULTILINE)
    image = dict(one.split("=", 1) for one in line.split())
    assert {name: image.get(name) for name in CLIENT} == CLIENT


# queue → account
ACCOUNT_OF = {
    "default": "isa-deployer",
    "backups": "isa-backup",
    "proofs": "isa-verify",
    "retention": "isa-retention",
    "restores": "isa-restore",
    "rebuilds": "isa-rebuild",
}
WORKERS = list(yaml.safe_load_all((PROJECT / "deployments/worker/worker.yaml").read_text()))


def test_every_queue_has_one_worker_which_runs_declared_flows_alone() -> None:
    declared = {one["work_pool"]["work_queue_name"] for one in deployments()}
    assert declared == set(QUEUES) == ACCOUNT_OF.keys()
    found = {}
    for worker in WORKERS:
        pod = worker["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        program, command, queue = container["args"]
        assert (program, command) == ("isa", "worker")
        found[queue] = pod["serviceAccountName"]
    assert found == ACCOUNT_OF


@pytest.mark.parametrize("worker", WORKERS, ids=lambda one: one["metadata"]["name"])
def test_every_worker_names_its_own_key_of_the_object_store(worker: dict[str, Any]) -> None:
    pod = worker["spec"]["template"]["spec"]
    environ = {one["name"]: one["value"] for one in pod["containers"][0].get("env", [])}
    role = pod["serviceAccountName"].removeprefix("isa-")
    named = environ.get("ISA_STORAGE__OBJECT__CREDENTIALS_SECRET", "infotrend-object")
    assert named == getattr(StoreSecrets(), role)


def test_no_policy_but_retentions_deletes_backups_and_no_policy_has_a_wildcard_of_rights() -> None:
    for name in set(POLICY_OF.values()):
        text = (PROJECT / f"deployments/object-store/policies/{name}.json").read_text()
        for statement in json.loads(text)["Statement"]:
            assert all("*" not in action for action in statement["Action"])
            deletes = any("Delete" in action for action in statement["Action"])
            own = all(one.endswith("/self-test/*") for one in statement["Resource"])
            assert not deletes or own or name == "retention"


def test_the_image_holds_no_settings_of_the_sandbox() -> None:
    ignored = (PROJECT / ".dockerignore").read_text().split()
    assert "config/environments/sandbox.yaml" in ignored
    assert not {f"config/environments/{name}.yaml" for name in ("production", "staging")} & {
        *ignored
    }
