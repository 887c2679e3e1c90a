"""The gate of MinIO: four servers with one drive each and EC:2. Writing needs three servers, reading two.

The health endpoints report write and read quorum (minio/minio: docs/metrics/healthcheck). The admin API reports the
drives (`/minio/admin/v3/info`, as in `mc admin info`). The probe puts an object through one server and reads it through
another.
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
# A round ends after 30 s (`operations.health.gate`), so a much older object was left by a killed round.
OLD = timedelta(minutes=5)
EXISTS = ("BucketAlreadyOwnedByYou", "BucketAlreadyExists")


def workloads(settings: Settings) -> tuple[Workload, ...]:
    """The workloads of this component in Kubernetes."""
    return (Workload("StatefulSet", STATEFULSET, settings.components.minio.members),)


def ask(access: Access) -> Report:
    """Check write and read quorum, the drives, and an object through two servers."""
    members = access.settings.components.minio.members
    servers = access.endpoints(STATEFULSET, members, PORT)
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
        absent = members - len(drives)
        missing = f"{absent} of {members} drives are unknown" if absent > 0 else ""
        hint = "; ".join(filter(None, [words(trouble), missing])) or f"{members} drives"
        answer.settle(not trouble and not missing, hint)
    with questions.check("object put and read through another server") as answer:
        answer.settle(True, _transaction(access, alive))
    roles = tuple(Role(s.member, f"drive {drives.get(s.member, 'unknown')}") for s in servers)
    return Report(tuple(questions.checks), roles)


def _transaction(access: Access, servers: list[Endpoint]) -> str:
    """Put an object, read it through another server, delete it. Each round has an object of its own."""
    write_server, read_server = servers[0], servers[-1]
    writer, reader = connect(access, write_server), connect(access, read_server)
    token = secrets.token_hex(8).encode()
    key = f"{PREFIX}{token.decode()}"
    _make_bucket(writer)
    writer.put_object(Bucket=PROBE, Key=key, Body=token)
    try:
        content = reader.get_object(Bucket=PROBE, Key=key)["Body"].read()
    finally:
        writer.delete_object(Bucket=PROBE, Key=key)
    _remove_old_objects(writer)
    if content != token:
        raise RuntimeError(f"{read_server.member} returned another object than was put")
    return f"put through {write_server.member}, read through {read_server.member}"


def _make_bucket(client: Any) -> None:
    if PROBE in {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}:
        return
    try:
        client.create_bucket(Bucket=PROBE)
    except ClientError as exc:  # another round was faster
        if exc.response["Error"]["Code"] not in EXISTS:
            raise


def _remove_old_objects(client: Any) -> None:
    """Delete old objects of killed rounds, by the server's clock. Younger ones may belong to a running round."""
    page = client.list_objects_v2(Bucket=PROBE, Prefix=PREFIX)
    now = parsedate_to_datetime(page["ResponseMetadata"]["HTTPHeaders"]["date"])
    for entry in page.get("Contents", []):
        if now - entry["LastModified"] > OLD:
            client.delete_object(Bucket=PROBE, Key=entry["Key"])


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
