"""A platform small enough to break: the product's own files, with one tiny chart behind every release."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from cluster.helm.records import ReleaseRecord, read_records
from cluster.kube import Kube, Manifest
from sandbox.cluster import Sandbox
from tests.contract import checked

ISA = str(Path(sys.executable).with_name("isa"))
NEVER_READY = {"isa-cloud.io/never-ready": "true"}  # see sandbox/manifests
WORKLOADS = {"nats": "nats", "minio": "minio", "qdrant": "qdrant", "redis": "redis-cluster"}
T = TypeVar("T")

STATEFUL_SET = """\
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: {{ .Values.workload }}}
spec:
  replicas: {{ .Values.replicas }}
  podManagementPolicy: Parallel
  serviceName: {{ .Values.workload }}
  selector: {matchLabels: {app: {{ .Values.workload }}}}
  template:
    metadata:
      labels: {app: {{ .Values.workload }}}
      annotations: {{- toYaml .Values.annotations | nindent 8 }}
    spec:
      affinity:
        podAntiAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
            - topologyKey: kubernetes.io/hostname
              labelSelector: {matchLabels: {app: {{ .Values.workload }}}}
      containers:
        - name: engine
          image: {{ .Values.image }}
          resources: {requests: {cpu: {{ .Values.cpu }}, memory: 64Mi}}
          {{- if .Values.environment }}
          envFrom: [{configMapRef: {name: {{ .Values.workload }}-env}}]
          {{- end }}
          volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
    - metadata: {name: data}
      spec:
        accessModes: [ReadWriteOnce]
        storageClassName: {{ .Values.storageClass }}
        resources: {requests: {storage: 1Gi}}
"""
ENVIRONMENT = """\
{{- with .Values.environment }}
apiVersion: v1
kind: ConfigMap
metadata: {name: {{ $.Values.workload }}-env}
data: {{- toYaml . | nindent 2 }}
{{- end }}
"""
NAMESPACES = """\
apiVersion: v1
kind: Namespace
metadata:
  name: ${kubernetes.namespace}
  labels: {app.kubernetes.io/managed-by: isa-cloud}
---
apiVersion: v1
kind: Namespace
metadata:
  name: ${kubernetes.control_namespace}
  labels: {app.kubernetes.io/managed-by: isa-cloud}
"""
STORAGE_CLASS = """\
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: "${storage.block.class_name}"}
provisioner: ${storage.block.provisioner}
reclaimPolicy: Retain
volumeBindingMode: WaitForFirstConsumer
"""


@dataclass(frozen=True)
class Ended:
    """How an `isa` command ended.

    Attributes:
        code: exit status.
        stdout: its standard output.
        stderr: its standard error.
        arguments: of the command.
    """

    code: int
    stdout: str
    stderr: str
    arguments: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """All that it said."""
        return self.stdout + self.stderr

    @property
    def report(self) -> dict[str, Any]:
        """What `--json` printed, which the command's schema takes."""
        return checked(self.arguments, self.stdout, self.stderr)

    def node(self, name: str) -> dict[str, Any]:
        """One node of the report."""
        return next(node for node in self.report["nodes"] if node["name"] == name)

    def outcomes(self) -> dict[str, str]:
        """How each node of a deploy ended."""
        return {node["name"]: node["outcome"] for node in self.report["nodes"]}


