"""Checks that a cluster belongs to the settings' environment: the engines' namespace names it.

Staging uses production's names on a cluster of its own, so a wrong kubeconfig or a wrong `--env` finds everything it
looks for. A deploy labels the namespaces with the environment (namespace.yaml); those of earlier versions have no
label.
"""

from __future__ import annotations

from cluster.kube import Kube, Manifest
from config.models import Settings
from errors import PermanentError

ENVIRONMENT = "isa-cloud.io/environment"  # label of the namespaces


def read_namespace(kube: Kube, settings: Settings) -> Manifest | None:
    """Return the engines' namespace; None if it does not exist.

    Raises:
        PermanentError: it belongs to another environment.
        TemporaryError: the API server does not answer.
    """
    name = settings.kubernetes.namespace
    namespace = kube.get("v1", "Namespace", name)
    owner = (namespace or {}).get("metadata", {}).get("labels", {}).get(ENVIRONMENT)
    if owner not in (None, settings.environment):
        raise PermanentError(
            f"the namespace {name} belongs to environment {owner}, but these settings are for {settings.environment}: "
            f"nothing was changed. Use --env {owner}, or the kubeconfig of {settings.environment}"
        )
    return namespace
