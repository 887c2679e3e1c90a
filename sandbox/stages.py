"""The manifests that simulate nodes, pods and volumes: the sandbox's stages, KWOK's stages for nodes, and CRDs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import yaml

from cluster.kube import Manifest
from sandbox.machine import binaries
from sandbox.machine.paths import cache_dir

MANIFESTS = Path(__file__).resolve().parent / "manifests"
POD_STAGES = "pod-stages.yaml"
VOLUME_FILES = ("volume-stages.yaml", "volume-reclaim-policy.yaml")
KWOK_NODE_STAGES = ("stage/node/fast", "stage/node/heartbeat-with-lease")
KWOK_CRDS = "crd/bases"


def crds() -> list[Manifest]:
    """Definitions of KWOK's kinds and of the Prometheus operator's."""
    return [*_kwok(KWOK_CRDS), *monitoring_crds()]


def monitoring_crds() -> list[Manifest]:
    """Definitions of the Prometheus operator's kinds."""
    return _load(MANIFESTS / "monitoring-crds.yaml")


def node_stages() -> list[Manifest]:
    """Stages that make nodes ready and renew their leases."""
    return [stage for directory in KWOK_NODE_STAGES for stage in _kwok(directory)]


def pod_stages(ready_delay: tuple[float, float] | None) -> list[Manifest]:
    """Stages that run pods, make them ready, complete them and delete them.

    Args:
        ready_delay: shortest and longest time in seconds until a pod is ready; the file's own if None.
    """
    stages = _load(MANIFESTS / POD_STAGES)
    for stage in stages:
        if ready_delay is not None and stage["metadata"]["name"] == "pod-ready":
            shortest, longest = (round(seconds * 1000) for seconds in ready_delay)
            # KWOK accepts a jitter only if it is larger than the duration
            stage["spec"]["delay"] = {
                "durationMilliseconds": shortest,
                "jitterDurationMilliseconds": max(longest, shortest + 1),
            }
    return stages


def volumes() -> list[Manifest]:
    """Stages that bind claims to volumes and set the reclaim policy of their class."""
    return [manifest for name in VOLUME_FILES for manifest in _load(MANIFESTS / name)]


def reclaim_policies() -> list[Manifest]:
    """Stages that set the reclaim policy of a volume's class."""
    return _load(MANIFESTS / "volume-reclaim-policy.yaml")


def _load(file: Path) -> list[Manifest]:
    return [
        document for document in yaml.safe_load_all(file.read_text(encoding="utf-8")) if document
    ]


def _kwok(directory: str) -> list[Manifest]:
    """KWOK's own manifests, from its Go module; copied to the cache."""
    kept = cache_dir() / "kwok-manifests" / binaries.KWOK_MODULE.rpartition("@")[2]
    if not kept.exists():
        source = binaries.module_dir(binaries.KWOK_MODULE) / "kustomize"
        fresh = kept.with_name(f"{kept.name}.{os.getpid()}")
        for name in (KWOK_CRDS, *KWOK_NODE_STAGES):
            (fresh / name).mkdir(parents=True)
            for file in (source / name).glob("*.yaml"):
                # without the read-only mode of the module cache
                shutil.copyfile(file, fresh / name / file.name)
        try:
            os.rename(fresh, kept)
        except OSError:  # another process was faster
            shutil.rmtree(fresh, ignore_errors=True)
    files = sorted((kept / directory).glob("*.yaml"))
    return [m for file in files for m in _load(file) if "kustomize" not in m.get("apiVersion", "")]
