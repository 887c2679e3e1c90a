"""The settings of an environment: typed, frozen, each with its unit and the reason for its default."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from config.sections.backups import BackupSettings, RebuildSettings, VerifySettings
from config.sections.control import NotifySettings, PoolSettings, ScheduleSettings
from config.sections.objectives import ObjectiveSettings
from config.sections.wal import WalSettings
from config.values import (
    Count,
    DeclaredFile,
    DnsLabel,
    Image,
    ProjectPath,
    Seconds,
    Section,
    UserPath,
)

# The engines, in the order in which the design deploys them: the one list of them.
Component = Literal["postgresql", "redis", "nats", "minio", "qdrant", "neo4j", "emqx"]
COMPONENTS: tuple[str, ...] = get_args(Component)


DOCKER_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")


class KubernetesSettings(Section):
    """Which cluster, and its namespaces."""

    kubeconfig: UserPath | None = Field(
        default=None,
        description="kubeconfig file; unset: KUBECONFIG, or in a pod its service account",
    )
    context: str | None = Field(
        default=None, description="context in the kubeconfig; unset: its current one"
    )
    namespace: DnsLabel = Field(description="namespace of the seven engines")
    control_namespace: DnsLabel = Field(
        description="namespace of Prefect, its workers and the Leases"
    )
    verify_namespace: DnsLabel = Field(
        description="namespace of the scratch engines of restore proofs"
    )
    engine_access: Literal["address", "port-forward"] = Field(
        default="address",
        description="how engines are reached: by the pods' addresses (a worker in the cluster), or through the API "
        "server (from a workstation)",
    )
    request_timeout_seconds: Seconds = Field(
        default=15.0,
        gt=0,
        description="limit of one API request, seconds",
    )

    @model_validator(mode="after")
    def _namespaces_differ(self) -> KubernetesSettings:
        # roles and network policies are by namespace, and a proof may remove what is in its own
        names = (self.namespace, self.control_namespace, self.verify_namespace)
        if len(set(names)) < len(names):
            raise ValueError(
                f"engines, control and proofs each need a namespace of their own, not {', '.join(names)}"
            )
        return self


class PlatformSettings(Section):
    """Files that declare the platform, relative to the project's root."""

    helmfile: DeclaredFile = Field(description="the releases")
    storage_manifest: DeclaredFile = Field(description="storage classes")
    namespace_manifest: DeclaredFile = Field(
        description="namespaces, RBAC, quota, network policies"
    )
    site_values: DeclaredFile = Field(description="site-specific values of the releases")


def _chart_address(value: str) -> str:
    if not re.fullmatch(r"(oci|https?)://[^\s@]+", value):
        raise ValueError(
            "must be oci://… or https://…, without credentials (`helm registry login`)"
        )
    return value


class ChartSettings(Section):
    """Where charts come from, besides their publishers' hosts."""

    directory: ProjectPath = Field(
        default=Path("deployments/kubernetes/production/helm/charts"),
        validate_default=True,
        description="directory of chart archives, `NAME-VERSION.tgz`, relative to the project's root. Missing "
        "archives are pulled and kept there. Commit it, or mount a volume: then a deploy needs no chart "
        "host",
    )
    mirrors: dict[str, Annotated[str, AfterValidator(_chart_address)]] = Field(
        default={},
        description="name of a repository in helmfile.yaml → address to use instead, "
        "`oci://registry.example.com/charts` or `https://…`",
    )


class BlockStorage(Section):
    """The class behind every engine's volume."""

    class_name: DnsLabel = Field(
        default="infotrend-block", description="name of the storage class, fixed by the design"
    )
    provisioner: str = Field(description="name of the array's CSI driver")
    parameters: dict[str, str] = Field(
        description="pool, protocol, file system, in the driver's own terms"
    )
    fs_type: str = Field(
        default="xfs", description="file system of the volumes; MinIO requires XFS"
    )

    @model_validator(mode="after")
    def _file_system_is_a_parameter(self) -> BlockStorage:
        # the one parameter that every CSI driver knows:
        # https://kubernetes-csi.github.io/docs/external-provisioner.html#storageclass-parameters
        self.parameters.setdefault("csi.storage.k8s.io/fstype", self.fs_type)
        return self


