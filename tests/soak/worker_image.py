"""`make soak`: the worker image is built from its Containerfile, and does in it what a worker does.

The result is kept in docs/results/soak-worker-image.md. It needs root and apt; without, it ends with what is missing.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime

from config.loading import ROOT
from errors import IsaError
from sandbox.machine.binaries import TOOLS
from sandbox.nodes.images.build import WorkerImage
from tests.soak.case_table import CaseTable, Missed

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


@dataclass
class Soak(CaseTable):
    """The cases.

    Attributes:
        image: under test.
    """

    image: WorkerImage = field(kw_only=True)

    def says(self, script: str, *expected: str) -> None:
        """A script in the image prints all of this."""
        printed = self.image.run(script)
        for words in expected:
            if words not in printed:
                raise Missed(f"{script} does not say {words!r}: {printed[-500:]}")


def main() -> None:
    """Run all cases; exits with 1 if one failed."""
    soak = Soak(image=WorkerImage(ROOT))
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
    soak.write(
        "docs/results/soak-worker-image.md",
        "# The worker image",
        "",
        f"`make soak`, {datetime.now(UTC):%Y-%m-%d}. Built from `deployments/worker/Containerfile` on bases of",
        "Debian's packages, run as user 10001 on a read-only root file system.",
    )
    sys.exit(soak.failed)


if __name__ == "__main__":
    try:
        main()
    except IsaError as exc:
        sys.exit(str(exc))
