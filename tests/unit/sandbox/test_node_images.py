"""Images of real nodes: written once, imported once, and the same for all nodes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from config.loading import load
from config.models import COMPONENTS
from sandbox.nodes import platform
from sandbox.nodes.images import engines, image_store, oci


def test_an_image_is_written_again_only_when_its_files_change(
    image: oci.Image, tmp_path: Path
) -> None:
    directory = tmp_path / "images"
    first = oci.archive(image, directory)
    written = first.stat().st_mtime_ns
    assert oci.archive(image, directory) == first and first.stat().st_mtime_ns == written
    (tmp_path / "program").write_bytes(b"#!/bin/sh\nexit 1\n")
    second = oci.archive(image, directory)
    assert second != first
    assert [*directory.iterdir()] == [second], "the old one takes no room"


def test_a_store_is_another_one_when_an_image_or_containerd_is(
    image: oci.Image, tmp_path: Path
) -> None:
    archives = [oci.archive(image, tmp_path / "images")]
    name = image_store.name_of(archives, Path("/bin/containerd-2.4.2/containerd"))
    assert image_store.name_of(archives, Path("/bin/containerd-2.4.3/containerd")) != name
    (tmp_path / "program").write_bytes(b"#!/bin/sh\nexit 1\n")
    changed = [oci.archive(image, tmp_path / "images")]
    assert image_store.name_of(changed, Path("/bin/containerd-2.4.2/containerd")) != name


def test_nodes_share_layers_and_have_databases_of_their_own(tmp_path: Path) -> None:
    layer, database = Path("snapshots/1/fs/program"), Path("snapshots/metadata.db")
    for file in (layer, database):
        (tmp_path / "store" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "store" / file).write_text("as imported")
    (tmp_path / "store/snapshots/1/fs/sh").symlink_to("program")
    (tmp_path / "store/snapshots/1/fs").chmod(0o1777)
    image_store.link(tmp_path / "store", tmp_path / "node-1/containerd")
    linked = tmp_path / "node-1/containerd"
    assert (linked / layer).samefile(tmp_path / "store" / layer)
    assert os.readlink(linked / "snapshots/1/fs/sh") == "program"
    assert (linked / "snapshots/1/fs").stat().st_mode & 0o7777 == 0o1777
    (linked / database).write_text("written by a node")
    assert (tmp_path / "store" / database).read_text() == "as imported"
    assert [one.name for one in (linked / "snapshots").iterdir() if one.is_file()] == [
        "metadata.db"
    ]


@pytest.mark.parametrize("name", ["nats", "nats_reloader", "nats_exporter", "minio"])
def test_an_engine_image_has_the_name_that_the_settings_pin(name: str) -> None:
    made = {one.name for one in engines.images({}, {}, ("/bin/sh",), Path("minio"))}
    assert getattr(load("sandbox", environ={}).images, name).reference in made


def test_the_nats_image_starts_the_server_and_has_it_on_the_path_for_hooks_and_scratch_engines() -> (
    None
):
    (nats,) = [one for one in engines.images({}, {}, (), Path("minio")) if "/nats:" in one.name]
    (program,) = nats.command
    assert str(Path(program).parent) in nats.environ["PATH"].split(":")
    source = nats.files[program]
    assert isinstance(source, Path) and source.stat().st_mode & 0o111


def test_an_environment_of_some_components_has_their_releases_as_the_sandbox_has_them() -> None:
    (release,) = platform.releases_of({"nats"})["releases"]
    assert release["name"] == "nats" and Path(release["chart"], "Chart.yaml").is_file()
    assert all(Path(file).is_file() for file in release["values"])
    assert [*platform.site_values_of({"nats"})] == ["nats"]
    every = yaml.safe_load(platform.HELMFILE.read_text())["releases"]
    assert len(platform.releases_of(COMPONENTS)["releases"]) == len(every)
