"""Real nodes: what can be said of them without one."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
import tarfile
import threading
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.kube import Conflict, Manifest
from errors import ConfigurationError
from sandbox.machine import binaries
from sandbox.machine.addresses import Addresses
from sandbox.nodes import settings
from sandbox.nodes.capsules import capsule, network
from sandbox.nodes.capsules.capsule import Capsule
from sandbox.nodes.control_plane import NAMES, PROXY, ROUTER, NodesControlPlane
from sandbox.nodes.helpers.volumes import PROVISIONER, provision
from sandbox.nodes.images import oci


def opened(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        return {one.name: tar.extractfile(one).read() for one in tar if one.isfile()}  # type: ignore[union-attr]


def blob(files: dict[str, bytes], entry: dict[str, Any]) -> bytes:
    found = files[f"blobs/sha256/{entry['digest'].removeprefix('sha256:')}"]
    assert len(found) == entry["size"]
    return found


def test_an_image_holds_its_files_links_and_directories(image: oci.Image, tmp_path: Path) -> None:
    digest = oci.write(image, tmp_path / "image.tar")
    files = opened(tmp_path / "image.tar")
    (entry,) = json.loads(files["index.json"])["manifests"]
    assert entry["digest"] == digest
    assert entry["annotations"]["io.containerd.image.name"] == "sandbox.local/program:1"
    manifest = json.loads(blob(files, entry))
    config = json.loads(blob(files, manifest["config"]))
    assert config["config"]["Entrypoint"] == ["/usr/bin/program"]
    (layer,) = manifest["layers"]
    assert config["rootfs"]["diff_ids"] == [layer["digest"]]
    with tarfile.open(fileobj=io.BytesIO(blob(files, layer))) as tar:
        members = {one.name: one for one in tar}
    assert members["usr/bin/program"].mode == 0o755
    assert members["bin/sh"].linkname == "../usr/bin/program"
    assert members["tmp"].mode == 0o1777
    assert list(members).index("usr/bin") < list(members).index("usr/bin/program")


def test_the_same_files_give_the_same_image_whenever_it_is_written(
    image: oci.Image, tmp_path: Path
) -> None:
    first = oci.write(image, tmp_path / "first.tar")
    (tmp_path / "program").touch()
    assert oci.write(image, tmp_path / "second.tar") == first
    assert (tmp_path / "first.tar").read_bytes() == (tmp_path / "second.tar").read_bytes()


def test_an_image_on_a_whole_system_has_it_as_the_layer_below(
    image: oci.Image, tmp_path: Path
) -> None:
    base = tmp_path / "base.tar"
    base.write_bytes(b"a whole system")
    oci.write(replace(image, base=base), tmp_path / "image.tar")
    files = opened(tmp_path / "image.tar")
    (entry,) = json.loads(files["index.json"])["manifests"]
    manifest = json.loads(blob(files, entry))
    below, above = manifest["layers"]
    assert blob(files, below) == b"a whole system"
    assert b"usr/bin/program" in blob(files, above)
    config = json.loads(blob(files, manifest["config"]))
    assert config["rootfs"]["diff_ids"] == [below["digest"], above["digest"]]


def test_containerd_reads_its_settings_as_toml_and_gets_cni_from_the_nodes_own_directory() -> None:
    text = settings.containerd(
        Path("/state/node-1"), [Path("/bin/bridge-1"), Path("/bin/portmap-1")]
    )
    plugins = tomllib.loads(text)["plugins"]
    cni = plugins["io.containerd.cri.v1.runtime"]["cni"]
    assert cni == {"bin_dirs": ["/bin/bridge-1", "/bin/portmap-1"], "conf_dir": "/state/node-1/cni"}
    pinned = plugins["io.containerd.cri.v1.images"]["pinned_images"]
    assert pinned == {"sandbox": settings.PAUSE}


def test_no_two_nodes_share_an_address_or_a_pods_range() -> None:
    numbers = range(1, len(NAMES) + 1)
    assert len({network.address(one) for one in numbers}) == len(NAMES)
    ranges = [
        settings.cni(one, Path("/x"))["plugins"][0]["ipam"]["ranges"][0][0]["subnet"]
        for one in numbers
    ]
    assert len({*ranges}) == len(NAMES)


@pytest.fixture
def plane(tmp_path: Path) -> NodesControlPlane:
    inner = Capsule("control", "isa-test", tmp_path / "control", tmp_path)
    return NodesControlPlane(tmp_path, Addresses.of(20), {}, capsule=inner)


def test_the_api_server_listens_for_nodes_and_writes_endpoints(plane: NodesControlPlane) -> None:
    flags = plane.arguments("kube-apiserver")
    assert "--bind-address=0.0.0.0" in flags
    assert f"--advertise-address={network.CONTROL_ADDRESS}" in flags
    assert not [one for one in flags if one.startswith("--endpoint-reconciler-type")]
    assert len({one.partition("=")[0] for one in flags}) == len(flags)
    assert "--controllers=*" in plane.arguments("kube-controller-manager")


def test_pods_reach_the_api_server_on_the_port_that_policies_open(
    plane: NodesControlPlane,
) -> None:
    plane.write_credentials()
    assert "--secure-port=6443" in plane.arguments("kube-apiserver")
    inside = yaml.safe_load(plane.inner_kubeconfig.read_text())
    assert inside["clusters"][0]["cluster"]["server"] == f"https://{network.CONTROL_ADDRESS}:6443"
    for program in ("kube-controller-manager", "kube-scheduler"):
        assert f"--kubeconfig={plane.inner_kubeconfig}" in plane.arguments(program)


def test_every_node_has_a_token_of_its_own_that_a_second_start_keeps(
    plane: NodesControlPlane,
) -> None:
    plane.write_credentials()
    users = [PROXY, ROUTER, "admin", *(f"system:node:{name}" for name in NAMES)]
    tokens = {user: plane.token(user) for user in users}
    assert len({*tokens.values()}) == len(users)
    plane.write_credentials()
    assert {user: plane.token(user) for user in users} == tokens
    config = yaml.safe_load(plane.kubeconfig.read_text())
    assert (
        config["clusters"][0]["cluster"]["server"]
        == f"https://localhost:{plane.addresses.apiserver}"
    )
    subprocess.run(
        ["openssl", "verify", "-CAfile", plane.kubelet_ca, plane.directory / "pki/kubelet-client.crt"],
        check=True,
        capture_output=True,
    )  # fmt: skip


def test_a_machine_that_lets_us_make_no_nodes_is_told_everything_that_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capsule, "CGROUPS", tmp_path)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigurationError) as caught:
        capsule.check()
    words = str(caught.value)
    assert "need root" in words
    assert "has no nsenter" in words and "apt-get install util-linux" in words
    assert "no cgroup v1 controllers: cpu, " in words


def test_a_capsule_ends_with_its_cgroups_even_if_others_are_below_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capsule, "CGROUPS", tmp_path)
    own = tmp_path / "memory" / "isa-test" / "node-1"
    (own / "kubepods" / "pod1").mkdir(parents=True)
    Capsule("node-1", "isa-test", tmp_path / "state", tmp_path).down()
    assert not own.parent.exists()


def test_containers_stay_below_the_cgroup_of_the_command_that_started_the_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capsule, "CGROUPS", tmp_path)
    for name in ("cpu/low", "cpuacct", "memory/command"):
        (tmp_path / name).mkdir(parents=True)
    text = "3:memory:/command\n2:cpu,cpuacct:/low\n1:name=systemd:/\n0::/\n"
    assert capsule.parent_group("cpu", text) == tmp_path / "cpu/low"
    assert capsule.parent_group("cpuacct", text) == tmp_path / "cpuacct", "its path is not seen"
    assert capsule.parent_group("memory", text) == tmp_path / "memory"


def test_a_command_in_another_cgroup_ends_a_capsule_where_it_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capsule, "CGROUPS", tmp_path)
    own = tmp_path / "cpu/low/isa-test/node-1"
    own.mkdir(parents=True)
    record = tmp_path / "state/cgroups.json"
    record.parent.mkdir()
    record.write_text(json.dumps({"cpu": str(own)}))
    assert capsule.groups_left("isa-test") == [own.parent]
    Capsule("node-1", "isa-test", record.parent, tmp_path).down()
    assert not capsule.groups_left("isa-test")


def test_programs_of_real_nodes_are_built_only_when_they_are_asked_for() -> None:
    assert not {*binaries.NODE_TOOLS} & {*binaries.CLUSTER_TOOLS, *binaries.TEST_TOOLS}
    assert {*binaries.NODE_TOOLS, *binaries.CLUSTER_TOOLS, *binaries.TEST_TOOLS} == {
        *binaries.TOOLS
    }


def test_the_relay_carries_both_ways_and_hands_on_the_end_of_each(tmp_path: Path) -> None:
    """In the network that it is in anyway: what it needs for another one is root."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        ahead = threading.Thread(target=_answer, args=[server])
        ahead.start()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            program = (
                "import asyncio, socket, sys; from sandbox.nodes.helpers.relay import relay;"
                "asyncio.run(relay(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])))"
            )
            descriptor = listener.fileno()
            relaying = subprocess.Popen(
                [sys.executable, "-c", program, str(descriptor), str(port)], pass_fds=[descriptor]
            )
            try:
                with socket.create_connection(listener.getsockname(), timeout=60) as client:
                    client.sendall(b"question" * 50_000)
                    client.shutdown(socket.SHUT_WR)
                    received = b"".join(iter(lambda: client.recv(65536), b""))
            finally:
                relaying.kill()
                relaying.wait()
        ahead.join()
    assert received == b"answer to 400000"


