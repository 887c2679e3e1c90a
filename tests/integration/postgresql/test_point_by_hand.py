"""docs/restore-by-hand.md recovers to a time with stock tools: its commands are run as they stand.

Its `curl` reads a directory here; tests/integration/backup/test_restore_by_hand.py has an object store.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psycopg

from sandbox.machine import binaries, postgres

from ..backup.hand import SECTIONS
from .conftest import PASSWORD, free_port
from .test_point import MARKS, Written, written
from .test_wal_stream import KEY

__all__ = ["written"]  # the fixture

TITLE = "PostgreSQL, all databases to a point in time"
PROGRAMS = ("pg_ctl", "pg_isready", "pg_verifybackup", "pg_waldump")
# GetObject and ListObjectsV2, two keys a page
CURL = """#!{python} -I
import sys
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
place, url = Path({place!r}), urlsplit(sys.argv[-1])
asked = parse_qs(url.query)
if "list-type" not in asked:
    sys.stdout.buffer.write((place / unquote(url.path).removeprefix("/bucket/")).read_bytes())
else:
    keys = sorted(str(p.relative_to(place)) for p in place.rglob("*") if p.is_file())
    keys = [k for k in keys if k.startswith(asked["prefix"][0])]
    first = int(asked.get("continuation-token", ["0"])[0])
    print("".join(f"<Key>{{k}}</Key>" for k in keys[first : first + 2]))
    if keys[first + 2 :]:
        print(f"<NextContinuationToken>{{first + 2}}</NextContinuationToken>")
"""


def test_the_document_recovers_to_a_time(written: Written, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    tools, place, work = (tmp_path / name for name in ("tools", "bucket", "work"))
    for directory in (tools, place, work):
        directory.mkdir()
    for key, body in written.pair.bucket.objects.items():
        (place / key).parent.mkdir(parents=True, exist_ok=True)
        (place / key).write_bytes(body)
    manifest = written.reader.manifest
    (place / manifest.own_key).write_bytes(manifest.signed(KEY))
    (tools / "age").symlink_to(binaries.ensure(["age"])["age"])
    for name in PROGRAMS:
        (tools / name).symlink_to(postgres.programs() / name)
    (tools / "curl").write_text(CURL.format(python=sys.executable, place=str(place)))
    (tools / "curl").chmod(0o755)
    (work / "key").write_text(f"{written.pair.key}\n")
    port, at = free_port(), written.times["b"]
    environ = {
        "PATH": f"{tools}:{os.environ['PATH']}", "HOME": str(work), "LC_ALL": "C.UTF-8", "CURL_CONFIG": "none",
        "S3_ENDPOINT": "http://store", "S3_BUCKET": "bucket", "AGE_KEY": str(work / "key"),
        "SET": manifest.prefix.rstrip("/"), "PGDATA": str(work / "data"), "WAL": str(work / "wal"),
        "PGHOST": "127.0.0.1", "PGPORT": str(port), "POINT": f"recovery_target_time = '{at.isoformat()}'",
    }  # fmt: skip
    script = SECTIONS["Fetch"] + SECTIONS[TITLE]
    argv = postgres.unprivileged("bash", "-euo", "pipefail", "-c", script)
    done = subprocess.run(argv, env=environ, cwd=work, capture_output=True, text=True, check=False)
    try:
        assert done.returncode == 0, done.stdout + done.stderr
        assert "before 2" in done.stdout.splitlines()[-1]
        with psycopg.connect(
            host="127.0.0.1", port=port, user="postgres", password=PASSWORD, dbname="isa"
        ) as connection:
            assert connection.execute(MARKS.encode()).fetchone() == ("ab",)
    finally:
        words = ("-D", environ["PGDATA"], "-m", "immediate", "stop")
        stop = postgres.unprivileged(str(tools / "pg_ctl"), *words)
        subprocess.run(stop, check=False, capture_output=True)
