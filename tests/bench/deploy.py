"""Measures the deploy against its targets, as ratios, so that the machine's speed cancels out: `make bench`.

On a sandbox of its own whose pods take 5-7.5 s to get ready, as an engine with a volume does. Every run starts from
the same state: namespaces, RBAC and Secrets are there, releases and volumes are not.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from cluster.dag import Dag
from cluster.helm.records import read_records
from cluster.helm.releases import Release, load_releases
from config.loading import ROOT
from config.models import COMPONENTS
from operations.environment.environment import NAMESPACE as NAMESPACE_NODE
from operations.environment.environment import STORAGE
from sandbox.cluster import Sandbox

NAMESPACE = "isa-cloud-production"
READY_DELAY = (5.0, 7.5)
REPEATS = 3  # of the runs whose ratio is near its target; medians are compared
HELP_REPEATS = 7
ISA = str(Path(sys.executable).with_name("isa"))
EMPTY_SECONDS = 60.0


@dataclass(frozen=True)
class Figure:
    """One measured figure.

    Attributes:
        name: what was measured.
        terms: the measured numbers that it is made of.
        value: the figure itself.
        target: what it may be at most.
        met: whether it is.
    """

    name: str
    terms: str
    value: str
    target: str
    met: bool


@dataclass(frozen=True)
class Deploy:
    """One run of `isa deploy`.

    Attributes:
        wall: seconds of the whole command, Python's start included.
        nodes: seconds of each node.
        outcomes: how each node ended.
    """

    wall: float
    nodes: Mapping[str, float]
    outcomes: Mapping[str, str]


class Bench:
    """The sandbox, and what is done on it.

    Args:
        sandbox: a running one.
        directory: for rendered files.
    """

    def __init__(self, sandbox: Sandbox, directory: Path) -> None:
        self._sandbox = sandbox
        self._kube = sandbox.kube()
        self._environ = sandbox.environ()
        self._directory = directory

    def deploy(self, max_parallel: int, *only: str) -> Deploy:
        """Run `isa deploy` and read its report."""
        started = time.monotonic()
        done = self._run(
            ISA, "deploy", "--local", "--json", *(part for node in only for part in ("--only", node)),
            ISA_DEPLOY__MAX_PARALLEL_RELEASES=str(max_parallel),
        )  # fmt: skip
        wall = time.monotonic() - started
        nodes = json.loads(done)["nodes"]
        return Deploy(
            wall,
            {node["name"]: node["seconds"] for node in nodes},
            {node["name"]: node["outcome"] for node in nodes},
        )

    def helm_at_once(self) -> float:
        """Seconds that helm alone takes for all releases, started together and each waited for: the limit."""
        target = self._directory / "rendered"
        self._run(ISA, "render", "--output", str(target))
        releases = load_releases(target / "helmfile.yaml", COMPONENTS).releases
        commands = [self._helm(release) for release in releases]
        started = time.monotonic()
        with ThreadPoolExecutor(len(commands)) as pool:
            list(pool.map(lambda command: self._run(*command), commands))
        return time.monotonic() - started

    def revisions(self) -> dict[str, int]:
        """Newest revision of every release."""
        records = read_records(self._kube, NAMESPACE)
        return {name: history[-1].revision for name, history in records.items()}

    def empty(self) -> None:
        """Remove releases, pods and volumes; namespaces and Secrets stay."""
        helm = str(self._sandbox.binary("helm"))
        for name in self.revisions():
            self._run(helm, "uninstall", name, "--namespace", NAMESPACE)
        self._await_none("Pod")
        for claim in self._kube.list("v1", "PersistentVolumeClaim", NAMESPACE):
            self._kube.delete("v1", "PersistentVolumeClaim", claim["metadata"]["name"], NAMESPACE)
        self._await_none("PersistentVolumeClaim")
        for volume in self._kube.list("v1", "PersistentVolume"):
            self._kube.delete("v1", "PersistentVolume", volume["metadata"]["name"])

    def help_seconds(self) -> float:
        """Seconds of `isa --help`."""
        started = time.monotonic()
        self._run(ISA, "--help")
        return time.monotonic() - started

    def _helm(self, release: Release) -> list[str]:
        values: list[str] = []
        for index, entry in enumerate(release.values):
            file = entry
            if not isinstance(file, Path):
                file = self._directory / f"{release.name}-{index}.yaml"
                file.write_text(yaml.safe_dump(entry))
            values += ["--values", str(file)]
        return [
            str(self._sandbox.binary("helm")), "upgrade", "--install", release.name, release.chart,
            "--namespace", release.namespace, "--wait", "--timeout", f"{release.timeout}s", *values,
        ]  # fmt: skip

    def _await_none(self, kind: str) -> None:
        deadline = time.monotonic() + EMPTY_SECONDS
        while self._kube.list("v1", kind, NAMESPACE):
            if time.monotonic() > deadline:
                raise SystemExit(f"{kind}s are still there after {EMPTY_SECONDS:.0f} s")
            time.sleep(0.2)

    def _run(self, *command: str, **environ: str) -> str:
        done = subprocess.run(
            command, env={**self._environ, **environ}, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command[:4])} failed: {done.stderr}{done.stdout}")
        return done.stdout


def longest_path(nodes: Mapping[str, float], max_parallel: int) -> float:
    """Seconds of the longest path through the graph of the deploy, in the order in which nodes start.

    Args:
        nodes: seconds of each node.
        max_parallel: nodes under way at once; a node that waits for a place has an edge to the one that made it.
    """
    graph = Dag()
    graph.add(STORAGE)
    graph.add(NAMESPACE_NODE, [STORAGE])
    for node in nodes:
        if node not in (STORAGE, NAMESPACE_NODE):
            graph.add(node, [NAMESPACE_NODE])
    free = [0.0] * max_parallel  # when each place gets free
    ends: dict[str, float] = {}
    for node in graph.sorted():
        free.sort()
        start = max([free[0], *(ends[need] for need in graph.needs(node))])
        ends[node] = free[0] = start + nodes[node]
    return max(ends.values())


def overhead(run: Deploy, max_parallel: int) -> Figure:
    """What planning, waiting and telling add to the nodes' own seconds."""
    path = longest_path(run.nodes, max_parallel)
    extra = run.wall - path
    return Figure(
        f"orchestration overhead, {max_parallel} at once",
        f"{run.wall:.1f} s wall − {path:.1f} s longest path",
        f"{extra:.1f} s ({extra / path:.0%})",
        "≤ 10 % or ≤ 3 s",
        extra <= 3.0 or extra <= 0.1 * path,
    )


