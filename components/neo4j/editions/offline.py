"""Backs up Community: stops the member, dumps its databases in a pod on its volume, and starts it again.

Community has no online backup. The operator must allow the pause (`backup.neo4j.offline`). It takes as long as the
dump. It is recorded before it begins, so that the run after a killed one starts the member again.
https://neo4j.com/docs/operations-manual/5/backup-restore/offline-backup/
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from archive.backup.cleanup_journal import CleanupJournal, StoppedMember
from archive.backup.writer import SetWriter
from cluster.command import CANCELLATION
from cluster.kube import Manifest
from cluster.pods.exec import exec_stream
from cluster.polling import polling
from components.access import Access
from components.neo4j.client import DATABASE
from errors import PermanentError, TemporaryError

log = logging.getLogger(__name__)

RELEASE: Final = "neo4j-1"
POD = f"{RELEASE}-0"
DUMPER = f"{RELEASE}-dump"
CONTAINER = "neo4j-admin"
DATABASES = (DATABASE, "system")  # Community has no others
REPLICAS: Final = 1  # the member has one volume
STOP_SECONDS, START_SECONDS = 180.0, 300.0
# A server reads its transaction logs and stores before it serves. Even a cold and busy disk is this fast.
START_BYTES_PER_SECOND = 10 << 20
TRIES = 2  # attempts for a dump while the member is stopped


def dump(access: Access, writer: SetWriter) -> list[str]:
    """Store a dump of each database while the member is stopped. It is started again, without waiting for it.

    Returns:
        `database NAME: why` for each that could not be dumped.

    Raises:
        TemporaryError: the member does not stop, or no database could be dumped. It is started again.
    """
    with stopped(access, writer.cleanup), helper(access):
        failed = {database: _dump(access, writer, database) for database in DATABASES}
        if all(failed.values()):
            raise TemporaryError("; ".join(failed.values()), delay=15)
    return [f"database {database}: {why}" for database, why in failed.items() if why]


def _dump(access: Access, writer: SetWriter, database: str) -> str:
    """Store a dump of one database. Returns why it failed, or ""."""
    namespace, stall = access.settings.kubernetes.namespace, access.settings.backup.stall_seconds
    command = ("neo4j-admin", "database", "dump", database, "--to-stdout")
    why = ""
    for _ in range(TRIES):
        pieces = exec_stream(access.kube, namespace, DUMPER, CONTAINER, command, stall=stall)
        try:
            writer.add(
                f"{database}.dump", f"database {database}", "neo4j-admin database dump", pieces
            )
        except TemporaryError as exc:
            why = f"it cannot be dumped: {exc}"
        else:
            return ""
    return why


def load(access: Access, database: str, size: int, pieces: Iterator[bytes]) -> None:
    """Load a dump into the stopped member's volume, in the pod of `helper`.

    Args:
        access: the cluster.
        database: its name; its data is overwritten.
        size: bytes of the dump. A command in a pod does not see the end of its input, so it needs the size.
        pieces: the dump's bytes.

    Raises:
        TemporaryError: the load failed. The database is damaged then and must be loaded again.
    """
    namespace, stall = access.settings.kubernetes.namespace, access.settings.backup.stall_seconds
    script = (
        'head -c "$1" | neo4j-admin database load "$2" --from-stdin --overwrite-destination=true'
    )
    command = ("sh", "-c", script, "sh", str(size), database)
    for _ in exec_stream(
        access.kube, namespace, DUMPER, CONTAINER, command, stall=stall, stdin=pieces
    ):
        pass


def sweep(access: Access, cleanup: CleanupJournal) -> None:
    """Start a member that a killed run has stopped."""
    for note in cleanup.earlier(StoppedMember):
        _remove_dumper(access)
        live = statefulset(access)
        if int(live["spec"].get("replicas", 0)) < REPLICAS:
            access.kube.scale(live, REPLICAS)
            await_ready(access, START_SECONDS)
        cleanup.release(note)


@contextmanager
def stopped(access: Access, cleanup: CleanupJournal) -> Iterator[None]:
    """Stop the member inside the block, and always start it again. `await_ready` waits until it serves.

    Raises:
        TemporaryError: the member does not stop.
    """
    live = statefulset(access)
    note = StoppedMember(statefulset=RELEASE, replicas=REPLICAS)
    cleanup.hold(note)
    access.kube.scale(live, 0)
    try:
        _until(lambda: _pod(access, POD) is None, _stop_seconds(live), f"{POD} did not stop")
        yield
    except TemporaryError:
        _start(access, live, cleanup, note)
        with suppress(TemporaryError):  # the next attempt needs a member that serves
            await_ready(access, START_SECONDS)
        raise
    except BaseException:
        _start(access, live, cleanup, note)
        raise
    else:
        _start(access, live, cleanup, note)


def _start(access: Access, live: Manifest, cleanup: CleanupJournal, note: StoppedMember) -> None:
    """Start the stopped member, and remove its entries from the journal: this run's and those of killed runs."""
    access.kube.scale(live, REPLICAS)
    cleanup.release(note)
    for earlier in cleanup.earlier(StoppedMember):
        cleanup.release(earlier)


