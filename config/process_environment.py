"""The variables of a shell, a home directory or a pod that must not reach the programs and libraries that isa uses.

The settings define server, namespace, record store and account of a command. helm and libpq also read the environment,
and their variables silently take precedence. This is the one list of what is removed, each with its reason.

What stays, and why:

- `HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`: a site may reach its API server, chart hosts and object store through a proxy
  only; TLS authenticates the server. Engines are called by address or over loopback, never through a proxy: their
  clients are created without one (`components.access`, `archive.object_store.endpoint`).
- `SSL_CERT_FILE`, `SSL_CERT_DIR`: the certificates that a site trusts.
- `AWS_*`, `GOOGLE_*`, `AZURE_*`: a credential plugin of a kubeconfig may need them. boto3 reads none of them
  (`archive.object_store.endpoint.connect`).
- `DOCKER_CONFIG` and helm's registry login: credentials of a chart registry; helmfile.yaml names the registry.
- `PREFECT_*`: they define which Prefect server a run belongs to.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping

# prefix → why
LEADS_ELSEWHERE = {
    # https://helm.sh/docs/helm/helm/: server, context, token, namespace, record store, plugins, repositories
    "HELM_": "helm would take its target from them; isa passes arguments instead (cluster.helm.client)",
    # https://www.postgresql.org/docs/current/libpq-envars.html: PGHOSTADDR and PGSERVICE change the server,
    # PGDATESTYLE and PGTZ change how rows are written, and with them every digest
    "PG": "libpq applies them to every connection",
}
# Python reads them to find the cluster (cluster.target); a child process gets the result as a file.
TARGET = ("KUBECONFIG", "KUBERNETES_MASTER", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT")

# What an engine's own program needs of our environment: where programs, libraries and temporary files are, how texts
# are written, and to which run it belongs, for who looks for its processes. Everything else stays here: a worker's
# environment has passwords of the Prefect server and keys of the object store, and these programs parse what engines
# and sets hold.
OF_PROGRAMS = frozenset(
    ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "JAVA_HOME", "LD_LIBRARY_PATH",
     "SSL_CERT_FILE", "SSL_CERT_DIR", "JAVA_OPTS", "JAVA_TOOL_OPTIONS", "HEAP_SIZE", "NEO4J_HOME", "NEO4J_CONF",
     "PREFECT__FLOW_RUN_ID")
)  # fmt: skip
LOCALE = "LC_"


def leads_elsewhere(name: str) -> bool:
    """Whether a variable would change the target of a program or library that isa uses."""
    return name.startswith(tuple(LEADS_ELSEWHERE))


def child_environ(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment of a program that isa starts, before the caller adds its own variables."""
    return {
        name: value
        for name, value in environ.items()
        if not leads_elsewhere(name) and name not in TARGET
    }


def program_environ(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment of an engine's own program, without credentials, before the caller adds variables."""
    return {
        name: value
        for name, value in environ.items()
        if name in OF_PROGRAMS or name.startswith(LOCALE)
    }


def clean_process(environ: MutableMapping[str, str] = os.environ) -> list[str]:
    """Remove from this process what libraries in it would read; every entry point calls it first.

    Returns:
        Names of the removed variables.
    """
    removed = sorted(name for name in environ if leads_elsewhere(name))
    for name in removed:
        del environ[name]
    return removed