class PlatformTree:
    """Declared files of a platform, the namespaces that they lead to, and `isa` on them.

    Args:
        sandbox: cluster to deploy on.
        directory: for the files.
        name: prefix of everything that it makes in the cluster.
    """

    def __init__(self, sandbox: Sandbox, directory: Path, name: str) -> None:
        self.sandbox = sandbox
        self.directory = directory
        self.namespace = f"{name}-engines"
        self.control = f"{name}-control"
        self.storage_class = f"{name}-block"
        self.helmfile: dict[str, Any] = {"helmDefaults": {"wait": True}, "releases": []}
        self._processes: list[subprocess.Popen[str]] = []
        (directory / "chart" / "templates").mkdir(parents=True)
        self._write("chart/Chart.yaml", {"apiVersion": "v2", "name": "tiny", "version": "1.0.0"})
        self._write("site-values.yaml", {})
        (directory / "chart" / "templates" / "workload.yaml").write_text(STATEFUL_SET)
        (directory / "chart" / "templates" / "environment.yaml").write_text(ENVIRONMENT)
        (directory / "namespace.yaml").write_text(NAMESPACES)
        (directory / "storage.yaml").write_text(STORAGE_CLASS)
        self.settings = {
            "ISA_KUBERNETES__NAMESPACE": self.namespace,
            "ISA_KUBERNETES__CONTROL_NAMESPACE": self.control,
            "ISA_KUBERNETES__VERIFY_NAMESPACE": f"{name}-verify",
            "ISA_STORAGE__BLOCK__CLASS_NAME": self.storage_class,
            "ISA_PLATFORM__HELMFILE": str(directory / "helmfile.yaml"),
            "ISA_PLATFORM__STORAGE_MANIFEST": str(directory / "storage.yaml"),
            "ISA_PLATFORM__NAMESPACE_MANIFEST": str(directory / "namespace.yaml"),
            "ISA_PLATFORM__SITE_VALUES": str(directory / "site-values.yaml"),
        }

    # ------------------------------------------------------------------ what is declared
    def declare(
        self,
        component: str,
        *,
        needs: tuple[str, ...] = (),
        timeout: int = 120,
        wait: bool = True,
        **values: Any,
    ) -> None:
        """Declare the one release of a component, or declare it anew.

        Args:
            component: also the name of the release.
            needs: other releases.
            timeout: of helm, seconds.
            wait: whether helm waits.
            values: of the chart, as replicas, image, annotations, cpu, storageClass, environment.
        """
        filled = {
            "workload": WORKLOADS[component],
            "replicas": 1,
            "image": "sandbox.local/engine:1.0",
            "annotations": {},
            "cpu": "10m",
            "storageClass": self.storage_class,
            "environment": {},
            **values,
        }
        self._write(f"{component}.yaml", filled)
        self.settings[f"ISA_COMPONENTS__{component.upper()}__MEMBERS"] = str(filled["replicas"])
        entry = {
            "name": component,
            "namespace": self.namespace,
            "chart": "./chart",
            "labels": {"component": component},
            "needs": list(needs),
            "timeout": timeout,
            "wait": wait,
            "values": [f"{component}.yaml"],
        }
        others = [r for r in self.helmfile["releases"] if r["name"] != component]
        self.helmfile["releases"] = [*others, entry]
        self.write_helmfile()

    def release(self, name: str) -> dict[str, Any]:
        """A release's entry in the helmfile, to be changed before `write_helmfile`."""
        return next(r for r in self.helmfile["releases"] if r["name"] == name)

    def write_helmfile(self) -> None:
        """Write the helmfile as it stands in `helmfile`."""
        self._write("helmfile.yaml", self.helmfile)

    # ------------------------------------------------------------------ commands
    @property
    def environ(self) -> dict[str, str]:
        """Environment of a command on this platform."""
        return {**self.sandbox.environ(), **self.settings}

    def isa(self, *arguments: str, **settings: str) -> Ended:
        """Run `isa` to its end.

        Args:
            arguments: of the command.
            settings: more variables, without their prefix ISA_.
        """
        process = self.start(*arguments, **settings)
        return self.end_of(process)

    def start(self, *arguments: str, **settings: str) -> subprocess.Popen[str]:
        """Start `isa` without waiting for it."""
        more = {f"ISA_{name}": value for name, value in settings.items()}
        return self._start([ISA, *arguments], {**self.environ, **more})

    def helm(self, *arguments: str) -> subprocess.Popen[str]:
        """Start helm as another tool than `isa` would."""
        program = str(self.sandbox.binary("helm"))
        return self._start([program, *arguments, "--namespace", self.namespace], self.environ)

    def end_of(self, process: subprocess.Popen[str], seconds: float = 180) -> Ended:
        """Wait for a started command."""
        stdout, stderr = process.communicate(timeout=seconds)
        arguments = tuple(map(str, process.args[1:])) if isinstance(process.args, list) else ()
        return Ended(process.returncode, stdout, stderr, arguments)

    # ------------------------------------------------------------------ what is live
    @property
    def kube(self) -> Kube:
        """The cluster, as administrator."""
        return self.sandbox.kube()

    def history(self, release: str) -> list[ReleaseRecord]:
        """Helm's revisions of a release, oldest first."""
        return read_records(self.kube, self.namespace).get(release, [])

    def status(self, release: str) -> str:
        """Status of the newest revision, "" if there is none."""
        return next((record.status for record in reversed(self.history(release))), "")

    def workload(self, component: str) -> Manifest | None:
        """The live StatefulSet of a component."""
        return self.kube.get("apps/v1", "StatefulSet", WORKLOADS[component], self.namespace)

    def lease(self, name: str) -> Manifest | None:
        """A live Lease, `isa-nats`."""
        return self.kube.get("coordination.k8s.io/v1", "Lease", name, self.control)

    def holder(self, lease: str) -> str:
        """Who holds a Lease, "" if nobody does."""
        return str((self.lease(lease) or {}).get("spec", {}).get("holderIdentity") or "")

    def exists(self, namespace: str) -> bool:
        """Whether there is such a namespace."""
        return self.kube.get("v1", "Namespace", namespace) is not None

    def make_namespaces(self) -> None:
        """Make both namespaces, as somebody may have before the first deploy."""
        for name in (self.namespace, self.control):
            self.kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    def helms(self, verb: str = "") -> list[int]:
        """Helm processes that work on this platform, or those that do one thing."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                command = (process / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            ours = self.namespace.encode() in command and (not verb or verb.encode() in command)
            if command[0].endswith(b"/helm") and ours:
                found.append(int(process.name))
        return found

    def remove(self) -> None:
        """End what still runs and give the namespaces back; the cluster finishes that by itself."""
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.communicate(timeout=60)
        for namespace in (self.namespace, self.control):
            self.kube.delete("v1", "Namespace", namespace)
        self.kube.delete("storage.k8s.io/v1", "StorageClass", self.storage_class)

    # ------------------------------------------------------------------ internals
    def _write(self, name: str, document: Any) -> None:
        (self.directory / name).write_text(yaml.safe_dump(document))

    def _start(self, argv: list[str], environ: Mapping[str, str]) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            argv, env=environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self._processes.append(process)
        return process


def until(what: str, condition: Callable[[], T], seconds: float = 90) -> T:
    """Wait until a condition is true, and return its answer."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.1)
