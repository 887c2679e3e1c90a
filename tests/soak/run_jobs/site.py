"""What a site brings for its runs: Prefect's server with its database, dispatchers, templates, ConfigMap and Secret.

The manifests are those of deployments/prefect and deployments/worker. What differs: the nodes that pods
run on, and the image of the database.
"""

from __future__ import annotations

from typing import Any

import yaml

from cluster.kube import Manifest
from config.loading import ROOT
from sandbox.nodes.platform import Platform
from sandbox.nodes.postgresql import image
from sandbox.site import settings

CONTROL = settings.CONTROL_NAMESPACE
WORKER = "registry.example.com/isa-cloud/worker:0.1.0"
LOGIN = "isa:soak-password"
PASSWORD = "soak-password"
# Server, database and dispatcher stay; runs are on the node that is drained and lost.
STAYS, RUNS = "node-1", "node-2"
SITE = {
    "ISA_STORAGE__BLOCK__PROVISIONER": "block.csi.sandbox.local",
    "ISA_STORAGE__BLOCK__PARAMETERS": '{"pool": "soak"}',
    "ISA_STORAGE__NFS__SERVER": "192.0.2.7",
    "ISA_STORAGE__NFS__SHARE": "/share",
    "ISA_LICENCES__NEO4J": "eval",
    "ISA_LICENCES__EMQX": "apache",
} | {
    f"ISA_IMAGES__{name.upper()}": "registry.example.com/some/image:1"
    for name in ("postgresql", "pgpool", "postgres_exporter", "redis", "redis_exporter", "minio", "minio_client")
}  # fmt: skip
# The official image's entry point: a cluster with the password, open to the pods.
DATABASE = r"""
set -eu
if [ ! -e "$PGDATA/PG_VERSION" ]; then
    echo "$POSTGRES_PASSWORD" > /tmp/password
    initdb -D "$PGDATA" -U "$POSTGRES_USER" --pwfile=/tmp/password --auth=scram-sha-256
    echo 'host all all all scram-sha-256' >> "$PGDATA/pg_hba.conf"
    echo "CREATE DATABASE $POSTGRES_DB" | postgres --single -D "$PGDATA" postgres
fi
exec postgres -D "$PGDATA" -c listen_addresses='*' -c unix_socket_directories=/var/run/postgresql -c max_connections=200
"""


def facts(platform: Platform) -> dict[str, str]:
    """Settings of production at this site."""
    own = platform.settings_environ()
    kept = ("ENDPOINT", "BUCKET", "RECIPIENTS", "SIGNERS")
    return SITE | {name: value for name, value in own.items() if name.endswith(kept)}


def secrets(platform: Platform) -> list[Manifest]:
    """What an administrator creates for the workers and the server."""
    url = f"postgresql+asyncpg://prefect:{PASSWORD}@prefect-database:5432/prefect"
    data = facts(platform) | {
        "ISA_ENV": "production",
        "PREFECT_API_URL": "http://prefect-server:4200/api",
    }
    return [
        named("v1", "ConfigMap", "isa-worker", data=data),
        named("v1", "Secret", "isa-worker", stringData={"PREFECT_API_AUTH_STRING": LOGIN}),
        named("v1", "Secret", "prefect-database", stringData={"password": PASSWORD, "url": url}),
    ]


def server() -> list[Manifest]:
    """deployments/prefect."""
    made = read("deployments/prefect/server.yaml")
    for one in made:
        if one["kind"] in ("Deployment", "StatefulSet"):
            place(one["spec"]["template"]["spec"], STAYS)
        if one["kind"] == "StatefulSet":
            pod = one["spec"]["template"]["spec"]
            pod["securityContext"] |= {
                "runAsUser": 1001,
                "fsGroup": 1001,
            }  # that Debian's server knows
            (container,) = pod["containers"]
            container |= {"image": image.POSTGRESQL, "command": ["bash", "-c", DATABASE]}
            del container["args"]
    return made


def workers() -> list[Manifest]:
    """deployments/worker."""
    made = read("deployments/worker/worker.yaml")
    for one in made:
        pod = one.get("spec", one)["template"]["spec"]
        place(pod, RUNS if one["kind"] == "PodTemplate" else STAYS)
    return made


def process_worker() -> Manifest:
    """A worker whose runs are processes, in the pod of a run's queue."""
    (template,) = (one for one in workers() if one["metadata"]["name"] == "isa-run-retention")
    labels = {"app.kubernetes.io/name": "isa-retention-worker", "soak": "process"}
    pod = template["template"]["spec"]
    pod["restartPolicy"] = "Always"
    pod["containers"][0] |= {
        "args": ["isa", "worker", "retention", "--with-healthcheck"],
        "env": [one for one in pod["containers"][0]["env"] if "valueFrom" not in one],
        "readinessProbe": {"httpGet": {"path": "/health", "port": 8080}, "periodSeconds": 1},
    }
    spec = {
        "replicas": 1,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    return named("apps/v1", "Deployment", "process-worker", spec=spec)


def place(pod: dict[str, Any], node: str) -> None:
    pod["nodeSelector"] = {"kubernetes.io/hostname": node}


def named(api_version: str, kind: str, name: str, **more: Any) -> Manifest:
    metadata = {"name": name, "namespace": CONTROL}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **more}


def read(file: str) -> list[Manifest]:
    return list(yaml.safe_load_all((ROOT / file).read_text(encoding="utf-8")))