def _answer(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        received = sum(map(len, iter(lambda: connection.recv(65536), b"")))
        connection.sendall(f"answer to {received}".encode())


class Cluster:
    """Claims and volumes, as an API server keeps them."""

    def __init__(self, *claims: Manifest) -> None:
        self.claims = list(claims)
        self.volumes: dict[str, Manifest] = {}

    def list(self, api_version: str, kind: str) -> list[Manifest]:
        return self.claims if kind == "PersistentVolumeClaim" else [*self.volumes.values()]

    def create(self, manifest: Manifest) -> Manifest:
        if manifest["metadata"]["name"] in self.volumes:
            raise Conflict("there is one")
        self.volumes[manifest["metadata"]["name"]] = manifest
        manifest["spec"]["persistentVolumeReclaimPolicy"] = "Delete"
        manifest["status"] = {"phase": "Bound"}
        return manifest

    def delete(self, api_version: str, kind: str, name: str) -> None:
        del self.volumes[name]


def claim(*, scheduled: bool = True) -> Manifest:
    return {
        "metadata": {
            "name": "data-nats-0",
            "namespace": "isa-cloud-production",
            "uid": "1",
            "annotations": {PROVISIONER: "block.example.com"} if scheduled else {},
        },
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
            "storageClassName": "infotrend-block",
        },
    }


