"""`make soak`: what only real nodes can show: containers, probes, limits, policies, engines in them, and a clean end.

Each group has a cluster of its own; `python -m tests.soak.nodes GROUP…` runs some. Results are kept in
docs/results/soak-nodes-GROUP.md. It needs root; without, it ends with what is missing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from datetime import UTC, datetime

from errors import IsaError
from sandbox.nodes.cluster import Nodes
from tests.soak.nodes.cases import NodeCases
from tests.soak.nodes.kubelet import KubeletCases
from tests.soak.nodes.nats import NatsCases
from tests.soak.nodes.policies import PolicyCases

GROUPS: dict[str, tuple[str, int, Callable[..., NodeCases]]] = {
    "kubelet": ("Real nodes: kubelet and containers", 3, KubeletCases),
    "policies": ("Real nodes: network policies", 3, PolicyCases),
    "nats": ("Real nodes: NATS", 3, NatsCases),
}


def run(group: str) -> bool:
    """Run one group; returns whether a case failed."""
    title, count, kind = GROUPS[group]
    nodes = Nodes("soak", count)
    cases = kind(nodes=nodes)
    try:
        nodes.down()  # what an interrupted run left
        cases.case(f"{count} nodes get ready, and DNS on them", nodes.up)
        cases.run()
    finally:
        cases.case("nothing is left behind", cases.nothing_is_left)
    cases.write(
        f"docs/results/soak-nodes-{group}.md",
        f"# {title}",
        "",
        f"`make soak`, {datetime.now(UTC):%Y-%m-%d}. {count} nodes with kubelet, containerd and runc, each in",
        "namespaces of its own.",
    )
    return cases.failed


def main() -> None:
    """Run groups; exits with 1 if a case failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.nodes", description=__doc__)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=", ".join(GROUPS))
    groups = parser.parse_args().groups or [*GROUPS]
    if unknown := {*groups} - {*GROUPS}:
        parser.error(f"no group: {', '.join(sorted(unknown))}")
    failed = [group for group in groups if run(group)]
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    try:
        main()
    except IsaError as exc:
        sys.exit(str(exc))
