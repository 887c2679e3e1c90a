"""What a pod's processes get: environment, files and addresses as a kubelet and a cluster's DNS would give them."""

from __future__ import annotations

import base64
import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cluster.kube import Kube
from sandbox.agent import access, status
from sandbox.agent.access import Output
from sandbox.agent.addresses import AddressBook
from sandbox.agent.pod import Host, NotStartable, Pod
from sandbox.agent.status import ContainerState
from sandbox.machine.processes import running_below


@dataclass
class Objects:
    """A cluster that has only what it is told."""

    found: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)

    def get(self, version: str, kind: str, name: str, namespace: str) -> dict[str, Any] | None:
        return self.found.get((kind, name))

    def secret(self, name: str, **values: str) -> None:
        data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
        self.found["Secret", name] = {"data": data}


@pytest.fixture
def objects() -> Objects:
    return Objects()


def make_pod(objects: Objects, directory: Path, container: Mapping[str, Any], **spec: Any) -> Pod:
    book = AddressBook(directory / "addresses.json", 42)
    kube = cast(Kube, objects)
    host = Host(kube, directory / "kubeconfig", "here", book, directory, lambda name: Path(name))
    metadata = {"name": "nats-0", "namespace": "data", "uid": "0123456789", "resourceVersion": "1"}
    containers = [{"name": "nats", "image": "nats:1", **container}]
    return Pod({"metadata": metadata, "spec": {"containers": containers, **spec}}, host)


def test_variables_come_from_values_secrets_fields_and_one_another(
    objects: Objects, tmp_path: Path
) -> None:
    objects.secret("auth", password="p4ss")
    objects.found["ConfigMap", "env"] = {"data": {"MODE": "cluster"}}
    container = {
        "envFrom": [{"configMapRef": {"name": "env"}}],
        "env": [
            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "SERVER", "value": "$(POD).$(MODE) $(UNKNOWN)"},
            {
                "name": "PASSWORD",
                "valueFrom": {"secretKeyRef": {"name": "auth", "key": "password"}},
            },
            {
                "name": "MAYBE",
                "valueFrom": {"secretKeyRef": {"name": "no", "key": "x", "optional": True}},
            },
        ],
    }
    pod = make_pod(objects, tmp_path, container)
    assert pod.environment(pod.containers[0]) == {
        "MODE": "cluster",
        "POD": "nats-0",
        "SERVER": "nats-0.cluster $(UNKNOWN)",
        "PASSWORD": "p4ss",
    }


@pytest.mark.parametrize(
    ("key", "said"), [("absent", "couldn't find key absent"), ("password", "not found")]
)
def test_a_missing_secret_or_key_keeps_the_pod_from_starting(
    objects: Objects, tmp_path: Path, key: str, said: str
) -> None:
    if key == "absent":
        objects.secret("auth", password="x")
    reference = {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "auth", "key": key}}}
    pod = make_pod(objects, tmp_path, {"env": [reference]})
    with pytest.raises(NotStartable, match=said) as refused:
        pod.check_references()
    assert refused.value.reason == "CreateContainerConfigError"


def test_a_volume_s_files_have_the_names_that_its_items_give_them(
    objects: Objects, tmp_path: Path
) -> None:
    objects.secret("auth", password="x", other="y")
    items = [{"key": "password", "path": "pgpool-password"}]
    volumes = [{"name": "creds", "secret": {"secretName": "auth", "items": items}}]
    assert make_pod(objects, tmp_path, {}, volumes=volumes).files("creds") == {
        "pgpool-password": "x"
    }


def test_a_key_that_is_mounted_alone_and_missing_keeps_the_pod_from_starting(
    objects: Objects, tmp_path: Path
) -> None:
    objects.secret("auth", password="x")
    volumes = [{"name": "creds", "secret": {"secretName": "auth"}}]

    def pod(key: str) -> Pod:
        mounts = [{"name": "creds", "mountPath": f"/secrets/{key}", "subPath": key}]
        return make_pod(objects, tmp_path, {"volumeMounts": mounts}, volumes=volumes)

    pod("password").check_references()
    with pytest.raises(NotStartable, match="no file repmgr-password"):
        pod("repmgr-password").check_references()


