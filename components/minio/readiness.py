"""MinIO: four servers with one drive each, EC:2; three of them take writes, two still read.

Write and read quorum are asked of the health endpoints (minio/minio: docs/metrics/healthcheck), drives
of the admin API (`/minio/admin/v3/info`, which `mc admin info` shows), and an object is put through one server and read
through another.
"""

from __future__ import annotations

import secrets
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from botocore.exceptions import ClientError

from components.access import Access, Endpoint
from components.base import Report, Role, Workload
from components.minio.client import PORT, STATEFULSET, admin, connect, health
from components.questions import PROBE, Round, ask_members, words
from config.models import Settings

PREFIX = "gate/"
# A round ends after 30 s (`operations.health.gate`): what is older than that by far was left by a killed one.
OLD = timedelta(minutes=5)
THERE = ("BucketAlreadyOwnedByYou", "BucketAlreadyExists")


def workloads(settings: Settings) -> tuple[Workload, ...]:
    """What must run for this component, as Kubernetes sees it."""
    return (Workload("StatefulSet", STATEFULSET, settings.components.minio.members),)


def ask(access: Access) -> Report:
    """Ask for write and read quorum, whole drives, and an object that travels."""
    wanted = access.settings.components.minio.members
    servers = access.endpoints(STATEFULSET, wanted, PORT)
    questions = Round()
    answers = ask_members(servers, lambda server: health(access, server, "live"))
    questions.checks.append(answers.check("servers answer"))
    alive = [server for server in servers if answers.good.get(server.member) == 200]
    if not alive:
        questions.note("write quorum", False, "no server answers")
        return Report(tuple(questions.checks))
    for name, path in (("write quorum", "cluster"), ("read quorum", "cluster/read")):
        with questions.check(name) as answer:
            ok = health(access, alive[0], path) == 200
            answer.settle(ok, "" if ok else "too few drives are online: see `drives are whole`")
    drives: dict[str, str] = {}
    with questions.check("drives are whole", critical=False) as answer:
        drives = _drives(access, alive[0], {s.pod_ip: s.member for s in servers})
        trouble = {drive: state for drive, state in drives.items() if state != "ok"}
        absent = wanted - len(drives)
        missing = f"{absent} of {wanted} drives are unknown" if absent > 0 else ""
        hint = "; ".join(filter(None, [words(trouble), missing])) or f"{wanted} drives"
        answer.settle(not trouble and not missing, hint)
    with questions.check("object put and read through another server") as answer:
        answer.settle(True, _transaction(access, alive))
    roles = tuple(Role(s.member, f"drive {drives.get(s.member, 'unknown')}") for s in servers)
    return Report(tuple(questions.checks), roles)


def _transaction(access: Access, servers: list[Endpoint]) -> str:
    """Put an object, get it elsewhere, delete it. Rounds at the same time have objects of their own."""
    first, last = servers[0], servers[-1]
    writer, reader = connect(access, first), connect(access, last)
    token = secrets.token_hex(8).encode()
    key = f"{PREFIX}{token.decode()}"
    _make_bucket(writer)
    writer.put_object(Bucket=PROBE, Key=key, Body=token)
    try:
        found = reader.get_object(Bucket=PROBE, Key=key)["Body"].read()
    finally:
        writer.delete_object(Bucket=PROBE, Key=key)
    _remove_old_objects(writer)
    if found != token:
        raise RuntimeError(f"{last.member} returned another object than was put")
    return f"put through {first.member}, read through {last.member}"


def _make_bucket(client: Any) -> None:
    if PROBE in {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}:
        return
    try:
        client.create_bucket(Bucket=PROBE)
    except ClientError as exc:  # another round was faster
        if exc.response["Error"]["Code"] not in THERE:
            raise


def _remove_old_objects(client: Any) -> None:
    """Delete what killed rounds left, by the server's clock; what is younger may be of a round under way."""
    page = client.list_objects_v2(Bucket=PROBE, Prefix=PREFIX)
    now = parsedate_to_datetime(page["ResponseMetadata"]["HTTPHeaders"]["date"])
    for left in page.get("Contents", []):
        if now - left["LastModified"] > OLD:
            client.delete_object(Bucket=PROBE, Key=left["Key"])


def _drives(access: Access, server: Endpoint, names: dict[str, str]) -> dict[str, str]:
    """Member → state of its drive: `ok`, `offline`, `healing`."""
    answer = admin(access, server, "info")
    states: dict[str, str] = {}
    for entry in answer.json().get("servers") or []:
        host = str(entry["endpoint"]).rpartition(":")[0]
        member = names.get(host, host.partition(".")[0])  # a DNS name begins with the pod's
        for drive in entry.get("drives") or [{"state": entry.get("state", "offline")}]:
            states[member] = "healing" if drive.get("healing") else str(drive.get("state"))
    return states
