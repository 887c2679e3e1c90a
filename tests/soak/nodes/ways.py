"""Every way between pods, and out of the cluster, that the project's network policies open or close.

A closed way counts only if another source reaches the same target and port: then something listens there.
`tests/unit/production/test_ways.py` compares this table with the policies as Kubernetes reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

PRODUCTION, CONTROL, VERIFY = "isa-cloud-production", "isa-cloud-control", "isa-cloud-verify"
CLIENTS, MONITORING, ELSEWHERE = "clients", "monitoring", "elsewhere"
# Namespaces that a site has beside the project's own, with their labels.
SITE: dict[str, dict[str, str]] = {
    CLIENTS: {"isa-cloud.io/client": "true"},
    MONITORING: {"isa-cloud.io/monitoring": "true"},
    ELSEWHERE: {},
}
STORE, PUSHGATEWAY, OTHER = 9000, 9091, 8081
API, DNS = 6443, 53
NAME, COMPONENT, SCRATCH = (
    "app.kubernetes.io/name",
    "app.kubernetes.io/component",
    "isa-cloud.io/scratch",
)


@dataclass(frozen=True)
class End:
    """One end of a way.

    Attributes:
        namespace: of its pod; "" outside the cluster.
        labels: of its pod.
        listens: ports.
    """

    namespace: str
    labels: Mapping[str, str] = field(default_factory=dict)
    listens: tuple[int, ...] = ()


@dataclass(frozen=True)
class Way:
    """From a pod to a port.

    Attributes:
        source: name in `ENDS`.
        target: the same.
        port: of the target.
        is_open: whether the connection must work.
    """

    source: str
    target: str
    port: int
    is_open: bool

    def __str__(self) -> str:
        verdict = "reaches" if self.is_open else "does not reach"
        return f"{self.source} {verdict} {self.target} on {self.port}"


def _engine(ports: tuple[int, ...], **labels: str) -> End:
    names = {"name": NAME, "component": COMPONENT, "app": "app"}
    named = {names.get(key, key): value for key, value in labels.items()}
    return End(PRODUCTION, named, ports)


def _worker(queue: str) -> End:
    return End(CONTROL, {NAME: queue})


_NEO4J = {"app": "isa-neo4j", "helm.neo4j.com/pod_category": "neo4j-instance"}
_POSTGRESQL = {"name": "postgresql-ha", "component": "postgresql"}
_NATS = {"name": "nats", "component": "nats"}
ENDS: dict[str, End] = {
    "a client": End(PRODUCTION, {"isa-cloud.io/client": "true"}),
    "a pod without the client label": End(PRODUCTION, {"app": "stranger"}),
    "a client of another namespace": End(CLIENTS),
    "a pod of another namespace": End(ELSEWHERE),
    "Prometheus": End(MONITORING),
    "the backup worker": _worker("isa-backup-worker"),
    "the verify worker": _worker("isa-verify-worker"),
    "the retention worker": _worker("isa-retention-worker"),
    "a scratch engine": End(VERIFY, {SCRATCH: "nats"}, (4222, 8222)),
    "a scratch engine that fetches": End(
        VERIFY, {SCRATCH: "redis", "isa-cloud.io/fetches": "true"}, (6379,)
    ),
    "PostgreSQL": _engine((5432, 9187), **_POSTGRESQL),
    "Pgpool": _engine((5432,), name="postgresql-ha", component="pgpool"),
    "Redis": _engine((6379, 9121, 16379), name="redis-cluster"),
    "another Redis": _engine((6379, 16379), name="redis-cluster"),
    "NATS": _engine((4222, 6222, 7777, 8222), **_NATS),
    "another NATS": _engine((6222,), **_NATS),
    "MinIO": _engine((9000, 9001), app="minio"),
    "another MinIO": _engine((9000,), app="minio"),
    "Qdrant": _engine((6333, 6334, 6335), name="qdrant"),
    "another Qdrant": _engine((6335,), name="qdrant"),
    "Neo4j": _engine((5000, 6362, 7000, 7474, 7687), **_NEO4J),
    "another Neo4j": _engine((7000,), **_NEO4J),
    "EMQX": _engine((1883, 4370, 18083), name="emqx"),
    "another EMQX": _engine((4370,), name="emqx"),
    "DNS": End("kube-system", {"k8s-app": "kube-dns"}, (DNS,)),
    "the Kubernetes API": End("", {}, (API,)),
    "the object store": End("", {}, (STORE,)),
    "the Pushgateway": End("", {}, (PUSHGATEWAY,)),
    "another server outside": End("", {}, (OTHER,)),
}
# Where clients are served.
SERVED = {
    "Pgpool": 5432, "Redis": 6379, "NATS": 4222, "MinIO": 9000, "Qdrant": 6333, "Neo4j": 7687, "EMQX": 1883,
}  # fmt: skip
# Where members talk to each other, most of them without a password.
MEMBERS = {"Redis": 16379, "NATS": 6222, "Qdrant": 6335, "Neo4j": 7000, "EMQX": 4370}
# What gates and backups ask beside that.
ASKED = {**SERVED, "PostgreSQL": 5432, "EMQX": 18083}


def _ways() -> list[Way]:
    found: list[Way] = []

    def opens(source: str, target: str, *ports: int) -> None:
        found.extend(Way(source, target, port, True) for port in ports)

    def closes(source: str, target: str, *ports: int) -> None:
        found.extend(Way(source, target, port, False) for port in ports)

    for target, port in SERVED.items():
        opens("a client", target, port)
        opens("a client of another namespace", target, port)
        closes("a pod without the client label", target, port)
        closes("a pod of another namespace", target, port)
        closes("a scratch engine", target, port)
        closes("a scratch engine that fetches", target, port)
    for target, port in MEMBERS.items():
        opens(f"another {target}", target, port)
        closes("a client", target, port)
        closes("the backup worker", target, port)
    for target, port in ASKED.items():
        opens("the backup worker", target, port)
    opens("the backup worker", "NATS", 8222)
    opens("the backup worker", "Neo4j", 6362)
    closes("a client", "PostgreSQL", 5432)  # through Pgpool alone
    closes("a client", "NATS", 8222)
    closes("a client", "Neo4j", 6362)  # it asks for no password
    closes("a client", "EMQX", 18083)
    opens("Pgpool", "PostgreSQL", 5432)
    opens("another MinIO", "MinIO", 9000)
    closes("Pgpool", "Redis", 6379)
    closes("another NATS", "Redis", 6379)
    closes("another EMQX", "MinIO", 9000)
    for target, port in {"PostgreSQL": 9187, "Redis": 9121, "NATS": 7777, "EMQX": 18083}.items():
        opens("Prometheus", target, port)
        closes("a pod of another namespace", target, port)
    closes("Prometheus", "NATS", 4222)
    closes("Prometheus", "Pgpool", 5432)
    opens("the verify worker", "a scratch engine", 4222)
    opens("the verify worker", "a scratch engine that fetches", 6379)
    for stranger in ("the backup worker", "the retention worker", "a client", "Prometheus"):
        closes(stranger, "a scratch engine", 4222)
    closes("a scratch engine that fetches", "a scratch engine", 4222)
    closes("a scratch engine", "a scratch engine that fetches", 6379)
    outside = {"the object store": STORE, "the Pushgateway": PUSHGATEWAY, "the Kubernetes API": API}
    for target, port in outside.items():
        opens("the backup worker", target, port)
        closes("a scratch engine", target, port)
        closes("another NATS", target, port)
        closes("a client", target, port)
    opens("a pod of another namespace", "another server outside", OTHER)
    closes("the backup worker", "another server outside", OTHER)
    closes("a scratch engine that fetches", "another server outside", OTHER)
    closes("a scratch engine that fetches", "the Kubernetes API", API)
    closes("a scratch engine that fetches", "the Pushgateway", PUSHGATEWAY)
    opens("a scratch engine that fetches", "the object store", STORE)
    opens("another Neo4j", "the Kubernetes API", API)  # its discovery
    for source in (
        "a client",
        "the backup worker",
        "another NATS",
        "a scratch engine that fetches",
    ):
        opens(source, "DNS", DNS)
    closes("a scratch engine", "DNS", DNS)
    return found


WAYS = _ways()
