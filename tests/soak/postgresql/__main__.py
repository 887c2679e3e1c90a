"""`make soak`: PostgreSQL under repmgr behind Pgpool on real nodes, with production's values: failover, split, rejoin.

Clients write through Pgpool all the time. After each fault: how long they could not write, and which of the writes that
they got acknowledged are lost. The result is kept in docs/results/soak-postgresql.md. It needs root.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime

from errors import IsaError
from sandbox.machine import binaries
from sandbox.nodes.cluster import Nodes
from tests.soak.postgresql.cases import Faults

NODES = 3


def main() -> None:
    """Run all cases; exits with 1 if one failed."""
    os.environ["PATH"] = os.pathsep.join([binaries.search_path(), os.environ["PATH"]])
    nodes = Nodes("soak-postgresql", NODES)
    soak = Faults(nodes=nodes)
    cases: list[tuple[str, Callable[[], None]]] = [
        (f"{NODES} nodes get ready", nodes.up),
        ("three nodes and two Pgpools get ready", soak.install),
        ("the gate is green", soak.gate_is_green),
        ("a client writes through Pgpool", soak.client_writes),
        ("a killed primary is replaced, and Pgpool follows", soak.killed_primary_is_replaced),
        ("it comes back as a standby", soak.killed_primary_comes_back_as_a_standby),
        ("a detached node is named with its cure", soak.detached_node_is_named_with_its_cure),
        (
            "a short interruption promotes nobody, and nothing is lost",
            soak.short_interruption_promotes_nobody,
        ),
        (
            "a primary that is cut off is replaced, stops itself and comes back",
            soak.cut_off_primary_is_replaced,
        ),
        (
            "a primary that is cut off for a minute is a second one; both Pgpools leave it",
            soak.primary_cut_off_for_long_comes_back_as_a_second_one,
        ),
        (
            "with one synchronous standby nothing is lost",
            soak.one_synchronous_standby_loses_nothing,
        ),
        ("after each fault, the first write came within 15 s", soak.clients_wrote_again_in_time),
    ]
    try:
        nodes.down()  # what an interrupted run left
        soak.chain(cases)
    finally:
        nodes.down()
    loads = soak.loads or [*os.getloadavg()]
    soak.write(
        "docs/results/soak-postgresql.md",
        "# PostgreSQL under repmgr behind Pgpool",
        "",
        f"`make soak`, {datetime.now(UTC):%Y-%m-%d}. Three real nodes, production's values, PostgreSQL 17,",
        "repmgr 5.5, Pgpool 4.6. Each write is a connection of its own. The client *outside* is on a node that",
        "stays connected and writes through Pgpool's Service. *inside* is on the primary's node and writes",
        f"through the Pgpool on it. The load of the machine was {min(loads):.0f} to {max(loads):.0f} on",
        f"{os.cpu_count()} processors.",
        "",
        *(f"- {one}" for one in soak.figures),
    )
    sys.exit(soak.failed)


if __name__ == "__main__":
    try:
        main()
    except IsaError as exc:
        sys.exit(str(exc))
