"""Rendering: the facts of a site in declared files, and what `isa render` leaves on disk."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.command import Cancellation, Command
from cluster.helm.client import helm_environ
from config.models import COMPONENTS, Settings
from errors import Fault, InputError
from operations.environment.render import render_manifest, site_values
from operations.environment.render_files import write_rendered
from sandbox.machine.binaries import ensure

HELMFILE = """
releases:
  - name: nats
    namespace: isa
    chart: ./charts/nats
    labels: {component: nats}
    values: [values/nats.yaml, {inline: 1}]
  - name: neo4j-1
    namespace: isa
    chart: ./charts/nats
    labels: {component: neo4j}
    wait: false
"""
REPOSITORIES = """
repositories:
  - {name: repo, url: "https://charts.example"}
  - {name: other, url: "https://other.example"}
releases"""
REMOTE = """repo/nats
    version: 2.0.0
    labels: {component: nats}"""
RECIPIENTS = [
    "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p",
    "age1lggyhqrw2nlhcxprm67z43rta597azn8gknawjehu9d9dl0jq3yqqvfafg",
]
IMAGES = ("postgresql", "pgpool", "postgres_exporter", "redis", "redis_exporter", "minio")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    for name, text in {
        "helmfile.yaml": HELMFILE,
        "charts/nats/Chart.yaml": "name: nats",
        "values/nats.yaml": "replicas: 3",
        "storage.yaml": "kind: StorageClass\nprovisioner: ${storage.block.provisioner}\n",
        "namespace.yaml": "kind: Namespace\nmetadata: {name: '${kubernetes.namespace}'}\n",
        "site-values.yaml": "nats: {class: '${storage.block.class_name}'}\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture
def settings(project: Path) -> Settings:
    return make(project)


def make(project: Path, storage: Mapping[str, Any] | None = None, **sections: Any) -> Settings:
    names = {"helmfile": "helmfile.yaml", "storage_manifest": "storage.yaml"}
    names |= {"namespace_manifest": "namespace.yaml", "site_values": "site-values.yaml"}
    return Settings.model_validate(
        {
            "environment": "test",
            "kubernetes": {
                "namespace": "isa",
                "control_namespace": "isa-control",
                "verify_namespace": "isa-verify",
            },
            "platform": {key: project / name for key, name in names.items()},
            "storage": {
                "block": {"provisioner": "csi.example.com", "parameters": {"pool": "gold"}},
                "nfs": {"server": "nas", "share": "/s", "mount_options": ["hard", "noatime"]},
                "object": {"endpoint": "https://s3.example.com", "bucket": "backups"}
                | dict(storage or {}),
            },
            "licences": {"neo4j": "yes", "emqx": "apache"},
            "images": dict.fromkeys((*IMAGES, "minio_client"), "r.example.com/some/image:1.2"),
            "backup": {"age_recipients": RECIPIENTS},
            **sections,
        }
    )


def render(settings: Settings, text: str) -> list[dict[str, Any]]:
    file = settings.platform.storage_manifest
    file.write_text(text)
    return render_manifest(file, settings)


def one(settings: Settings, text: str) -> dict[str, Any]:
    (document,) = render(settings, text)
    return document


def faults(call: Any, *arguments: Any) -> list[Fault]:
    with pytest.raises(InputError) as caught:
        call(*arguments)
    return list(caught.value.faults)


class TestPlaceholders:
    def test_of_a_setting_that_is_not_set_leave_the_key_out(self, settings: Settings) -> None:
        text = "driver: ${storage.object.cosi_driver}\nkind: X\n"
        assert one(settings, text) == {"kind": "X"}

    def test_that_are_a_whole_scalar_keep_the_settings_type(self, settings: Settings) -> None:
        text = """
            map: ${storage.block.parameters}
            list: ${storage.nfs.mount_options}
            number: ${components.redis.members}
            text: ${licences.neo4j}
            file: ${platform.helmfile}
        """
        assert list(one(settings, text).values()) == [
            {"pool": "gold", "csi.storage.k8s.io/fstype": "xfs"},
            ["hard", "noatime"],
            6,
            "yes",
            str(settings.platform.helmfile),
        ]

    def test_inside_text_are_put_in_as_text(self, settings: Settings) -> None:
        text = "a: ${images.redis.registry}/${images.redis.repository} x${components.nats.members}"
        assert one(settings, text) == {"a": "r.example.com/some/image x3"}

    def test_stand_in_keys_too(self, settings: Settings) -> None:
        text = "hard: {'${storage.block.class_name}.storageclass.storage.k8s.io/requests': 1Ti}"
        keys = list(one(settings, text)["hard"])
        assert keys == ["infotrend-block.storageclass.storage.k8s.io/requests"]

    def test_are_filled_at_any_depth(self, settings: Settings) -> None:
        assert one(settings, "a: [{b: [x, '${kubernetes.namespace}']}]") == {
            "a": [{"b": ["x", "isa"]}]
        }

    def test_without_a_setting_are_faults_with_file_path_and_the_nearest(
        self, settings: Settings
    ) -> None:
        text = "kind: A\n---\nspec: {list: [1, '${storage.nfs.sever}']}\nb: x-${nothing.like.it}\n"
        first, second = faults(render, settings, text)
        assert first.where == f"{settings.platform.storage_manifest}: document 2: spec.list[1]"
        assert "'storage.nfs.sever'" in first.message
        assert first.hint == "did you mean ${storage.nfs.server}?"
        assert second.where.endswith("document 2: b")

    @pytest.mark.parametrize(
        ("setting", "kind"),
        [
            ("storage.object.cosi_driver", "not set"),
            ("storage.block.parameters", "a map or list"),
            ("storage.nfs.mount_options", "a map or list"),
        ],
    )
    def test_inside_text_cannot_be_maps_lists_or_nothing(
        self, settings: Settings, setting: str, kind: str
    ) -> None:
        (found,) = faults(render, settings, f"a: prefix-${{{setting}}}")
        assert found.message == f"setting '{setting}' is {kind}"

    def test_of_items_mean_nothing_outside_for_each(self, settings: Settings) -> None:
        assert "'item.deployment'" in faults(render, settings, "a: ${item.deployment}")[0].message


class TestAnnotations:
    WHEN = """
        kind: BucketClass
        metadata: {annotations: {isa-cloud.io/when: storage.object.cosi_driver, other: stays}}
        driverName: ${storage.object.cosi_driver}
    """
    EACH = """
        kind: HorizontalPodAutoscaler
        metadata:
          name: ${item.deployment}
          annotations: {isa-cloud.io/for-each: autoscaling.services}
        spec: {maxReplicas: "${item.max_replicas}", target: "deployment-${item.deployment}"}
    """

    def test_when_drops_a_document_whose_setting_is_not_set(self, settings: Settings) -> None:
        assert render(settings, self.WHEN + "\n---\nkind: Other\n") == [{"kind": "Other"}]

    def test_when_keeps_it_otherwise_and_is_itself_removed(self, project: Path) -> None:
        document = one(make(project, {"cosi_driver": "cosi.example.com"}), self.WHEN)
        assert document["driverName"] == "cosi.example.com"
        assert document["metadata"]["annotations"] == {"other": "stays"}

    def test_for_each_makes_one_document_an_item(self, project: Path) -> None:
        services = [
            {"deployment": "search", "max_replicas": 4},
            {"deployment": "ingest", "max_replicas": 8},
        ]
        made = render(make(project, autoscaling={"services": services}), self.EACH)
        assert [document["metadata"] for document in made] == [
            {"name": "search"},
            {"name": "ingest"},
        ]
        assert made[1]["spec"] == {"maxReplicas": 8, "target": "deployment-ingest"}

    def test_for_each_over_nothing_makes_nothing(self, settings: Settings) -> None:
        assert render(settings, self.EACH) == []

    def test_for_each_wants_a_list(self, settings: Settings) -> None:
        (found,) = faults(render, settings, self.EACH.replace("autoscaling.services", "storage"))
        assert found.message == "setting 'storage' is not a list"

    def test_for_each_tells_a_slip_in_an_items_key_once(self, project: Path) -> None:
        services = [{"deployment": "search"}, {"deployment": "ingest"}]
        settings = make(project, autoscaling={"services": services})
        text = self.EACH.replace("item.max_replicas", "item.max_replica")
        (found,) = faults(render, settings, text)
        assert found.hint == "did you mean ${item.max_replicas}?"

    @pytest.mark.parametrize("name", ["when", "for-each"])
    def test_naming_no_setting_are_faults(self, settings: Settings, name: str) -> None:
        text = f"metadata: {{annotations: {{isa-cloud.io/{name}: storage.nowhere}}}}"
        (found,) = faults(render, settings, text)
        assert f"annotation isa-cloud.io/{name}" in found.where


class TestSiteValues:
    def test_are_filled_by_release(self, settings: Settings) -> None:
        assert site_values(settings) == {"nats": {"class": "infotrend-block"}}

    def test_of_an_unknown_release_are_a_fault(self, settings: Settings) -> None:
        settings.platform.site_values.write_text("nats: {}\nnatz: {}\n")
        (found,) = faults(site_values, settings)
        assert found.where == f"{settings.platform.site_values}: natz"
        assert found.hint == "did you mean nats?"

    def test_of_members_that_this_environment_lacks_are_left_out(self, settings: Settings) -> None:
        settings.platform.site_values.write_text("neo4j-1: {a: 1}\nneo4j-2: {a: 1}\n")
        assert site_values(settings) == {"neo4j-1": {"a": 1}}

    def test_name_file_and_path_of_an_unknown_placeholder(self, settings: Settings) -> None:
        settings.platform.site_values.write_text("nats: {image: {tag: '${images.redis.tg}'}}")
        (found,) = faults(site_values, settings)
        assert found.where == f"{settings.platform.site_values}: nats.image.tag"
        assert found.hint == "did you mean ${images.redis.tag}?"

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("nats: text", "map of helm values"),
            ("a: {}\n---\nb: {}", "2 documents"),
            ("- a", "map"),
        ],
    )
    def test_must_be_one_map_of_maps(self, settings: Settings, text: str, message: str) -> None:
        settings.platform.site_values.write_text(text)
        assert message in faults(site_values, settings)[0].message

    def test_may_be_empty(self, settings: Settings) -> None:
        settings.platform.site_values.write_text("# nothing belongs to this site\n")
        assert site_values(settings) == {}


class TestWriting:
    def test_leaves_rendered_manifests(self, settings: Settings, tmp_path: Path) -> None:
        write_rendered(settings, tmp_path / "out")
        storage = yaml.safe_load((tmp_path / "out/manifests/storage.yaml").read_text())
        namespace = yaml.safe_load((tmp_path / "out/manifests/namespace.yaml").read_text())
        assert storage["provisioner"] == "csi.example.com"
        assert namespace["metadata"]["name"] == "isa"

    def test_leaves_a_helmfile_of_the_same_releases_with_the_sites_values_last(
        self, settings: Settings, project: Path, tmp_path: Path
    ) -> None:
        from cluster.helm.releases import load_releases

        write_rendered(settings, tmp_path / "out")
        before = load_releases(project / "helmfile.yaml", COMPONENTS).releases
        after = load_releases(tmp_path / "out/helmfile.yaml", COMPONENTS).releases
        site = tmp_path / "out/values/nats.site.yaml"
        copied, inline, last = after[0].values
        assert (copied, inline, last) == (tmp_path / "out/values/nats.yaml", {"inline": 1}, site)
        assert isinstance(copied, Path)
        assert copied.read_bytes() == (project / "values/nats.yaml").read_bytes()
        assert yaml.safe_load(site.read_text()) == {"class": "infotrend-block"}
        assert [(r.name, r.wait, r.timeout) for r in after] == [
            (r.name, r.wait, r.timeout) for r in before
        ]
        assert after[1].values == before[1].values == ()

    def test_replaces_an_older_rendering_as_a_whole(
        self, settings: Settings, tmp_path: Path
    ) -> None:
        write_rendered(settings, tmp_path / "out")
        settings.platform.site_values.write_text("neo4j-1: {a: 1}\n")
        write_rendered(settings, tmp_path / "out")
        names = {file.name for file in (tmp_path / "out/values").iterdir()}
        assert names == {"nats.yaml", "neo4j-1.site.yaml"}

    def test_can_be_moved_to_another_machine(
        self, settings: Settings, project: Path, tmp_path: Path
    ) -> None:
        from cluster.helm.releases import load_releases

        write_rendered(settings, tmp_path / "out")
        shutil.move(tmp_path / "out", tmp_path / "elsewhere")
        shutil.move(project, tmp_path / "gone")
        releases = load_releases(tmp_path / "elsewhere/helmfile.yaml", COMPONENTS).releases
        assert {release.chart for release in releases} == {str(tmp_path / "elsewhere/charts/nats")}
        texts = [path.read_text() for path in (tmp_path / "elsewhere").rglob("*") if path.is_file()]
        assert not any(str(tmp_path) in text for text in texts)

    def test_begins_lines_with_helmfiles_top_level_keys(
        self, settings: Settings, tmp_path: Path
    ) -> None:
        # helmfile refuses the file otherwise: pkg/policy/checker.go
        write_rendered(settings, tmp_path / "out")
        lines = (tmp_path / "out/helmfile.yaml").read_text().splitlines()
        assert [line for line in lines if not line.startswith((" ", "#"))] == [
            "releases:", "helmDefaults:",
        ]  # fmt: skip

    def test_says_by_sha256sum_what_was_edited(self, settings: Settings, tmp_path: Path) -> None:
        write_rendered(settings, tmp_path / "out")
        check = ["sha256sum", "--check", "--quiet", "SHA256SUMS"]
        assert subprocess.run(check, cwd=tmp_path / "out").returncode == 0
        (tmp_path / "out/values/nats.yaml").write_text("replicas: 4")
        done = subprocess.run(check, cwd=tmp_path / "out", capture_output=True, text=True)
        assert "values/nats.yaml: FAILED" in done.stdout

    def test_holds_the_charts_that_are_kept_and_names_the_repositories_of_the_others(
        self, project: Path, tmp_path: Path
    ) -> None:
        (project / "helmfile.yaml").write_text(
            HELMFILE.replace("./charts/nats\n    labels: {component: nats}", REMOTE)
            .replace("./charts/nats", "other/neo4j\n    version: 5.0.0")
            .replace("\nreleases", REPOSITORIES)
        )
        kept = tmp_path / "kept"
        kept.mkdir()
        with tarfile.open(kept / "nats-2.0.0.tgz", "w:gz") as tar:
            tar.add(project / "charts/nats", "nats")
        charts = {"directory": kept, "mirrors": {"other": "oci://mirror.example/charts"}}
        write_rendered(make(project, charts=charts), tmp_path / "out")
        helmfile = yaml.safe_load((tmp_path / "out/helmfile.yaml").read_text())
        assert [release["chart"] for release in helmfile["releases"]] == [
            "./charts/nats-2.0.0", "other/neo4j",
        ]  # fmt: skip
        assert (tmp_path / "out/charts/nats-2.0.0/Chart.yaml").read_text() == "name: nats"
        assert helmfile["repositories"][1] == {
            "name": "other", "url": "mirror.example/charts", "oci": True,
        }  # fmt: skip
        assert helmfile["helmDefaults"]["skipDeps"] is True

    def test_keeps_every_text_a_text(self, settings: Settings, tmp_path: Path) -> None:
        texts = ["2025e3", "1234e5", "0x10", "012", "on", "y", "~", "1:30", "=", "a\nb", " c "]
        listed = "".join(f"    - {json.dumps(text)}\n" for text in texts)
        settings.platform.site_values.write_text(f"nats:\n  texts:\n{listed}")
        settings.platform.storage_manifest.write_text(f"kind: X\ndata:\n  texts:\n{listed}")
        write_rendered(settings, tmp_path / "out")
        helm = Command(
            str(ensure(["helm"])["helm"]), environ=helm_environ(), cancellation=Cancellation()
        )
        chart = settings.platform.helmfile.parent / "charts/nats"
        (chart / "Chart.yaml").write_text("apiVersion: v2\nname: nats\nversion: 1.0.0\n")
        (chart / "templates").mkdir()
        (chart / "templates/a.yaml").write_text("seen: {{ toJson .Values.texts | quote }}\n")
        values = tmp_path / "out/values/nats.site.yaml"
        done = helm.run("template", "x", str(chart), "--values", str(values), timeout=60)
        assert json.loads(yaml.safe_load(done.stdout)["seen"]) == texts, done.error
        manifest = yaml.safe_load((tmp_path / "out/manifests/storage.yaml").read_text())
        assert manifest["data"]["texts"] == texts

    def test_takes_an_empty_directory(self, settings: Settings, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        write_rendered(settings, tmp_path / "out")
        assert (tmp_path / "out/helmfile.yaml").exists()

    @pytest.mark.parametrize("name", ["notes.txt", "values/mine.yaml"])
    def test_never_replaces_a_directory_with_other_files(
        self, settings: Settings, tmp_path: Path, name: str
    ) -> None:
        write_rendered(settings, tmp_path / "out")
        (tmp_path / "out" / name).write_text("mine: 1\n")
        (found,) = faults(write_rendered, settings, tmp_path / "out")
        assert found.where == str(tmp_path / "out")
        assert (tmp_path / "out" / name).read_text() == "mine: 1\n"

    def test_leaves_the_older_rendering_alone_when_there_are_faults(
        self, settings: Settings, tmp_path: Path
    ) -> None:
        write_rendered(settings, tmp_path / "out")
        settings.platform.namespace_manifest.write_text("a: ${no.such.setting}")
        faults(write_rendered, settings, tmp_path / "out")
        assert (tmp_path / "out/manifests/namespace.yaml").read_text().count('"name": "isa"') == 1

    def test_leaves_nothing_half_written(
        self, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "write_bytes", full)
        (found,) = faults(write_rendered, settings, tmp_path / "out")
        assert "No space left" in found.message
        assert [path.name for path in tmp_path.iterdir()] == ["project"]
