"""How a person connects to each engine: address, port, user, and the Secret with the password."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cluster.credentials import read_secret
from cluster.kube import Kube
from sandbox.engines import ENGINES


@dataclass(frozen=True)
class Login:
    """How clients log in to an engine, from the charts' values.

    Attributes:
        component: component of the platform.
        port: port for clients.
        user: user name; the name of a key of the Secret if the user name is generated.
        secret: Secret with the password.
        key: its key in the Secret.
    """

    component: str
    port: int
    user: str
    secret: str
    key: str


LOGINS = {
    "postgresql": Login("postgresql", 5432, "isa", "postgresql-ha-auth", "password"),
    "redis-cluster": Login("redis", 6379, "default", "redis-auth", "redis-password"),
    "nats": Login("nats", 4222, "app", "nats-auth", "app-password"),
    "minio": Login("minio", 9000, "rootUser", "minio-auth", "rootPassword"),
    "qdrant": Login("qdrant", 6333, "", "qdrant-auth", "api-key"),
    "neo4j": Login("neo4j", 7687, "neo4j", "neo4j-auth", "NEO4J_AUTH"),
    "emqx": Login("emqx", 18083, "isa", "emqx-auth", "EMQX_DASHBOARD__DEFAULT_PASSWORD"),
}


def connections(kube: Kube, namespace: str) -> dict[str, list[dict[str, Any]]]:
    """Component → its running members, with address and login."""
    found: dict[str, list[dict[str, Any]]] = {}
    for pod in kube.list("v1", "Pod", namespace):
        address = pod.get("status", {}).get("podIP")
        for container in pod["spec"]["containers"]:
            login = LOGINS.get(container["name"])
            if login is None or address is None:
                continue
            secret = read_secret(kube, namespace, login.secret) or {}
            engine = ENGINES.get(container["name"])
            found.setdefault(login.component, []).append(
                {
                    "member": pod["metadata"]["name"],
                    "host": address,
                    "port": login.port,
                    "user": secret.get(login.user, login.user),
                    "secret": f"{namespace}/{login.secret}/{login.key}",
                    "real": engine is not None and engine.real,
                }
            )
    return {
        name: sorted(members, key=lambda m: str(m["member"])) for name, members in found.items()
    }
