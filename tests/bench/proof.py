"""Measures proofs and recovery: PostgreSQL's proof against fetching and loading alone; part of `make bench`."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from archive.backup.reader import SetReader
from archive.evidence.verdicts import Evidence
from components.access import Access
from operations.backup.component import back_up
from operations.backup.prerequisites import check_store
from operations.environment.environment import Environment
from operations.runner.context import RunContext
from operations.verify.proof import prove
from operations.verify.proofs import latest
from sandbox.demo import drill
from sandbox.machine import postgres
from sandbox.machine.processes import Daemon
from tests.bench.deploy import ISA, Figure, publish, table
from tests.bench.filling import fill_postgresql
from tests.filled import Filled, filled

PORT, PASSWORD = 5999, "bench"


def all_engines(platform: Filled) -> list[Figure]:
    """Every set of the sample data, and the disaster drill with them."""
    environ = platform.sandbox.environ()
    subprocess.run([ISA, "backup", "--local"], env=environ, check=False, capture_output=True)
    began = time.monotonic()
    subprocess.run([ISA, "verify", "--local"], env=environ, check=True, capture_output=True)
    seconds = time.monotonic() - began
    catalogue = platform.environment.catalogue()
    proven = sum(one in catalogue.proven for one in latest(catalogue, catalogue_names(platform)))
    return [
        Figure("proof of all sets", f"{proven} pass", f"{seconds:.0f} s", "≤ 120 s", seconds <= 120)
    ]


def catalogue_names(platform: Filled) -> list[str]:
    """Components that have sets."""
    return sorted({one.component for one in platform.environment.catalogue().sets})


def disaster(platform: Filled) -> Figure:
    """Everything lost, everything back."""
    done = drill.run(platform.sandbox, ISA, platform.sandbox.environ(), "--local")
    words = ", ".join(f"{name} {seconds:.0f}" for name, seconds in done.stages.items())
    good = all(one["outcome"] == "restored" for one in done.restores)
    met = good and done.seconds <= 300
    return Figure("disaster drill", words, f"{done.seconds:.0f} s", "≤ 300 s", met)


def postgresql(platform: Filled) -> Figure:
    """2 GiB: the proof against fetching the set, and the engine's own loading of it, each alone."""
    environment = platform.environment
    with Access(environment.settings, environment.kube, 30) as access:
        fill_postgresql(access)
    able = check_store(environment)
    back_up(environment, RunContext("bench"), "postgresql", able, slot="")
    manifest = environment.catalogue(["postgresql"]).latest("postgresql")
    assert manifest is not None
    began = time.monotonic()
    SetReader(environment.store, manifest, platform.identity).read_rest()
    fetch = time.monotonic() - began
    load = _load_alone(environment, platform.identity)
    evidence: Evidence = prove(environment, RunContext("bench"), platform.identity, manifest.id)
    share = evidence.seconds / (fetch + load)
    stages = ", ".join(f"{name} {seconds:.0f}" for name, seconds in evidence.stages.items())
    size = manifest.plain_size / (1 << 30)
    measured = f"{size:.1f} GiB: fetch {fetch:.0f} s, load {load:.0f} s; proof: {stages}"
    measured += f"; {evidence.verdict}: {evidence.reason}" if evidence.verdict != "pass" else ""
    met = evidence.verdict == "pass" and share <= 1.5
    return Figure(
        "L4 proof of PostgreSQL", measured, f"{share:.2f} × (fetch + load)", "≤ 1.50", met
    )


def _load_alone(environment: Environment, identity: str) -> float:
    """Unpacking and recovering the files, and filling an empty server from the dumps, from a disk that has them."""
    manifest = environment.catalogue(["postgresql"]).latest("postgresql")
    assert manifest is not None
    reader = SetReader(environment.store, manifest, identity)
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        tar = reader.save("base.tar", work / "base.tar")
        dump = reader.save("databases/isa.dump", work / "isa.dump")
        began = time.monotonic()
        (work / "files").mkdir()
        subprocess.run(["tar", "-xf", tar, "-C", work / "files"], check=True)
        (work / "empty").mkdir()
        postgres.initialise(work / "empty" / "data", "postgres", PASSWORD)
        server = Daemon("server", work)
        options = ("listen_addresses=127.0.0.1", f"port={PORT}", "unix_socket_directories=", "fsync=off")  # fmt: skip
        words = [word for option in options for word in ("-c", option)]
        program = str(postgres.programs() / "postgres")
        server.start(postgres.unprivileged(program, "-D", str(work / "empty" / "data"), *words))
        try:
            _restore(dump)
        finally:
            server.stop()
        return time.monotonic() - began


def _restore(dump: Path) -> None:
    environ = {**os.environ, "PGPASSWORD": PASSWORD}
    where = ("-h", "127.0.0.1", "-p", str(PORT), "-U", "postgres", "-d", "postgres")
    programs = postgres.programs()
    while subprocess.run([programs / "pg_isready", "-q", *where], check=False).returncode:
        time.sleep(0.1)
    words = ("--no-owner", "--no-acl", "--create", "--jobs=2", *where, str(dump))
    subprocess.run([programs / "pg_restore", *words], env=environ, check=True, capture_output=True)


def main() -> None:
    """Measure, and write docs/results/bench-proof.md."""
    with filled("bench") as platform:
        figures = [*all_engines(platform), disaster(platform)]
    with filled("bench") as platform:
        figures.append(postgresql(platform))
    head = f"# Proofs and recovery, measured\n\n`make bench`, {datetime.now(UTC):%Y-%m-%d}.\n\n"
    publish("bench-proof.md", head + table(figures), figures)


if __name__ == "__main__":
    main()
