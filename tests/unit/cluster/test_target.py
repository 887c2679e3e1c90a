"""Python and helm speak to one API server, wherever the shell, the home directory or the pod would lead them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.target import Target, find_target
from config.models import KubernetesSettings
from errors import PermanentError

POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}


def settings(**more: Any) -> KubernetesSettings:
    names = {"namespace": "a", "control_namespace": "b", "verify_namespace": "c"}
    return KubernetesSettings(**{**names, **more})


def write(file: Path, *contexts: str, user: dict[str, Any] | None = None) -> Path:
    """A kubeconfig with one cluster, `https://CONTEXT`, for each context; the first is the current one."""
    document = {
        "current-context": contexts[0],
        "contexts": [{"name": c, "context": {"cluster": c, "user": c}} for c in contexts],
        "clusters": [{"name": c, "cluster": {"server": f"https://{c}"}} for c in contexts],
        "users": [{"name": c, "user": user or {"token": f"of {c}"}} for c in contexts],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(document), encoding="utf-8")
    return file


def server(target: Target) -> str:
    (cluster,) = target.kubeconfig["clusters"]
    assert target.connect().configuration.host == cluster["cluster"]["server"]
    return str(cluster["cluster"]["server"])


@pytest.fixture
def service_account(tmp_path: Path) -> Path:
    directory = tmp_path / "serviceaccount"
    directory.mkdir()
    (directory / "token").write_text("a token", encoding="utf-8")
    (directory / "ca.crt").write_text("a certificate", encoding="utf-8")
    return directory


def test_the_setting_wins_over_the_variable_the_pod_and_the_home(tmp_path: Path) -> None:
    write(tmp_path / ".kube/config", "home")
    environ = {**POD, "KUBECONFIG": str(write(tmp_path / "variable", "variable"))}
    file = write(tmp_path / "setting", "setting")
    assert server(find_target(settings(kubeconfig=file), environ, tmp_path)) == "https://setting"
    assert server(find_target(settings(), environ, tmp_path)) == "https://variable"
    assert server(find_target(settings(), {}, tmp_path)) == "https://home"


def test_an_empty_kubeconfig_variable_is_none(tmp_path: Path) -> None:
    write(tmp_path / ".kube/config", "home")
    assert server(find_target(settings(), {"KUBECONFIG": ""}, tmp_path)) == "https://home"


def test_in_a_pod_helm_gets_the_service_account_whatever_lies_in_its_home(
    tmp_path: Path, service_account: Path
) -> None:
    write(tmp_path / ".kube/config", "home")
    target = find_target(settings(), POD, tmp_path, service_account)
    (cluster,), (user,) = target.kubeconfig["clusters"], target.kubeconfig["users"]
    assert cluster["cluster"]["server"] == "https://10.0.0.1:443"
    assert user["user"] == {"tokenFile": str(service_account / "token")}, "the token is renewed"
    assert target.in_cluster


def test_the_context_of_the_settings_wins_over_the_current_one(tmp_path: Path) -> None:
    file = write(tmp_path / "config", "one", "two")
    target = find_target(settings(kubeconfig=file, context="two"), {})
    assert server(target) == "https://two"
    assert target.kubeconfig["users"][0]["user"] == {"token": "of two"}


def test_a_current_context_that_changes_later_changes_nothing(tmp_path: Path) -> None:
    file = write(tmp_path / "config", "one", "two")
    target = find_target(settings(kubeconfig=file), {})
    write(file, "two", "one")
    assert server(target) == "https://one"


def test_several_files_of_the_variable_are_merged_and_the_first_one_wins(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a", "one"), write(tmp_path / "b", "two", "one")
    environ = {"KUBECONFIG": os.pathsep.join(map(str, (first, tmp_path / "absent", second)))}
    assert server(find_target(settings(), environ)) == "https://one"
    assert server(find_target(settings(context="two"), environ)) == "https://two"


def test_files_that_a_kubeconfig_names_are_beside_it_wherever_helm_runs(tmp_path: Path) -> None:
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": "./bin/login"}
    user = {"client-key": "me.key", "client-certificate": "/etc/me.crt", "exec": plugin}
    file = write(tmp_path / "config", "one", user=user)
    (found,) = find_target(settings(kubeconfig=file), {}).kubeconfig["users"]
    assert found["user"]["client-key"] == str(tmp_path / "me.key")
    assert found["user"]["client-certificate"] == "/etc/me.crt"
    assert found["user"]["exec"]["command"] == str(tmp_path / "bin/login")


def test_a_tilde_is_the_home_directory_for_every_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "config", "one")
    found = settings(kubeconfig="~/config")
    assert found.kubeconfig == tmp_path / "config"
    assert server(find_target(found, {})) == "https://one"


def test_an_identity_that_only_helm_would_take_on_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "config", "one", user={"token": "mine", "as": "admin"})
    with pytest.raises(
        PermanentError, match="has as: helm would impersonate, the Python client would not"
    ):
        find_target(settings(kubeconfig=file), {})


def test_a_server_without_accounts_needs_no_user(tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text(
        "current-context: c\ncontexts: [{name: c, context: {cluster: c}}]\n"
        "clusters: [{name: c, cluster: {server: 'https://one'}}]\n",
        encoding="utf-8",
    )
    assert server(find_target(settings(kubeconfig=file), {})) == "https://one"


def test_an_unknown_context_is_named_with_those_there_are(tmp_path: Path) -> None:
    file = write(tmp_path / "config", "one", "two")
    with pytest.raises(
        PermanentError, match=r"the kubeconfig has no context 'tow' \(known: one, two"
    ):
        find_target(settings(kubeconfig=file, context="tow"), {})


def test_no_kubeconfig_at_all_says_where_one_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match=f"file {tmp_path}/.kube/config does not exist"):
        find_target(settings(), {}, tmp_path)
