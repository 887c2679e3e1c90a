"""A client that writes all the time, in a pod of its own, and what it knows as done."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.kube import Manifest
from sandbox.nodes.postgresql import image

# Each write is a connection of its own, as after a failover. A number that is printed was acknowledged.
WRITES = """
n=0
until psql "$to" -qc "CREATE TABLE IF NOT EXISTS $table (number int PRIMARY KEY)"; do sleep 1; done
while :; do
    n=$((n + 1))
    if timeout 4 psql "$to" -qc "INSERT INTO $table VALUES ($n)"; then echo "$n $(date +%s.%3N)"; fi 2> /dev/null
    sleep 0.1
done
"""


@dataclass(frozen=True)
class Writer:
    """One client.

    Attributes:
        name: of its pod; its table is called the same, with `_` for `-`.
        node: that it runs on.
        host: where it connects to.
    """

    name: str
    node: str
    host: str

    @property
    def table(self) -> str:
        """The table that it writes to."""
        return self.name.replace("-", "_")

    def manifest(self, namespace: str) -> Manifest:
        """Its pod, which the policies let through to Pgpool."""
        to = f"host={self.host} user=isa dbname=isa connect_timeout=2"
        password = {"secretKeyRef": {"name": "postgresql-ha-auth", "key": "password"}}
        resources = {"cpu": "100m", "memory": "64Mi"}
        container = {
            "name": "shell",
            "image": image.POSTGRESQL,
            "command": ["bash", "-c", WRITES],
            "env": [
                {"name": "to", "value": to},
                {"name": "table", "value": self.table},
                {"name": "PGPASSWORD", "valueFrom": password},
            ],
            "resources": {"requests": resources, "limits": resources},
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "runAsNonRoot": True,
                "capabilities": {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            },
        }
        labels = {"isa-cloud.io/client": "true"}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": self.name, "namespace": namespace, "labels": labels},
            "spec": {
                "containers": [container],
                "nodeSelector": {"kubernetes.io/hostname": self.node},
                "terminationGracePeriodSeconds": 1,
            },
        }


def acknowledged(log: str) -> dict[int, float]:
    """Number of each write that the client knows as done → when it knew; from its log."""
    lines = (line.split() for line in log.splitlines())
    return {int(line[0]): float(line[1]) for line in lines if len(line) == 2}
