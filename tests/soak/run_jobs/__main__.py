"""`make soak`: each run is a Job on real nodes, in the worker image: what it costs, and how it ends.

The result is kept in docs/results/soak-run-jobs.md. It needs root and apt; without, it ends with what is missing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime

from config.loading import ROOT
from errors import IsaError
from sandbox.machine import binaries
from sandbox.machine.paths import cache_dir
from sandbox.nodes.cluster import Nodes
from sandbox.nodes.images.build import WorkerImage
from tests.soak.run_jobs.cases import RunCases
from tests.soak.run_jobs.site import WORKER

NODES = 2


def main() -> None:
    """Run all cases; exits with 1 if one failed."""
    os.environ["PATH"] = os.pathsep.join([binaries.search_path(), os.environ["PATH"]])
    worker, archive = WorkerImage(ROOT), cache_dir() / "images" / "worker.tar"
    nodes = Nodes("soak-jobs", NODES)
    soak = RunCases(nodes=nodes)
    cases: list[tuple[str, Callable[[], object]]] = [
        ("the worker image is built", worker.build),
        ("it is written for the nodes", lambda: worker.export(archive, WORKER)),
        (f"{NODES} nodes get ready", nodes.up),
        ("they take the worker image", lambda: nodes.load([archive])),
        (
            "Prefect's server, its database and the dispatcher get ready",
            soak.server_and_dispatcher_get_ready,
        ),
        (
            "a run completes, and its logs are on the server",
            soak.run_completes_and_its_logs_are_on_the_server,
        ),
        (
            "a Job costs at most 10 s more than a process",
            soak.job_costs_little_more_than_a_process,
        ),
        ("a run outlives its dispatcher", soak.run_outlives_its_dispatcher),
        (
            "a run whose node is drained ends itself as Crashed",
            soak.drained_run_is_crashed_by_itself,
        ),
        (
            "a run whose node is lost is Crashed by the dispatcher",
            soak.lost_run_is_crashed_by_the_dispatcher,
        ),
    ]
    try:
        nodes.down()  # what an interrupted run left
        soak.chain(cases)
    finally:
        nodes.down()
    soak.write(
        "docs/results/soak-run-jobs.md",
        "# Runs as Jobs on real nodes",
        "",
        f"`make soak`, {datetime.now(UTC):%Y-%m-%d}. Two nodes with kubelet, containerd and runc. Server, dispatcher",
        "and runs are in the worker image, as deployments/prefect and deployments/worker have them, with production's",
        "settings.",
        "",
        *(f"- {one}" for one in soak.figures),
    )
    sys.exit(soak.failed)


if __name__ == "__main__":
    try:
        main()
    except IsaError as exc:
        sys.exit(str(exc))
