"""How a check, a backup or a restore reaches an engine: addresses of its members, and credentials from Secrets.

It uses the pods' own addresses if they can be reached (a worker in the cluster), else a port-forward through the API
server. Members are always addressed one by one: a Service would show one healthy member and hide two others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import httpx

from cluster.credentials import read_secret
from cluster.kube import Kube
from cluster.pods.forward import Forwards
from components.http import HttpClient
from config.models import Settings
from errors import PermanentError


@dataclass(frozen=True)
class Endpoint:
    """The address of a member.

    Attributes:
        member: pod name.
        host: address to connect to; "" while the pod has none.
        port: TCP port to connect to.
        pod_ip: the pod's own address, which the engine's members use.
        node: where the pod runs; "" while it does not.
    """

    member: str
    host: str
    port: int
    pod_ip: str
    node: str

    @property
    def url(self) -> str:
        """`host:port`, for messages and clients."""
        return f"{self.host}:{self.port}"


@dataclass
class Access:
    """Access to the engines of one environment; close it when done.

    Attributes:
        settings: of the environment.
        kube: its cluster.
        timeout_seconds: limit of one request to one member.
        given: Secret → key → value, for engines whose passwords are not in the namespace's Secrets.
        http: client for engines with an HTTP API, with that limit.
    """

    settings: Settings
    kube: Kube
    timeout_seconds: float = 4.0
    given: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    http: httpx.Client = field(init=False)
    _forwards: Forwards = field(init=False)
    _secrets: dict[str, Mapping[str, str]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.http = HttpClient(self.timeout_seconds)
        self._forwards = Forwards(self.kube)
        self._secrets.update(self.given)

    def __enter__(self) -> Access:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
        self._forwards.close()

    def endpoints(self, workload: str, members: int, port: int) -> list[Endpoint]:
        """Return the addresses of a StatefulSet's members, by name; including those without a pod.

        Args:
            workload: name of the StatefulSet.
            members: expected number.
            port: of the container.
        """
        return [self.endpoint(f"{workload}-{number}", port) for number in range(members)]

    def endpoint(self, pod: str, port: int) -> Endpoint:
        """Return the address of one pod."""
        namespace = self.settings.kubernetes.namespace
        live = self.kube.get("v1", "Pod", pod, namespace) or {}
        address = str(live.get("status", {}).get("podIP") or "")
        node = str(live.get("spec", {}).get("nodeName") or "")
        if not address or self.settings.kubernetes.engine_access == "address":
            return Endpoint(pod, address, port, address, node)
        host, local = self._forwards.open(namespace, pod, port)
        return Endpoint(pod, host, local, address, node)

    def secret(self, name: str, key: str) -> str:
        """Return the value of a Secret.

        Raises:
            PermanentError: the Secret or the key does not exist.
        """
        if name not in self._secrets:
            values = read_secret(self.kube, self.settings.kubernetes.namespace, name)
            if values is None:
                raise PermanentError(
                    f"Secret {name} does not exist: `isa deploy --only namespace` creates missing ones"
                )
            self._secrets[name] = values
        if key not in self._secrets[name]:
            raise PermanentError(f"Secret {name} has no key {key}")
        return self._secrets[name][key]
