"""`make soak`: the stream of WAL, while primaries lose their volumes, standbys are promoted and streams are killed.

A client commits 50 rows a second and notes each acknowledged one in a journal beside the servers. Each round kills the
primary and removes its volume at a random moment. What the bucket holds is recovered from a base backup, and compared
with the journal. Then the standby takes over, and a new standby is made. In each round the stream is killed, too, and
every other time its spool is removed with it. The result is kept in docs/results/soak-wal.md.

    python -m tests.soak.wal [ROUNDS [SEED]]
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import psycopg
import pyrage
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from archive.signing import public_half
from archive.wal.bucket import WalReader, list_wal
from archive.wal.coverage import Coverage
from archive.wal.names import lsn_number
from components.postgresql.client import SUPERUSER
from config.sections.backups import BackupSigner
from sandbox.machine import binaries, postgres
from sandbox.machine.processes import Daemon
from sandbox.site import object_store
from tests.integration.postgresql.conftest import PASSWORD, Pair, Server, free_port
from tests.soak.case_table import CaseTable, expect
from tests.soak.wal_process import opened

PAGE = "docs/results/soak-wal.md"
ROUNDS, PAUSE_SECONDS = 20, 1 / 50
EARLIEST, LATEST = 2.0, 6.0  # seconds from a round's start to the kill
LOST_SECONDS, MEDIAN_SECONDS, RSS_MIB = 5.0, 1.0, 100
SEGMENT = 16 << 20
OPTIONS = ("max_slot_wal_keep_size=1GB",)
TICKS = os.sysconf("SC_CLK_TCK")


# ---------------------------------------------------------------------- the client
class Client:
    """Commits rows and notes those that were acknowledged: number → wall clock of the acknowledgement."""

    def __init__(self, pair: Pair) -> None:
        self._pair, self._end = pair, threading.Event()
        self.journal: dict[int, float] = {}
        self.number = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.is_set():
            with suppress(psycopg.Error), self._pair.primary.connect() as connection:
                while not self._end.wait(PAUSE_SECONDS):
                    self.number += 1
                    connection.execute("INSERT INTO journal VALUES (%s)", [self.number])
                    self.journal[self.number] = time.time()
            self._end.wait(0.1)


@dataclass
class Soak(CaseTable):
    """The rounds.

    Attributes:
        directory: of everything.
        random: chooses the moments.
    """

    directory: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="isa-soak-wal-")))
    random: random.Random = field(default_factory=random.Random)
    lost: list[float] = field(default_factory=list)
    kills: int = 0
    memory: dict[str, int] = field(default_factory=lambda: {"VmHWM": 0, "RssAnon": 0})
    cpu: list[float] = field(default_factory=list)

    # ------------------------------------------------------------------ what there is
    def start(self) -> None:
        """Bring up the store, two servers and the stream."""
        self.directory.chmod(0o755)
        program = binaries.ensure(["minio"])["minio"]
        described = object_store.start(self.directory / "store", free_port(), free_port(), program)
        self.store = vars(described)
        self.bucket = opened(self.store)
        self.identity = pyrage.x25519.Identity.generate()
        self.signing = Ed25519PrivateKey.generate()
        self.serial = 0
        primary = self._server()
        postgres.initialise(primary.data, SUPERUSER, PASSWORD)
        with (primary.data / "pg_hba.conf").open("a") as rules:
            rules.write(
                "host all all 127.0.0.0/8 scram-sha-256\nhost replication all 127.0.0.0/8 scram-sha-256\n"
            )
        primary.start(*OPTIONS)
        primary.run("CREATE TABLE journal (number bigint PRIMARY KEY)")
        self.pair = Pair(primary, self._standby(primary), self.directory)
        self._plan()
        self._start_stream()
        self.client = Client(self.pair)

    def stop(self) -> None:
        """End everything."""
        self.client.end()
        self._kill_stream()
        for server in (self.pair.primary, self.pair.standby):
            server.stop()
        Daemon("object-store", self.directory / "store" / "run").stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _server(self) -> Server:
        self.serial += 1
        name = f"node-{self.serial}"
        return Server(name, self.directory / name, free_port())

    def _standby(self, primary: Server) -> Server:
        made = self._server()
        self._base_backup(primary, made.data, "-R", "-X", "stream")
        made.start(*OPTIONS)
        return made

    def _base_backup(self, source: Server, directory: Path, *words: str) -> None:
        program = str(postgres.programs() / "pg_basebackup")
        where = f"host=127.0.0.1 port={source.port} user={SUPERUSER}"
        argv = postgres.unprivileged(
            program, "-d", where, "-D", str(directory), "-c", "fast", *words
        )
        subprocess.run(argv, env={**os.environ, "PGPASSWORD": PASSWORD}, check=True)

    # ------------------------------------------------------------------ the stream
    def _plan(self) -> None:
        nodes = [(one.member, one.port) for one in (self.pair.primary, self.pair.standby)]
        pem = self.signing.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        document = {
            "store": self.store, "nodes": nodes, "spool": str(self.directory / "spool"),
            "signing": pem.decode(), "recipient": str(self.identity.to_public()),
        }  # fmt: skip
        fresh = self.directory / "plan.new"
        fresh.write_text(json.dumps(document))
        fresh.replace(self.directory / "plan.json")

    def _start_stream(self) -> None:
        with (self.directory / "stream.log").open("ab") as log:
            self.stream = subprocess.Popen(
                [sys.executable, "-m", "tests.soak.wal_process", str(self.directory / "plan.json")],
                stdout=log, stderr=log, env={**os.environ, "MALLOC_ARENA_MAX": "2"},  # as wal.yaml
            )  # fmt: skip
        self.started = time.monotonic()

    def _kill_stream(self) -> None:
        self._measure()
        self.stream.send_signal(signal.SIGKILL)
        self.stream.wait()
        self.kills += 1

    def _measure(self) -> None:
        """Note memory and processor time of the stream, with its pg_receivewal."""
        with suppress(OSError):
            process = Path(f"/proc/{self.stream.pid}")
            status = (process / "status").read_text()
            for name, most in self.memory.items():
                self.memory[name] = max(most, int(status.split(f"{name}:")[1].split()[0]) >> 10)
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            seconds = sum(int(one) for one in fields[11:15]) / TICKS
            self.cpu.append(100 * seconds / (time.monotonic() - self.started))

    # ------------------------------------------------------------------ a round
    def round(self) -> None:
        """Kill the stream, then the primary with its volume; recover from the bucket; let the standby take over."""
        primary = self.pair.primary
        base = self.directory / "base"
        self._stores(primary)
        self._base_backup(primary, base, "-X", "fetch")
        time.sleep(self.random.uniform(0, 1))
        self._kill_stream()
        if self.random.random() < 0.5:
            shutil.rmtree(self.directory / "spool", ignore_errors=True)
        self._start_stream()
        self._stores(primary)
        time.sleep(self.random.uniform(EARLIEST, LATEST))
        killed = self._kill(primary)
        self.lost.append(self._lost(base, killed))
        self._take_over()

    def _kill(self, primary: Server) -> float:
        """Kill the primary with all its processes, and remove its volume; returns when."""
        assert primary.process is not None
        group = [primary.process.pid, *_children(primary.process.pid)]
        killed = time.time()
        for pid in group:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        primary.process.wait()
        primary.process = None
        shutil.rmtree(primary.data)
        return killed

    def _lost(self, base: Path, killed: float) -> float:
        """Recover the bucket's WAL on a base backup; seconds of acknowledged commits that are not in it."""
        acknowledged = {n: at for n, at in self.client.journal.items() if at <= killed}
        found, system = self._listing()
        text = (base / "backup_manifest").read_text()
        end = lsn_number(text.rpartition('"End-LSN": "')[2].partition('"')[0])
        timeline = int(text.rpartition('"Timeline": ')[2].partition(",")[0])
        line = found.of(system).from_base(timeline, end, SEGMENT)
        wal = self.directory / "wal"
        wal.mkdir()
        WalReader(self.bucket, str(self.identity)).save(
            line, found.histories.get(system, ()), SEGMENT, wal
        )
        with self._recovered(base, wal) as server:
            there = server.ask("SELECT array_agg(number) FROM journal")
        shutil.rmtree(wal)
        shutil.rmtree(base)
        missing = sorted(acknowledged.keys() - set(there))
        expect(
            not missing or missing[0] > max(set(there) & acknowledged.keys()),
            f"commits are missing before recovered ones: {missing[:5]}",
        )
        return killed - min((acknowledged[n] for n in missing), default=killed)

    @contextmanager
    def _recovered(self, base: Path, wal: Path) -> Iterator[Server]:
        (base / "recovery.signal").touch()
        server = Server("recovered", base, free_port())
        (base / "standby.signal").unlink(missing_ok=True)
        server.start(
            f"restore_command=cp {wal}/%f %p", "recovery_target_action=promote", "primary_conninfo=", *OPTIONS
        )  # fmt: skip
        try:
            self.until(lambda: not server.ask("SELECT pg_is_in_recovery()"), "recovery ends")
            yield server
        finally:
            server.stop()

    def _take_over(self) -> None:
        """Promote the standby and make a new one."""
        old = self.pair.standby
        old.run("SELECT pg_promote()")
        self.pair.primary = old
        self.pair.standby = self._standby(old)
        self._plan()
        self._stores(old)

    def _stores(self, primary: Server) -> None:
        """Wait until what is written now is stored."""
        lsn = lsn_number(str(primary.ask("SELECT pg_current_wal_flush_lsn()::text")))

        def stored() -> bool:
            found, system = self._listing()
            return bool(system) and max(one.end for one in found.objects[system]) >= lsn

        self.until(stored, "WAL is stored", self._log)

    def _log(self) -> str:
        return "\n".join((self.directory / "stream.log").read_text().splitlines()[-5:])

    def _listing(self) -> tuple[Any, str]:
        signers = (BackupSigner(key=public_half(self.signing)),)
        found = list_wal(self.bucket, "soak", signers)
        expect(not found.refused, f"refused: {found.refused}")
        return found, next(iter(found.objects), "")

    # ------------------------------------------------------------------ the end
    def coverage(self) -> Coverage:
        """What is covered at the end."""
        found, system = self._listing()
        return cast(Coverage, found.of(system).coverage)

    def judge(self) -> None:
        """Compare the figures with their targets."""
        found = self.coverage()
        expect(found.complete, "; ".join(gap.words for gap in found.gaps) or str(found.forks))
        expect(max(self.lost) <= LOST_SECONDS, f"{max(self.lost):.2f} s of commits were lost")
        median = statistics.median(self.lost)
        expect(median <= MEDIAN_SECONDS, f"the median of lost seconds is {median:.2f}")

    def page(self, seed: int) -> list[str]:
        """The lines before the table."""
        found = self.coverage()
        listed = ", ".join(f"{one:.2f}" for one in sorted(self.lost))
        return [
            "# The WAL stream under faults",
            "",
            f"`make soak`, {datetime.now(UTC):%Y-%m-%d}, seed {seed}. A client commits 50 rows a second. Each round",
            "kills the stream (every other time with its spool), then the primary with its volume, recovers what the",
            "bucket holds, and promotes the standby.",
            "",
            f"- {len(self.lost)} primaries killed with their volume: acknowledged commits lost of {listed} s; median "
            f"{statistics.median(self.lost):.2f} s (target {MEDIAN_SECONDS:.0f} s), "
            f"most {max(self.lost):.2f} s (target {LOST_SECONDS:.0f} s). No commit is missing before a recovered one",
            f"- {len(self.lost)} failovers under load: {len(found.gaps)} gaps, {len(found.lines)} unbroken line, "
            f"{sum(len(line.objects) for line in found.lines)} objects",
            f"- {self.kills} streams killed: 0 gaps",
            f"- the stream's memory: at most {self.memory['VmHWM']} MiB with the pages of its programs, "
            f"{self.memory['RssAnon']} MiB of its own (target {RSS_MIB}); its processor: "
            f"{statistics.median(self.cpu):.0f} % of a core, with its start",
        ]


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def main() -> None:
    """Run the rounds."""
    rounds = int(sys.argv[1]) if sys.argv[1:] else ROUNDS
    seed = int(sys.argv[2]) if sys.argv[2:] else random.randrange(1 << 30)
    soak = Soak(random=random.Random(seed))
    soak.start()
    try:
        for number in range(1, rounds + 1):
            soak.case(f"round {number}", soak.round)
            if soak.failed:
                print(soak._log())
                break
        else:
            soak.case("nothing but seconds was lost, and no gap", soak.judge)
            soak.write(PAGE, *soak.page(seed))
    finally:
        soak.stop()
    sys.exit(soak.failed)


if __name__ == "__main__":
    main()