def test_a_claim_gets_a_volume_that_every_node_can_mount_once_its_pod_is_scheduled(
    tmp_path: Path,
) -> None:
    cluster = Cluster(claim(scheduled=False))
    provision(cluster, tmp_path)
    assert not cluster.volumes
    cluster.claims = [claim()]
    provision(cluster, tmp_path)
    provision(cluster, tmp_path)  # it is not bound yet: the same volume is not made twice
    (volume,) = cluster.volumes.values()
    assert volume["spec"]["claimRef"]["uid"] == "1"
    assert Path(volume["spec"]["local"]["path"]).is_dir()


def test_the_data_of_a_volume_goes_only_when_its_class_gives_it_up(tmp_path: Path) -> None:
    cluster = Cluster(claim())
    provision(cluster, tmp_path)
    (volume,) = cluster.volumes.values()
    data = Path(volume["spec"]["local"]["path"]) / "data"
    data.touch()
    cluster.claims, volume["status"]["phase"] = [], "Released"
    volume["spec"]["persistentVolumeReclaimPolicy"] = "Retain"
    provision(cluster, tmp_path)
    assert data.exists() and cluster.volumes
    volume["spec"]["persistentVolumeReclaimPolicy"] = "Delete"
    provision(cluster, tmp_path)
    assert not data.exists() and not cluster.volumes