class NfsStorage(Section):
    """The ReadWriteMany class: shared logs, configuration, backup spool."""

    class_name: DnsLabel = Field(
        default="infotrend-nfs", description="name of the storage class, fixed by the design"
    )
    provisioner: str = Field(default="nfs.csi.k8s.io", description="name of the NFS CSI driver")
    server: str = Field(description="address of the array's NFS service")
    share: str = Field(description="exported path")
    mount_options: tuple[str, ...] = Field(
        default=("nfsvers=4.1", "hard"),
        description="options of each mount; hard: I/O waits instead of failing",
    )


def _endpoint(value: str) -> str:
    url = urlsplit(value.rstrip("/"))
    try:
        sound = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:  # a port that is no number
        sound = False
    extra = url.path or url.query or url.fragment or re.search(r"[@\s]", url.netloc)
    if not sound or extra:
        # the value itself may hold a password: it is not repeated
        raise ValueError("must be http(s)://host[:port], without a path and without credentials")
    return url.geturl()


class StoreSecrets(Section):
    """Secrets of the control namespace with the accounts' own keys of the object store.

    Each has `access-key` and `secret-key`; only its account may read it (deployments/object-store).
    """

    deployer: DnsLabel = Field(default="infotrend-object", description="of isa-deployer")
    backup: DnsLabel = Field(default="isa-store-backup", description="of isa-backup")
    verify: DnsLabel = Field(default="isa-store-verify", description="of isa-verify")
    restore: DnsLabel = Field(default="isa-store-restore", description="of isa-restore")
    rebuild: DnsLabel = Field(default="isa-store-rebuild", description="of isa-rebuild")
    retention: DnsLabel = Field(default="isa-store-retention", description="of isa-retention")
    wal: DnsLabel = Field(default="isa-store-wal", description="of isa-wal")


class ObjectStoreSettings(Section):
    """The array's S3 service: backups and archives."""

    class_name: DnsLabel = Field(
        default="infotrend-object",
        description="name of the COSI bucket class, fixed by the design",
    )
    endpoint: Annotated[str, AfterValidator(_endpoint)] = Field(
        description="address of the S3 service"
    )
    bucket: str = Field(min_length=3, max_length=63, description="bucket of the backups")
    region: str = Field(
        default="us-east-1", description="signing region; arrays ignore it, signatures require it"
    )
    credentials_secret: str = Field(
        default="infotrend-object",
        description="Secret with access-key and secret-key of this process, in the control namespace; workers name "
        "their own",
    )
    role_secrets: StoreSecrets = StoreSecrets()
    cosi_driver: str | None = Field(
        default=None,
        description="COSI driver; unset: no BucketClass is created",
    )

    @property
    def port(self) -> int:
        """Port of the service, which network policies open."""
        url = urlsplit(self.endpoint)
        return url.port or (443 if url.scheme == "https" else 80)


