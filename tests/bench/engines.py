"""Measures the gates on real engines: nine green nodes, memory, a round, a failover; part of `make bench`."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from config.loading import ROOT, load
from operations.environment.environment import Environment
from operations.health import gate
from sandbox.agent.pod import HOLD
from sandbox.cluster import Sandbox
from sandbox.machine import processes
from tests.bench.deploy import ISA, Figure, table

ROUNDS = 5
PRIMARY_CHECK = "one primary"


def measure(sandbox: Sandbox) -> list[Figure]:
    """Deploy onto engines and ask."""
    environ = sandbox.environ()
    started = time.monotonic()
    subprocess.run([ISA, "deploy", "--local"], env=environ, check=True, capture_output=True)
    deploy = time.monotonic() - started
    subprocess.run(
        [ISA, "sandbox", "seed", "--name", sandbox.name],
        env=environ,
        check=True,
        capture_output=True,
    )
    os.environ["PATH"] = environ["PATH"]
    platform = Environment(load("sandbox", environ=sandbox.settings_environ())).open_releases()
    figures = [
        Figure(
            "nine nodes green on engines", "isa deploy", f"{deploy:.0f} s", "≤ 90 s", deploy <= 90
        ),
        _memory(sandbox),
    ]
    figures += [_round(platform, name) for name in platform.releases.components()]
    return [*figures, *_failover(sandbox, platform)]


def _memory(sandbox: Sandbox) -> Figure:
    page = os.sysconf("SC_PAGE_SIZE")
    resident = [
        int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page
        for pid in processes.running_below(sandbox.directory)
    ]
    total = sum(resident) / (1 << 30)
    return Figure(
        "memory with sample data",
        f"{len(resident)} processes",
        f"{total:.1f} GiB",
        "≤ 6 GiB",
        total <= 6,
    )


def _round(platform: Environment, component: str) -> Figure:
    seconds = []
    for _ in range(ROUNDS):
        started = time.monotonic()
        found = gate.check(platform, component)
        seconds.append(time.monotonic() - started)
        assert found.state == gate.READY, found
    middle = statistics.median(seconds)
    terms = f"median of {ROUNDS}, {len(found.checks)} checks"
    return Figure(f"gate round, {component}", terms, f"{middle:.2f} s", "≤ 5 s", middle <= 5)


def _failover(sandbox: Sandbox, platform: Environment) -> list[Figure]:
    """Kill the primary, keep it down, and ask until another serves."""
    found = gate.check(platform, "postgresql")
    primary = next(role.member for role in found.roles if role.role == "primary")
    namespace = platform.settings.kubernetes.namespace
    pod = platform.kube.get("v1", "Pod", primary, namespace)
    assert pod is not None
    platform.kube.patch(pod, {"metadata": {"annotations": {HOLD: "true"}}})
    home = sandbox.engines / "pods" / f"{namespace}_{primary}_{pod['metadata']['uid'][:8]}"
    killed = time.monotonic()
    for pid in processes.running_below(home):
        os.kill(pid, signal.SIGKILL)
    red = _until(platform, False) - killed
    green = _until(platform, True) - killed
    return [
        Figure("PostgreSQL's primary killed: red", "kill -9", f"{red:.1f} s", "≤ 5 s", red <= 5),
        Figure(
            "PostgreSQL's primary killed: serving again",
            "Patroni, ttl 20 s",
            f"{green:.1f} s",
            "≤ 30 s",
            green <= 30,
        ),
    ]


def _until(platform: Environment, serving: bool) -> float:
    while True:
        checks = gate.check(platform, "postgresql").checks
        if all(check.ok for check in checks if check.critical) is serving:
            return time.monotonic()


def main() -> int:
    """Measure on a fresh sandbox, print, write, and fail if a target was missed."""
    load_before = os.getloadavg()[0]
    sandbox = Sandbox(f"bench-{os.getpid()}")
    try:
        sandbox.up(engines=True)
        figures = measure(sandbox)
    finally:
        sandbox.down(purge=True)
    words = (
        f"`make bench` on {len(os.sched_getaffinity(0))} cores, {datetime.now(UTC):%Y-%m-%d}, load by others "
        f"{load_before:.1f}, three releases at once. The time of a failover is Patroni's, not repmgr's: "
        "it measures the gate."
    )
    (ROOT / "docs" / "results" / "bench-engines.md").write_text(
        f"# Figures of the gates\n\n{words}\n\n{table(figures)}\n"
    )
    print(table(figures))
    return 0 if all(figure.met for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
