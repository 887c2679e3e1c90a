"""`make soak`: the worker image is built from its Containerfile, and does in it what a worker does.

The result is kept in docs/results/soak-worker-image.md. It needs root and apt; without, it ends with what is missing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from config.loading import ROOT
from errors import IsaError
from sandbox.binaries import TOOLS
from sandbox.nodes.build import WorkerImage

# A worker beside a server, both of this image: what its /health answers before, with and after the server.
CONNECTION = r"""
set -e
export PREFECT_API_URL=http://127.0.0.1:4200/api ISA_ENV=production PREFECT_WORKER_QUERY_SECONDS=1
health() { python3 - "$1" <<'END'
import sys, time, urllib.error, urllib.request
deadline, last = time.monotonic() + 240, None
while time.monotonic() < deadline:
    try:
        last = urllib.request.urlopen("http://127.0.0.1:8080/health", timeout=5).status
    except urllib.error.HTTPError as error:
        last = error.code
    except OSError as error:
        last = error
    if str(last) == sys.argv[1]:
        print(f"health {last}")
        sys.exit(0)
    time.sleep(0.5)
sys.exit(f"/health did not answer {sys.argv[1]} but {last}")
END
}
isa worker default --with-healthcheck > /tmp/worker.log 2>&1 &
worker=$!
trap 'kill $worker $server; tail -n 20 /tmp/worker.log >&2' EXIT
health 503
prefect server start > /tmp/server.log 2>&1 &
server=$!
until prefect work-pool create isa-platform --type process > /tmp/pool.log 2>&1; do
    kill -0 $server || { cat /tmp/server.log; exit 1; }
    sleep 1
done
health 200
kill $server
health 503
"""


class Missed(Exception):
    """The image does not do what it should."""


@dataclass
class Soak:
    """The cases, one after the other.

    Attributes:
        image: under test.
        rows: what was tried, verdict, seconds.
    """

    image: WorkerImage
    rows: list[tuple[str, str, float]] = field(default_factory=list)

    def case(self, words: str, action: Callable[[], object]) -> None:
        """Try one, and keep how it ended."""
        began = time.monotonic()
        try:
            action()
            verdict = "passed"
        except (IsaError, Missed) as exc:
            verdict = f"**failed**: {exc}"
        self.rows.append((words, verdict, time.monotonic() - began))
        print(f"{words}: {verdict} ({self.rows[-1][2]:.1f} s)", flush=True)

    def says(self, script: str, *expected: str) -> None:
        """A script in the image prints all of this."""
        printed = self.image.run(script)
        for words in expected:
            if words not in printed:
                raise Missed(f"{script} does not say {words!r}: {printed[-500:]}")


def write(rows: list[tuple[str, str, float]]) -> None:
    """Write docs/results/soak-worker-image.md."""
    lines = [
        "# The worker image",
        "",
        f"`make soak`, {datetime.now(UTC):%Y-%m-%d}. Built from `deployments/worker/Containerfile` on bases of",
        "Debian's packages, run as user 10001 on a read-only root file system.",
        "",
        "| case | verdict | s |",
        "|---|---|---|",
        *(f"| {words} | {verdict} | {seconds:.1f} |" for words, verdict, seconds in rows),
    ]
    (ROOT / "docs/results/soak-worker-image.md").write_text(
        "\n".join(lines) + "\n", encoding="utf-8"
    )


def main() -> None:
    """Run all cases; exits with 1 if one failed."""
    soak = Soak(WorkerImage(ROOT))
    soak.case("the image is built", soak.image.build)
    soak.case(
        "helm tells its whole version",
        lambda: soak.says("helm version --short", TOOLS["helm"].version),
    )
    programs = "for one in pg_basebackup pg_dump pg_dumpall pg_restore; do $one --version; done"
    soak.case(
        "PostgreSQL's programs are of version 17",
        lambda: soak.says(
            programs,
            *(f"{one} (PostgreSQL) 17" for one in ("pg_basebackup", "pg_dump", "pg_restore")),
        ),
    )
    soak.case("isa runs", lambda: soak.says("isa --help", "deploy", "verify", "worker"))
    soak.case(
        "nothing but the volumes is written to",
        lambda: soak.says(
            "touch /opt/isa-cloud/x /usr/x || echo refused; id -u; touch ~/x /tmp/x && echo written",
            "refused",
            "10001",
            "written",
        ),
    )
    soak.case(
        "a worker is healthy while its server answers, and only then",
        lambda: soak.says(CONNECTION, "health 503\nhealth 200\nhealth 503"),
    )
    write(soak.rows)
    sys.exit(any(verdict != "passed" for _, verdict, _ in soak.rows))


if __name__ == "__main__":
    try:
        main()
    except IsaError as exc:
        sys.exit(str(exc))