def test_a_claim_that_is_not_bound_is_waited_for(objects: Objects, tmp_path: Path) -> None:
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data-nats-0"}}]
    pod = make_pod(objects, tmp_path, {}, volumes=volumes)
    with pytest.raises(NotStartable, match="data-nats-0 is not bound"):
        pod.volume("data")
    bound = {"status": {"phase": "Bound"}, "spec": {"volumeName": "pvc-1"}}
    objects.found["PersistentVolumeClaim", "data-nats-0"] = bound
    assert pod.volume("data") == tmp_path / "volumes" / "pvc-1"


def test_a_name_has_one_address_for_good_and_names_in_a_text_become_addresses(
    tmp_path: Path,
) -> None:
    book = AddressBook(tmp_path / "addresses.json", 42)
    first, second = book.of("data", "nats-0"), book.of("data", "nats-1")
    assert first != second
    assert first.startswith("127.42.")
    text = "nats://nats-0.nats-headless:6222 http://nats-1.nats-headless.data.svc.cluster.local/x 1.2.3.4"
    again = AddressBook(tmp_path / "addresses.json", 42)
    assert again.resolve("data", text) == f"nats://{first}:6222 http://{second}/x 1.2.3.4"


def test_only_a_name_that_cannot_come_again_gives_its_address_back(tmp_path: Path) -> None:
    book = AddressBook(tmp_path / "addresses.json", 42)
    kept, given = book.of("data", "nats-0"), book.of("data", "pgpool-56dcc5bf68-bb9dr")
    book.forget("data", "nats-0")
    book.forget("data", "pgpool-56dcc5bf68-bb9dr")
    assert book.of("data", "nats-0") == kept
    assert book.of("data", "another-x") == given


def test_a_pod_is_ready_when_all_its_containers_are(objects: Objects, tmp_path: Path) -> None:
    pod = make_pod(objects, tmp_path, {})
    state = ContainerState("nats", running_since=status.now())

    def condition(name: str) -> str:
        found = status.pod_status(pod, {"nats": state}, "no quorum")["conditions"]
        return next(str(c["status"]) for c in found if c["type"] == name)

    assert condition("Ready") == "False"
    state.ready = True
    assert condition("Ready") == "True"
    state.running_since = ""
    assert status.pod_status(pod, {"nats": state}, "")["phase"] == "Pending"


def test_output_is_copied_line_by_line_in_the_runtime_s_form(tmp_path: Path) -> None:
    output = Output(tmp_path)
    log = tmp_path / "engine.log"
    log.write_text("started\nhalf a li")
    output.copy()
    log.write_text("started\nhalf a line\n")
    output.copy()
    lines = output.file.read_text().splitlines()
    assert [line.split(" ", 3)[1:] for line in lines] == [
        ["stdout", "F", "started"],
        ["stdout", "F", "half a line"],
    ]


def test_what_is_run_in_a_pod_ends_with_it_by_the_mark_of_its_processes(tmp_path: Path) -> None:
    applied: dict[str, Any] = {}

    def apply(manifest: Any, manager: str) -> None:
        applied[manifest["kind"]] = manifest["spec"]

    pod = SimpleNamespace(
        name="neo4j-1-dump", namespace="n", uid="u", address="127.0.0.1", home=tmp_path,
        containers=[{"name": "neo4j-admin"}],
    )  # fmt: skip
    access.grant(cast(Any, SimpleNamespace(apply=apply)), cast(Any, pod), tmp_path / "log")
    environ = {one["name"]: one["value"] for one in applied["Exec"]["execs"][0]["local"]["envs"]}
    running = subprocess.Popen(["sleep", "60"], env={**os.environ, **environ})
    deadline = time.monotonic() + 60
    # its environment is readable a moment after Popen returns: exec closes our pipe before it sets that up
    while not (found := running_below(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert found == [running.pid]
    running.kill()
    running.wait()
