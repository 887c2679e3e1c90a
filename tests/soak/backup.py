"""`make soak`: one fault at every call to the store of every component's backup, and kills at random moments.

After each: every set that is listed is whole, byte for byte; nothing is held in an engine; at the end a clean run
makes a set of each. The result is kept in docs/results/soak-backup.md.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from archive.backup.manifest import Capabilities, Manifest
from archive.backup.reader import Damaged, SetReader
from archive.object_store.store import Store
from cluster.lease import inquire
from components import SETS
from config.loading import ROOT
from errors import IsaError
from operations.backup.component import back_up
from operations.backup.prerequisites import check_store
from operations.environment.environment import Environment
from operations.environment.leases import backup_lease
from operations.runner.context import RunContext
from sandbox.cluster import Sandbox
from tests.bench.deploy import ISA
from tests.environments import changed
from tests.faults import Trouble, Troubled, busy, lost_reply, reset, slow
from tests.filled import filled

KILLS = 4
KILL_SEED = 1


TROUBLES: tuple[Trouble, ...] = (reset, lost_reply, busy, slow)
# A Neo4j Community backup stops the engine, for 15 s each.
FEWER: dict[str, tuple[Trouble, ...]] = {"neo4j": (reset, lost_reply)}


@dataclass
class HashingCounter:
    """What came of one component's faults.

    Attributes:
        component: its name.
        faults: injected.
        failed: runs that said so.
        made: runs that made a set all the same.
        broken: sets that were listed and not whole; must be none.
        held: runs behind which something was still noted as held in the engine; must be none.
        seconds: in all.
    """

    component: str
    faults: int = 0
    failed: int = 0
    made: int = 0
    broken: int = 0
    held: int = 0
    seconds: float = 0.0


def not_whole(store: Store, manifest: Manifest, identity: str) -> bool:
    """Whether a set that is listed lacks a byte."""
    try:
        SetReader(store, manifest, identity).read_rest()
    except Damaged:
        return True
    return False


def holds(environment: Environment, component: str) -> bool:
    """Whether something is noted that an engine holds for a backup: a slot, a snapshot, a paused replay."""
    note, _ = inquire(environment.kube, environment.settings, backup_lease(component))
    return note not in ("", "[]")


def sweep(
    environment: Environment, component: str, able: Capabilities, identity: str
) -> HashingCounter:
    """A fault at every position."""
    tally, started = HashingCounter(component), time.monotonic()
    counter = Troubled(environment.store._client)
    _run(environment, component, able, counter)
    checked = {one.id for one in environment.catalogue([component]).sets}
    for trouble in FEWER.get(component, TROUBLES):
        for position in range(len(counter.calls)):
            tally.faults += 1
            if _run(
                environment, component, able, Troubled(environment.store._client, position, trouble)
            ):
                tally.made += 1
            else:
                tally.failed += 1
            tally.held += holds(environment, component)
            catalogue = environment.catalogue([component])
            tally.broken += len(catalogue.broken)
            for one in catalogue.sets:
                if one.id not in checked:
                    checked.add(one.id)
                    tally.broken += not_whole(environment.store, one, identity)
        print(f"{component}: {trouble.__name__}: {tally}", file=sys.stderr, flush=True)
    tally.seconds = time.monotonic() - started
    return tally


def kills(
    sandbox: Sandbox, environment: Environment, component: str, identity: str
) -> HashingCounter:
    """The whole process is killed at random moments of its backup."""
    tally, started = HashingCounter(f"{component}, killed"), time.monotonic()
    chance = random.Random(KILL_SEED)
    longest = _seconds(sandbox, component)
    for _ in range(KILLS):
        tally.faults += 1
        running = _start(sandbox, component)
        time.sleep(1.5 + chance.random() * longest)
        running.kill()
        tally.made += running.wait() == 0
    tally.failed = tally.faults - tally.made
    for one in environment.catalogue([component]).sets:
        tally.broken += not_whole(environment.store, one, identity)
    if _start(sandbox, component).wait() != 0:
        tally.broken += 1  # a clean run must converge
    tally.held += holds(environment, component)
    tally.seconds = time.monotonic() - started
    print(tally, file=sys.stderr, flush=True)
    return tally


def _run(environment: Environment, component: str, able: Capabilities, client: Any) -> bool:
    troubled = changed(environment, store=Store(client, environment.store.bucket))
    try:
        back_up(troubled, RunContext("soak"), component, able, slot="", full=True)
    except IsaError:
        return False
    return True


def _start(sandbox: Sandbox, component: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [ISA, "backup", component, "--local"],
        env=sandbox.environ(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _seconds(sandbox: Sandbox, component: str) -> float:
    started = time.monotonic()
    _start(sandbox, component).wait()
    return max(1.0, time.monotonic() - started - 1.5)


def main() -> None:
    """Sweep, and write docs/results/soak-backup.md; or show only what is named."""
    with filled("soak") as platform:
        sandbox, environment, identity = platform.sandbox, platform.environment, platform.identity
        able = check_store(environment)
        chosen = [name for name in SETS if not sys.argv[1:] or name in sys.argv[1:]]
        tallies = [sweep(environment, component, able, identity) for component in chosen]
        tallies += [kills(sandbox, environment, c, identity) for c in chosen if c != "platform"]
    lines = [
        "| component | faults | runs that failed | sets made all the same | not whole | engines that hold | s |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {t.component} | {t.faults} | {t.failed} | {t.made} | {t.broken} | {t.held} | {t.seconds:.0f} |"
        for t in tallies
    ]
    words = (
        "One fault at every call to the store (reset, lost reply, 503, slow; of Neo4j's, which is stopped for each "
        "backup, the first two); then kills at random moments."
    )
    text = (
        f"# Backups under faults\n\n`make soak`, {datetime.now(UTC):%Y-%m-%d}. {words}\n\n"
        + "\n".join(lines)
        + "\n"
    )
    if not sys.argv[1:]:
        (ROOT / "docs/results/soak-backup.md").write_text(text)
    print(text)
    if any(tally.broken or tally.held for tally in tallies):
        sys.exit(1)


if __name__ == "__main__":
    main()
