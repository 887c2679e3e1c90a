"""`make soak`: every damage of every engine's set against a proof, and twenty proofs of good sets under load.

For each damage: does the proof fail, and which level sees it. The table goes to docs/results/damage-matrix.md.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from archive.backup.manifest import Manifest
from archive.evidence.verdicts import Evidence
from components.access import Access
from config.loading import ROOT
from operations.backup.component import back_up
from operations.backup.prerequisites import check_store, read_worker_key
from operations.environment.environment import Environment
from operations.runner.context import RunContext
from operations.verify.proof import prove
from sandbox.cluster import Sandbox
from tests.damage import STORED, Forger, largest
from tests.filled import filled
from tests.losses import LOSSES

GOOD_PROOFS = 20
# Damages of the inside, before it was sealed: what the engine itself, or its tool, must refuse.
REWRITTEN = "manifest rewritten"
INSIDE = "garbled before sealing"
LEFT_OUT = "artefact left out"


@dataclass
class Matrix:
    """What came of all damages.

    Attributes:
        cells: damage and engine → level that saw it, or what else came of it.
        wrong: sentences about what should not be.
        good: proofs of good sets, and those of them that did not pass.
        seconds: of the whole.
    """

    cells: dict[tuple[str, str], str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    good: list[int] = field(default_factory=lambda: [0, 0])
    seconds: float = 0.0


class Bench:
    """Takes and proves sets of a platform."""

    def __init__(self, environment: Environment, identity: str) -> None:
        self.environment, self.identity = environment, identity
        self.forger = Forger(environment.store, identity, read_worker_key(environment))
        self.able = check_store(environment)

    def take(self, component: str) -> Manifest:
        """Take a set."""
        back_up(
            self.environment,
            RunContext("soak"),
            component,
            self.able,
            slot="",
        )
        found = self.environment.catalogue([component]).latest(component)
        assert found is not None
        return found

    def prove(self, manifest: Manifest) -> Evidence:
        """Prove one."""
        return prove(self.environment, RunContext("soak"), self.identity, manifest.id)


def damages(bench: Bench, component: str, matrix: Matrix) -> None:
    """Every damage of one engine's set."""
    good = bench.take(component)
    name = largest(good)
    makers: dict[str, tuple[Callable[[], Manifest], tuple[str, ...]]] = {
        damage: (lambda make=make: make(bench.forger, good, name), levels)  # type: ignore[misc]
        for damage, (make, levels) in STORED.items()
    }
    makers[REWRITTEN] = (lambda: bench.forger.rewritten(good, name), ("L4",))
    makers[INSIDE] = (lambda: bench.forger.garbled(good, name), ("L2", "L3", "L4"))
    makers[LEFT_OUT] = (lambda: bench.forger.left_out(good, name), ("L1", "L4"))
    for damage, (make, levels) in makers.items():
        _one(bench, component, damage, make(), levels, matrix)
    what, lose = LOSSES[component]
    with Access(bench.environment.settings, bench.environment.kube, 30) as access:
        put_back = lose(access)
        promised = bench.take(component)
        put_back()
        taken = bench.take(component)
    made = bench.forger.promising(taken, promised)
    _one(bench, component, "one thing not backed up", made, ("L4",), matrix, what)


def _one(
    bench: Bench, component: str, damage: str, made: Manifest, levels: tuple[str, ...], matrix: Matrix, what: str = "",
) -> None:  # fmt: skip
    evidence = bench.prove(made)
    bench.forger.remove(made)
    told = f"{evidence.failed_at} ({what})" if what else evidence.failed_at or evidence.verdict
    matrix.cells[damage, component] = told
    if evidence.verdict != "fail" or evidence.failed_at not in levels:
        matrix.wrong.append(f"{component}, {damage}: {evidence.sentence}")
    print(f"{component}, {damage}: {evidence.sentence}", file=sys.stderr, flush=True)


def false_alarms(bench: Bench, matrix: Matrix) -> None:
    """Good sets, proven one after another while both cores are busy."""
    names = list(LOSSES)
    with _load():
        for number in range(GOOD_PROOFS):
            component = names[number % len(names)]
            evidence = bench.prove(bench.take(component))
            matrix.good[0] += 1
            if evidence.verdict != "pass":
                matrix.good[1] += 1
                matrix.wrong.append(f"{component}, good: {evidence.sentence}")


@contextmanager
def _load() -> Iterator[None]:
    code = "while True: sum(range(10_000))"
    busy = [subprocess.Popen([sys.executable, "-c", code]) for _ in os.sched_getaffinity(0)]
    try:
        yield
    finally:
        for one in busy:
            one.kill()
            one.wait()


def report(matrix: Matrix, components: list[str]) -> str:
    """The matrix as people read it."""
    rows = list(dict.fromkeys(damage for damage, _ in matrix.cells))
    lines = [
        "# Damaged sets, and which level of a proof sees it",
        "",
        f"`make soak`, {datetime.now(UTC):%Y-%m-%d}, {matrix.seconds / 60:.0f} min.",
        "Every cell is a set that was damaged on purpose and proven: L0 manifest and objects, L1 bytes,",
        "L2 the engine's own tool, L3 the engine, L4 comparison with the fingerprint.",
        "",
        f"| damage | {' | '.join(components)} |",
        f"|---|{'---|' * len(components)}",
        *(
            f"| {damage} | {' | '.join(matrix.cells.get((damage, c), '') for c in components)} |"
            for damage in rows
        ),
        "",
        f"Good sets proven while both cores were busy: {matrix.good[0]}, of which {matrix.good[1]} did not pass.",
    ]
    return "\n".join([*lines, *(f"\n**Not as it should be:** {one}" for one in matrix.wrong), ""])


def main() -> None:
    """Sweep, and write docs/results/damage-matrix.md."""
    started = time.monotonic()
    with filled("proofs") as platform:
        sandbox: Sandbox = platform.sandbox
        assert sandbox.has_engines
        bench, matrix = Bench(platform.environment, platform.identity), Matrix()
        chosen = [name for name in LOSSES if not sys.argv[1:] or name in sys.argv[1:]]
        for component in chosen:
            damages(bench, component, matrix)
        false_alarms(bench, matrix)
    matrix.seconds = time.monotonic() - started
    text = report(matrix, chosen)
    (ROOT / "docs/results/damage-matrix.md").write_text(text)
    print(text)
    if matrix.wrong:
        sys.exit(1)


if __name__ == "__main__":
    main()
