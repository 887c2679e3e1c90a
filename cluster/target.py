"""Finds the API server once, for both the Python client and helm.

The order is: `kubernetes.kubeconfig`, KUBECONFIG, the pod's service account, `~/.kube/config`. helm has another order
of its own (a kubeconfig in the home directory of a pod wins over the service account), and a kubeconfig's current
context can change during a run. So helm gets a file with one cluster, one user and one context, created from the
connection of the Python client.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client
from kubernetes import config as kubeconfig

from config.models import KubernetesSettings
from config.text.documents import FastLoader
from errors import PermanentError

HINT = "Set kubernetes.kubeconfig (and .context) or KUBECONFIG"
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
NAME = "isa-cloud"  # of the cluster, user and context in the file that helm gets
# Entries that name a file; a relative one is relative to the kubeconfig that has it.
CLUSTER_FILES = ("certificate-authority",)
USER_FILES = ("client-certificate", "client-key", "tokenFile")
# client-go acts as another user then, Python's client does not.
IMPERSONATION = ("as", "as-uid", "as-groups", "as-user-extra")


@dataclass(frozen=True)
class Target:
    """One API server and one identity.

    Attributes:
        kubeconfig: document with exactly one cluster, user and context.
        in_cluster: whether it is the pod's service account, whose token is renewed in its file.
    """

    kubeconfig: Mapping[str, Any]
    in_cluster: bool = False

    def connect(self) -> client.ApiClient:
        """A new client of the `kubernetes` package.

        Raises:
            PermanentError: the entries of the kubeconfig are not usable.
        """
        try:
            configuration = client.Configuration()
            if self.in_cluster:
                kubeconfig.load_incluster_config(client_configuration=configuration)
            else:
                kubeconfig.load_kube_config_from_dict(
                    dict(self.kubeconfig),
                    client_configuration=configuration,
                    persist_config=False,
                )
            return client.ApiClient(configuration)
        except _UNUSABLE as exc:
            raise _no_way(exc) from exc


_UNUSABLE = (
    kubeconfig.ConfigException, yaml.YAMLError, ValueError, TypeError, AttributeError, KeyError, OSError,
)  # fmt: skip


def find_target(
    settings: KubernetesSettings,
    environ: Mapping[str, str] = os.environ,
    home: Path | None = None,
    service_account: Path = SERVICE_ACCOUNT,
) -> Target:
    """Find the API server named by the settings.

    Args:
        settings: which cluster.
        environ: KUBECONFIG, and in a pod KUBERNETES_SERVICE_HOST and _PORT.
        home: directory with `.kube/config`; the user's own by default.
        service_account: directory with a pod's `token` and `ca.crt`.

    Raises:
        PermanentError: there is none, the context is unknown, or not all clients can use the kubeconfig.
    """
    try:
        if settings.kubeconfig is not None:
            files = [settings.kubeconfig.expanduser()]
        elif environ.get("KUBECONFIG"):
            files = [Path(name) for name in environ["KUBECONFIG"].split(os.pathsep) if name]
        elif environ.get("KUBERNETES_SERVICE_HOST"):
            return _of_pod(environ, service_account)
        else:
            files = [(home or Path.home()) / ".kube" / "config"]
        return Target(_one_context(_merged(files), settings.context))
    except _UNUSABLE as exc:
        raise _no_way(exc) from exc


def _no_way(exc: BaseException) -> PermanentError:
    words = f"no entry {exc}" if isinstance(exc, KeyError) else str(exc)
    return PermanentError(f"cannot connect to the cluster: {words}. {HINT}")


def _merged(files: list[Path]) -> dict[str, Any]:
    """Merge kubeconfigs as kubectl does: the first file that has an entry wins, files that are not there are skipped.

    https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/
    """
    there = [file for file in files if file.is_file()]
    if not there:
        raise ValueError(f"file {', '.join(map(str, files))} does not exist")
    merged: dict[str, Any] = {"clusters": {}, "users": {}, "contexts": {}, "current-context": ""}
    for file in there:
        document = yaml.load(file.read_text(encoding="utf-8"), Loader=FastLoader)
        if not isinstance(document, dict):
            raise ValueError(f"{file} is not a kubeconfig")
        merged["current-context"] = merged["current-context"] or document.get("current-context")
        for kind, inner in (("clusters", "cluster"), ("users", "user"), ("contexts", "context")):
            for entry in document.get(kind) or []:
                found = _absolute(dict(entry.get(inner) or {}), file.parent.absolute())
                merged[kind].setdefault(entry["name"], found)
    return merged


def _absolute(entry: dict[str, Any], directory: Path) -> dict[str, Any]:
    for key in (*CLUSTER_FILES, *USER_FILES):
        if entry.get(key):
            entry[key] = str(directory / entry[key])
    command = (entry.get("exec") or {}).get("command", "")
    if "/" in command:  # as client-go: a bare name is looked for on the PATH
        entry["exec"] = {**entry["exec"], "command": str(directory / command)}
    return entry


def _one_context(merged: Mapping[str, Any], name: str | None) -> dict[str, Any]:
    name = name or merged["current-context"]
    if not name:
        raise ValueError("the kubeconfig has no current context")
    if name not in merged["contexts"]:
        known = ", ".join(merged["contexts"]) or "none"
        raise ValueError(f"the kubeconfig has no context {name!r} (known: {known})")
    context = merged["contexts"][name]
    cluster = merged["clusters"][context["cluster"]]
    user = (
        merged["users"][context["user"]] if context.get("user") else {}
    )  # a server without accounts
    if not cluster.get("server"):
        raise ValueError(f"cluster {context['cluster']!r} of the kubeconfig has no server")
    if acting := [key for key in IMPERSONATION if user.get(key)]:
        raise ValueError(
            f"user {context['user']!r} of the kubeconfig has {', '.join(acting)}: helm would impersonate, the Python "
            "client would not"
        )
    return _document(cluster, user)


def _of_pod(environ: Mapping[str, str], service_account: Path) -> Target:
    host, port = environ["KUBERNETES_SERVICE_HOST"], environ["KUBERNETES_SERVICE_PORT"]
    address = f"[{host}]" if ":" in host else host
    cluster = {
        "server": f"https://{address}:{port}",
        "certificate-authority": str(service_account / "ca.crt"),
    }
    return Target(_document(cluster, {"tokenFile": str(service_account / "token")}), True)


def _document(cluster: Mapping[str, Any], user: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": NAME,
        "clusters": [{"name": NAME, "cluster": dict(cluster)}],
        "users": [{"name": NAME, "user": dict(user)}],
        "contexts": [{"name": NAME, "context": {"cluster": NAME, "user": NAME}}],
    }
