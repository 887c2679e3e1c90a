"""Whether a cluster is the one that the settings are of: the engines' namespace names its environment.

Staging keeps production's names on a cluster of its own, so a wrong kubeconfig or a wrong `--env` finds all that it
looks for. A deploy writes the environment on the namespaces (namespace.yaml); those of earlier versions have none.
"""

from __future__ import annotations

from cluster.kube import Kube, Manifest
from config.models import Settings
from errors import PermanentError

ENVIRONMENT = "isa-cloud.io/environment"  # label of the namespaces


def read_namespace(kube: Kube, settings: Settings) -> Manifest | None:
    """The engines' namespace; None if it is not there.

    Raises:
        PermanentError: it belongs to another environment.
        TemporaryError: the API server cannot be asked.
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