def await_ready(access: Access, seconds: float) -> None:
    """Wait until the member serves clients.

    Args:
        access: the cluster.
        seconds: time limit, for example from `start_seconds`.

    Raises:
        TemporaryError: it takes longer. The member keeps starting.
    """

    def ready() -> bool:
        conditions = (_pod(access, POD) or {}).get("status", {}).get("conditions", [])
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    _until(ready, seconds, f"{POD} did not become ready again")


def start_seconds(size: int) -> float:
    """Time limit, in seconds, for a member to start with databases of this many bytes."""
    return START_SECONDS + size / START_BYTES_PER_SECOND


def _stop_seconds(live: Manifest) -> float:
    """Time limit, in seconds, for a member to stop. It writes a checkpoint, within its pod's own grace period."""
    grace = live["spec"]["template"]["spec"].get("terminationGracePeriodSeconds") or 0
    return max(STOP_SECONDS, float(grace) + 30.0)


@contextmanager
def helper(access: Access) -> Iterator[None]:
    """A pod with the release's image and volume that waits for commands; it is deleted at the end."""
    _remove_dumper(access)
    access.kube.create(pod_of(statefulset(access)))
    try:
        _until(
            lambda: _phase(access, DUMPER) == "Running", START_SECONDS, f"{DUMPER} did not start"
        )
        yield
    finally:
        _remove_dumper(access)


def pod_of(live: Manifest) -> Manifest:
    """The helper's pod. A policy refuses any other pod of this account (`isa-neo4j-dump` in namespace.yaml).

    Args:
        live: the member's StatefulSet.
    """
    template = live["spec"]["template"]["spec"]
    server = next(c for c in template["containers"] if c["name"] == "neo4j")
    claims = {claim["metadata"]["name"] for claim in live["spec"].get("volumeClaimTemplates", [])}
    mounts = [mount for mount in server["volumeMounts"] if mount["name"] in claims]
    volumes = [
        {"name": name, "persistentVolumeClaim": {"claimName": f"{name}-{POD}"}}
        for name in sorted({mount["name"] for mount in mounts})
    ]
    container = {
        "name": CONTAINER,
        "image": server["image"],
        "command": ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1; done"],
        "resources": server.get("resources", {}),
        "securityContext": server.get("securityContext", {}),
        "volumeMounts": mounts,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": DUMPER,
            "namespace": live["metadata"]["namespace"],
            "labels": {"app.kubernetes.io/managed-by": "isa-cloud"},
        },
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "imagePullSecrets": template.get("imagePullSecrets", []),
            "securityContext": template.get("securityContext", {}),
            "containers": [container],
            "volumes": volumes,
        },
    }


def statefulset(access: Access) -> Manifest:
    """The member's StatefulSet.

    Raises:
        PermanentError: it does not exist.
    """
    live = access.kube.get("apps/v1", "StatefulSet", RELEASE, access.settings.kubernetes.namespace)
    if live is None:
        raise PermanentError(f"StatefulSet {RELEASE} does not exist")
    return live


def _pod(access: Access, name: str) -> Manifest | None:
    return access.kube.get("v1", "Pod", name, access.settings.kubernetes.namespace)


def _phase(access: Access, name: str) -> str:
    return str((_pod(access, name) or {}).get("status", {}).get("phase", ""))


def _remove_dumper(access: Access) -> None:
    access.kube.delete("v1", "Pod", DUMPER, access.settings.kubernetes.namespace)
    _until(lambda: _pod(access, DUMPER) is None, STOP_SECONDS, f"{DUMPER} was not deleted")


def _until(condition: Any, seconds: float, failure: str) -> None:
    def sleep(pause: float) -> None:
        if CANCELLATION.is_set():
            time.sleep(pause)  # a cancelled run still starts the member and removes the pod
        else:
            CANCELLATION.sleep(pause)

    log.info("waiting for up to %.0f s, or: %s", seconds, failure)
    for _ in polling(seconds, pause=0.5, sleep=sleep):
        if condition():
            return
    raise TemporaryError(f"{failure} within {seconds:.0f} s")
