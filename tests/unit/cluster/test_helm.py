from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.command import Cancellation, Command
from cluster.helm.client import Helm
from cluster.helm.releases import Release
from cluster.target import Target
from errors import PermanentError, TemporaryError

Make = Callable[..., tuple[Helm, Callable[[], list[str]]]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A program in helm's place that notes its arguments and answers as told."""

    def made(
        version: str = "v4.3.1", status: int = 0, error: str = "", output: str = ""
    ) -> tuple[Helm, Callable[[], list[str]]]:
        program, notes = tmp_path / "helm", tmp_path / "arguments"
        program.write_text(
            "#!/bin/sh\n"
            f'if [ "$1" = version ]; then echo {version}; exit 0; fi\n'
            f'for a in "$@"; do echo "$a"; done > {notes}\n'
            f"echo '{output}'\necho '{error}' >&2\nexit {status}\n"
        )
        program.chmod(0o755)
        command = Command(str(program), cancellation=Cancellation())
        (tmp_path / "redis-1.2.3.tgz").write_bytes(b"a chart")
        helm = Helm(command, Target({"kind": "Config"}), tmp_path)
        return helm, lambda: notes.read_text().splitlines()

    return made


def release(**more: Any) -> Release:
    fields: dict[str, Any] = {
        "name": "redis-cluster", "namespace": "isa", "component": "redis", "chart": "redis", "version": "1.2.3",
        "repository": "https://charts.example", "values": (), "needs": (), "timeout": 77, "wait": True,
    }  # fmt: skip
    return Release(**{**fields, **more})


def test_helm_4_waits_and_rolls_back_under_its_own_names(make: Make) -> None:
    helm, arguments = make()
    helm.upgrade(release(), {}, rollback=True)
    assert {
        "--wait=watcher",
        "--rollback-on-failure",
        "--server-side=true",
        "--force-conflicts",
    } <= set(arguments())
    assert arguments()[arguments().index("--timeout") + 1] == "77s"


def test_helm_3_waits_and_rolls_back_under_its_own_names(make: Make) -> None:
    helm, arguments = make("v3.18.0")
    helm.upgrade(release(), {}, rollback=True)
    assert {"--wait", "--atomic"} <= set(arguments())
    assert not any("server-side" in argument or "watcher" in argument for argument in arguments())


def test_another_helm_is_refused_with_what_to_install(make: Make) -> None:
    helm, _ = make("v5.0.0")
    with pytest.raises(PermanentError, match=r"v5.0.0 is not supported. Install Helm 4"):
        helm.upgrade(release(), {}, rollback=False)


def test_a_change_of_engine_version_is_not_rolled_back(make: Make) -> None:
    helm, arguments = make()
    helm.upgrade(release(), {}, rollback=False)
    assert "--wait=watcher" in arguments() and "--rollback-on-failure" not in arguments()


def test_a_member_that_cannot_get_ready_alone_is_not_waited_for(make: Make) -> None:
    helm, arguments = make()
    helm.upgrade(release(wait=False), {}, rollback=True)
    assert not any("wait" in argument or "rollback" in argument for argument in arguments())


def test_the_site_s_values_are_the_last_ones(make: Make, tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text("a: 1")
    helm, arguments = make()
    helm.upgrade(release(values=(file, {"b": 2})), {"c": 3}, rollback=True)
    given = [arguments()[i + 1] for i, argument in enumerate(arguments()) if argument == "--values"]
    assert given[0] == str(file) and len(given) == 3


@pytest.mark.parametrize(
    "error",
    ["dial tcp 127.0.0.1:6443: connect: connection refused", "etcdserver: request timed out"],
)
def test_an_api_server_that_is_away_is_worth_another_try(make: Make, error: str) -> None:
    helm, _ = make(status=1, error=f"Error: {error}")
    with pytest.raises(TemporaryError):
        helm.upgrade(release(), {}, rollback=True)


def test_a_chart_that_refuses_its_values_is_not(make: Make) -> None:
    helm, _ = make(status=1, error="Error: values do not meet the specifications of the schema")
    with pytest.raises(PermanentError, match="redis-cluster failed"):
        helm.upgrade(release(), {}, rollback=True)


def test_a_rendering_that_is_no_object_is_refused_with_the_field(make: Make) -> None:
    helm, _ = make(output='{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": 7}}')
    with pytest.raises(
        PermanentError, match=r"rendering release redis-cluster .*metadata.name is a number"
    ):
        helm.template(release(), {}, kube_version="v1.36.3", api_versions=[])