class StorageSettings(Section):
    """Where data is stored."""

    block: BlockStorage
    nfs: NfsStorage
    object: ObjectStoreSettings
    minio_class: str = Field(
        default="",
        description="storage class of MinIO's drives; unset: the block class",
    )

    @model_validator(mode="before")
    @classmethod
    def _minio_on_block(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.get("minio_class"):
            block = data.get("block")
            if isinstance(block, BlockStorage):
                return {**data, "minio_class": block.class_name}
            name = block.get("class_name") if isinstance(block, dict) else None
            return {**data, "minio_class": name or "infotrend-block"}
        return data


def _text(value: Any) -> Any:
    # YAML 1.1 reads a bare yes as true (https://yaml.org/type/bool.html): one meaning is possible
    if value is False:
        raise ValueError(
            "must be 'yes' or 'eval'; YAML reads a bare no as false, which is not a licence"
        )
    return "yes" if value is True else value


class LicenceSettings(Section):
    """The licence of an engine: a person has to decide, so there is no default."""

    neo4j: Annotated[Literal["yes", "eval"], BeforeValidator(_text)] = Field(
        description="Neo4j Enterprise: `yes` (a commercial licence is held) or `eval`"
    )
    emqx: Literal["apache", "enterprise"] = Field(
        description="`apache` (5.8 line, free to cluster) or `enterprise` "
        "(licence key in Secret emqx-license)"
    )


def _published(image: Image) -> Image:
    # https://github.com/bitnami/charts/issues/35164: only `latest` is left there
    if image.registry in DOCKER_HUB and image.repository.startswith("bitnami/"):
        raise ValueError(
            f"{image.repository} has had no new versions on Docker Hub since September 2025: name your own registry, "
            f"or docker.io/bitnamilegacy/{image.repository.removeprefix('bitnami/')}, which is frozen and gets no "
            "fixes"
        )
    return image


EngineImage = Annotated[Image, AfterValidator(_published)]


def _of_qdrant(image: Image) -> Image:
    # qdrant-helm templates/statefulset.yaml: `semverCompare ">=1.7.3"` of the tag, and the suffix behind it
    if image.digest or not re.fullmatch(r"v?\d+\.\d+\.\d+", image.tag):
        raise ValueError(
            "must be registry/repository:v1.2.3. The chart reads the tag as a version and appends -unprivileged, so "
            "it accepts no digest: pin the image in your registry (an immutable tag)"
        )
    return image


def _image(text: str) -> Image:
    return Image.model_validate(text)


class ImageSettings(Section):
    """All images of the engines; PRODUCTION_DESIGN.md has reasons and choices for those without a default."""

    postgresql: EngineImage = Field(description="PostgreSQL with repmgr, Bitnami layout")
    pgpool: EngineImage = Field(description="Pgpool-II, Bitnami layout")
    postgres_exporter: EngineImage = Field(description="PostgreSQL metrics, Bitnami layout")
    redis: EngineImage = Field(description="Redis Cluster, Bitnami layout")
    redis_exporter: EngineImage = Field(description="Redis metrics, Bitnami layout")
    nats: EngineImage = Field(
        default=_image("docker.io/library/nats:2.14.2-alpine"), description="NATS server"
    )
    nats_reloader: EngineImage = Field(
        default=_image("docker.io/natsio/nats-server-config-reloader:0.23.0"),
        description="reloads NATS when its configuration changes",
    )
    nats_exporter: EngineImage = Field(
        default=_image("docker.io/natsio/prometheus-nats-exporter:0.20.1"),
        description="NATS metrics",
    )
    minio: EngineImage = Field(description="MinIO server")
    minio_client: EngineImage = Field(description="mc, for the chart's jobs")
    qdrant: Annotated[EngineImage, AfterValidator(_of_qdrant)] = Field(
        default=_image("docker.io/qdrant/qdrant:v1.19.0"),
        description="Qdrant, without `-unprivileged`, which the chart appends to the tag, and without a digest, "
        "which the chart does not accept",
    )
    neo4j: EngineImage = Field(
        default=_image("docker.io/library/neo4j:5.26.30-enterprise"),
        description="Neo4j, of the edition in `components.neo4j.edition`",
    )
    emqx: EngineImage = Field(
        default=_image("docker.io/emqx/emqx:5.8.9"),
        description="EMQX, of the licence in `licences.emqx`",
    )


class Members(Section):
    """How many members a complete component has."""

    members: Count = Field(ge=1, description="expected number of members")


class PostgresqlMembers(Members):
    """PostgreSQL and its proxy."""

    members: Count = Field(default=3, ge=1, description="expected number of members")
    max_lag_bytes: Count = Field(
        default=64 << 20,
        ge=0,
        description="WAL by which a standby may lag, bytes; 64 MiB are four segments",
    )
    pgpool: bool = Field(
        default=True, description="whether Pgpool is in use, so that the gate checks its nodes"
    )


class Neo4jMembers(Members):
    """Neo4j, which clusters in its Enterprise edition only."""

    members: Count = Field(default=3, ge=1, description="expected number of members")
    edition: Literal["enterprise", "community"] = Field(
        default="enterprise", description="edition; only enterprise can form a cluster"
    )
    min_available: Count = Field(
        default=2,
        ge=0,
        description="members that keep running during a drain; two are the quorum of three",
    )


class ComponentSettings(Section):
    """The members of each component in this environment."""

    postgresql: PostgresqlMembers = PostgresqlMembers()
    redis: Members = Members(members=6)
    nats: Members = Members(members=3)
    minio: Members = Members(members=4)
    qdrant: Members = Members(members=3)
    neo4j: Neo4jMembers = Neo4jMembers()
    emqx: Members = Members(members=3)


class DeploySettings(Section):
    """How a deploy works."""

    max_parallel_releases: Count = Field(
        default=3,
        ge=1,
        le=9,
        description="nodes deployed at the same time; 1 is the strict order of the design",
    )
    attempts: Count = Field(
        default=4,
        ge=1,
        description="attempts for a node that fails for a temporary reason; bridges a short outage",
    )
    retry_delay_seconds: Seconds = Field(
        default=5.0, ge=0, description="pause between attempts, seconds"
    )
    gate: Literal["whole", "quorum", "kubernetes"] = Field(
        default="whole",
        description="what a gate waits for: `whole`, every check of Kubernetes and of the engine; `quorum`, the "
        "engine serves though a member is missing; `kubernetes`, pods only, for a cluster without engines",
    )
    gate_stable_seconds: Seconds = Field(
        default=3.0,
        ge=0,
        description="a gate opens when every check has passed for this long, seconds",
    )
    gate_timeout_seconds: Seconds = Field(
        default=600.0,
        gt=0,
        description="time for a component to become ready, seconds; images may have to be pulled",
    )
    ignored_field_managers: tuple[str, ...] = Field(
        default=(),
        description="field managers whose additions to deployed objects are not drift: a site's own controllers, "
        "such as an autoscaler. Those of the control plane are known",
    )
    lease_seconds: Seconds = Field(
        default=30.0,
        ge=3,
        description="a Lease that is not renewed for this long may be taken over, seconds",
    )


class ScaledService(Section):
    """A stateless gRPC service that scales with its load."""

    deployment: DnsLabel = Field(description="name of the Deployment")
    min_replicas: Count = Field(
        default=2, ge=1, description="minimum number of pods; 2 survive the loss of a node"
    )
    max_replicas: Count = Field(
        default=10, ge=1, description="maximum number of pods; limits a runaway load"
    )
    cpu_percent: Count = Field(
        default=70,
        ge=1,
        le=100,
        description="target load, percent of the requested CPU; leaves room while pods start",
    )

    @model_validator(mode="after")
    def _ordered(self) -> ScaledService:
        if self.min_replicas > self.max_replicas:
            raise ValueError(
                f"min_replicas {self.min_replicas} is above max_replicas {self.max_replicas}"
            )
        return self


class AutoscalingSettings(Section):
    """Which Deployments get a HorizontalPodAutoscaler."""

    services: tuple[ScaledService, ...] = Field(
        default=(), description="the services; empty unless the site runs some"
    )


class Settings(Section):
    """Everything about one environment."""

    environment: str = Field(description="name of the environment, the same as the file's")
    kubernetes: KubernetesSettings
    platform: PlatformSettings
    charts: ChartSettings = ChartSettings()
    storage: StorageSettings
    licences: LicenceSettings
    images: ImageSettings
    components: ComponentSettings = ComponentSettings()
    deploy: DeploySettings = DeploySettings()
    autoscaling: AutoscalingSettings = AutoscalingSettings()
    backup: BackupSettings
    wal: WalSettings = WalSettings()
    verify: VerifySettings = VerifySettings()
    rebuild: RebuildSettings = RebuildSettings()
    objectives: ObjectiveSettings = ObjectiveSettings()
    schedules: ScheduleSettings = ScheduleSettings()
    pool: PoolSettings = PoolSettings()
    notify: NotifySettings = NotifySettings()

    @model_validator(mode="after")
    def _image_is_of_the_edition(self) -> Settings:
        neo4j, edition = self.images.neo4j, self.components.neo4j.edition
        if edition == "community" and neo4j.tag.endswith("-enterprise"):
            raise ValueError(
                f"images.neo4j is {neo4j.reference}, but components.neo4j.edition is community: both must be the same "
                "edition"
            )
        return self