def ratio(name: str, one: float, other: float, words: tuple[str, str], limit: float) -> Figure:
    """A ratio of two times."""
    terms = f"{one:.1f} s {words[0]} / {other:.1f} s {words[1]}"
    return Figure(name, terms, f"{one / other:.2f}", f"≤ {limit}", one / other <= limit)


def measure(bench: Bench, tell: Callable[[str], None]) -> list[Figure]:
    """Take all figures, on a quiet machine in about five minutes."""

    def timed(name: str, call: Callable[[], Any]) -> Any:
        bench.empty()
        started = time.monotonic()
        result = call()
        tell(f"{name}: {time.monotonic() - started:.1f} s")
        return result

    bench.deploy(3, NAMESPACE_NODE)
    strict: Deploy = timed("strict order", lambda: bench.deploy(1))
    nine: list[Deploy] = []
    alone: list[float] = []
    for _ in range(REPEATS):  # in turns: what else the machine does then disturbs both alike
        nine.append(timed("nine at once", lambda: bench.deploy(9)))
        alone.append(timed("helm alone, all at once", bench.helm_at_once))
    three: Deploy = timed("three at once", lambda: bench.deploy(3))
    before = bench.revisions()
    again = bench.deploy(3)
    tell(f"again: {again.wall:.1f} s")
    same = bench.revisions() == before and set(again.outcomes.values()) == {"unchanged"}
    helps = min(bench.help_seconds() for _ in range(HELP_REPEATS))
    typical = sorted(nine, key=lambda run: run.wall)[REPEATS // 2]
    limit = statistics.median(alone)
    return [
        overhead(strict, 1),
        overhead(three, 3),
        overhead(typical, 9),
        ratio("three at once against the strict order", three.wall, strict.wall, ("3", "1"), 0.6),
        ratio("nine at once against helm alone", typical.wall, limit, ("isa", "helm"), 1.3),
        ratio("no-op redeploy against the first", again.wall, three.wall, ("again", "first"), 0.35),
        Figure(
            "no-op redeploy changes nothing", f"{len(before)} releases", str(same), "True", same
        ),
        Figure("isa --help", f"best of {HELP_REPEATS}", f"{helps:.2f} s", "< 0.5 s", helps < 0.5),
    ]


def table(figures: list[Figure]) -> str:
    """The figures as a Markdown table."""
    lines = ["| figure | measured | value | target | verdict |", "| --- | --- | --- | --- | --- |"]
    lines += [
        f"| {f.name} | {f.terms} | {f.value} | {f.target} | {'met' if f.met else '**missed**'} |"
        for f in figures
    ]
    return "\n".join(lines)


def publish(name: str, text: str, figures: list[Figure]) -> None:
    """Write a page of docs/results and print it; the process exits with 1 if a target is missed.

    Args:
        name: file name of the page.
        text: of the page.
        figures: on it.
    """
    (ROOT / "docs/results" / name).write_text(text)
    print(text)
    if not all(figure.met for figure in figures):
        sys.exit(1)


def write(figures: list[Figure], directory: Path, load: float) -> None:
    """Keep the figures: docs/results/bench-deploy.json for machines, docs/results/bench-deploy.md for people.

    Args:
        figures: what was measured.
        directory: for the two files.
        load: of the machine by others before the start, runnable processes (getloadavg(3), one minute).
    """
    cores = len(os.sched_getaffinity(0))
    date = datetime.now(UTC)
    document = {
        "measured": date.isoformat(timespec="seconds"),
        "machine": {
            "cores": cores,
            "load_before": round(load, 1),
            "python": platform.python_version(),
            "system": platform.system(),
        },
        "pod_ready_seconds": READY_DELAY,
        "figures": [asdict(figure) for figure in figures],
    }
    (directory / "bench-deploy.json").write_text(
        json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    )
    words = (
        f"`make bench` on {cores} cores, {date:%Y-%m-%d}, load by others {load:.1f}: embedded cluster, all releases of "
        f"the sandbox, pods that take {READY_DELAY[0]:g}–{READY_DELAY[1]:g} s to get ready. Every run starts without "
        "releases and volumes; times are of whole commands. The longest path counts the nodes' own seconds, a node "
        "that waits for a place after the one that made it. The ratio to helm alone, which is the limit, compares "
        f"medians of {REPEATS} runs each."
    )
    text = f"# Figures of the deploy\n\n{textwrap.fill(words, 130)}\n\n{table(figures)}\n"
    (directory / "bench-deploy.md").write_text(text)


def main() -> int:
    """Measure on a fresh sandbox, print, write, and fail if a target was missed."""
    load = os.getloadavg()[0]
    if load > len(os.sched_getaffinity(0)):
        print(f"this machine is busy (load {load:.1f}): the figures suffer", file=sys.stderr)
    sandbox = Sandbox(f"bench-{os.getpid()}")
    try:
        sandbox.up(ready_delay=READY_DELAY, engines=False)
        with tempfile.TemporaryDirectory(prefix="isa-bench-") as directory:
            figures = measure(
                Bench(sandbox, Path(directory)),
                lambda line: print(line, file=sys.stderr, flush=True),
            )
    finally:
        sandbox.down(purge=True)
    write(figures, ROOT / "docs" / "results", load)
    print(table(figures))
    return 0 if all(figure.met for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
