"""The doctor's checks of this machine, the cluster and the engines."""

from __future__ import annotations

import importlib.metadata
import ssl
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from packaging.requirements import Requirement

from cluster.helm.records import read_records
from cluster.lease import UnreadableNote, inquire
from cluster.pods import volumes
from components.base import Check
from config.models import Settings
from operations.environment.environment import Environment
from operations.environment.leases import backup_lease, component_lease, rebuild_lease, verify_lease
from operations.health.findings import Finding
from operations.health.gate import DOWN
from operations.health.status import ComponentStatus, read_status
from operations.state.rebuild_state import RebuildState
from operations.state.restore_journal import interrupted_restore
from operations.verify.scratch_pod import LABEL
from operations.wal.checks import check_stream
from operations.wal.status import read_stream

CERTIFICATE_DAYS = 30  # time to find who can renew it
CONNECT_SECONDS = 10.0
CLOCK_SECONDS = 5.0  # of the 30 s of a Lease; a busy machine answers late


def check_versions(requirements: Path) -> Iterator[Finding]:
    """Compare installed packages with the pins: other versions fail, often silently."""
    mismatches = []
    for line in requirements.read_text(encoding="utf-8").splitlines():
        text = line.partition("#")[0].strip()
        if not text or text.startswith("-"):
            continue
        pin = Requirement(text)
        try:
            version = importlib.metadata.version(pin.name)
        except importlib.metadata.PackageNotFoundError:
            version = "none"
        if version == "none" or not pin.specifier.contains(version, prereleases=True):
            mismatches.append(f"{pin.name} is {version}, not {pin.specifier}")
    hint = (
        f"{'; '.join(mismatches)}: pip install -r requirements.txt" if mismatches else "as pinned"
    )
    yield Finding(Check("versions", not mismatches, hint))


def check_clock(whose: str, theirs: datetime, now: datetime | None = None) -> Iterator[Finding]:
    """Compare a server's clock with this one: a Lease depends on the clocks of its holder and of the next one.

    Args:
        whose: name of the server.
        theirs: its time, in whole seconds.
    """
    skew = ((now or datetime.now(UTC)) - theirs).total_seconds()
    good = abs(skew) <= CLOCK_SECONDS
    hint = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} {whose}'s" + (
        ""
        if good
        else ": synchronise both with NTP, because a Lease may be taken over 30 s after its last renewal"
    )
    yield Finding(Check(f"clock against {whose}", good, hint))


def check_certificate(url: str, now: datetime | None = None) -> Iterator[Finding]:
    """Check how long the certificate of an https endpoint is valid."""
    parts = urlsplit(url)
    name = f"certificate of {parts.hostname}"
    if parts.scheme != "https":
        return
    where = (str(parts.hostname), parts.port or 443)
    text = ssl.get_server_certificate(where, timeout=CONNECT_SECONDS)
    end = x509.load_pem_x509_certificate(text.encode()).not_valid_after_utc
    days = (end - (now or datetime.now(UTC))).days
    hint = f"valid until {end:%Y-%m-%d}, {days} days" + (
        ": renew it" if days < CERTIFICATE_DAYS else ""
    )
    yield Finding(Check(name, days >= CERTIFICATE_DAYS, hint, critical=days < 1))


def check_gates(
    environment: Environment,
    status: Callable[[Environment], Iterable[ComponentStatus]] = read_status,
) -> Iterator[Finding]:
    """The readiness of each component. An engine that a run of isa has stopped is no alarm.

    Args:
        environment: opened.
        status: reads the components' status.
    """
    for component in status(environment):
        failures = [f"{c.name}: {c.hint}" for c in component.finding.checks if not c.ok]
        state = component.finding.state
        hint = f"{state}: {'; '.join(failures)} (isa status)" if failures else state
        run = "" if component.ready else _running(environment, component.name)
        if run:
            hint += f"; {run} is running"
        critical = state == DOWN and not run
        yield Finding(Check(f"gate of {component.name}", component.ready, hint, critical=critical))


def _running(environment: Environment, component: str) -> str:
    """Return a run of isa that may have stopped an engine: Neo4j Community is stopped for its dump."""
    leases = {
        backup_lease(component): "a backup of it",
        rebuild_lease(component): "its rebuild",
        component_lease(component): "its deploy or a restore",
    }
    for lease, run in leases.items():
        if inquire(environment.kube, environment.settings, lease)[1]:
            return run
    return ""


def check_releases(environment: Environment) -> Iterator[Finding]:
    """Releases whose last helm call did not end."""
    records = read_records(environment.kube, environment.settings.kubernetes.namespace)
    names = [release.name for release in environment.releases.releases]
    stuck = [
        f"{n} ({records[n][-1].status})" for n in names if n in records and records[n][-1].pending
    ]
    hint = (
        f"{', '.join(stuck)}: a deploy recovers them when no other run works on them"
        if stuck
        else "no release is stuck"
    )
    yield Finding(Check("releases", not stuck, hint))


def check_rebuilds(environment: Environment) -> Iterator[Finding]:
    """Unfinished rebuilds, and retained old volumes."""
    unfinished, retained = [], []
    for component in environment.components:
        note, holder = inquire(environment.kube, environment.settings, rebuild_lease(component))
        if note and not holder:
            unfinished.append(_unfinished_rebuild(note, environment.settings, component))
        retained += [
            f"{volume.name} ({component}, {volume.size})"
            for volume in volumes.aside(environment.kube, component)
        ]
    yield Finding(Check("rebuilds", not unfinished, "; ".join(unfinished) or "none is unfinished"))
    hint = f"kept: {', '.join(retained)}; isa rebuild purge COMPONENT, once their time is over"
    yield Finding(Check("volumes put aside", True, hint if retained else "none"))


def _unfinished_rebuild(note: str, settings: Settings, component: str) -> str:
    try:
        RebuildState.read(note, settings, component)
    except UnreadableNote as exc:
        return str(exc)
    return f"{component}: call the same rebuild again, or isa rebuild undo {component}"


def check_restores(environment: Environment) -> Iterator[Finding]:
    """Interrupted restores."""
    messages = []
    for component in environment.components:
        try:
            restore = interrupted_restore(environment.kube, environment.settings, component)
        except UnreadableNote as exc:
            messages.append(f"{component}: {exc}")
            continue
        lease = component_lease(component)
        if restore and not inquire(environment.kube, environment.settings, lease)[1]:
            messages.append(f"{component}: {restore.words}")
    hint = "; ".join(messages) or "no restore was interrupted"
    yield Finding(Check("restores", not messages, hint))


def check_scratch(environment: Environment) -> Iterator[Finding]:
    """Scratch engines that no running verification uses."""
    where, kube = environment.settings.kubernetes.verify_namespace, environment.kube
    pods = kube.list("v1", "Pod", where, LABEL)
    orphans = {}
    for pod in pods:
        component = pod["metadata"]["labels"][LABEL]
        if not inquire(kube, environment.settings, verify_lease(component))[1]:
            orphans[pod["metadata"]["name"]] = pod["metadata"]["uid"]

    def remove() -> str:
        for name, uid in orphans.items():  # a proof may have begun since, under the same names
            kube.delete("v1", "Pod", name, where, uid=uid)  # its claims and Secrets go with it
        return f"removed {', '.join(orphans)}"

    hint = (
        f"{', '.join(orphans)}: left by interrupted verifications"
        if orphans
        else f"{len(pods)} running"
    )
    yield Finding(Check("scratch engines", not orphans, hint, critical=False), remove)


def check_wal_stream(environment: Environment) -> Iterator[Finding]:
    """Whether PostgreSQL's WAL is streamed, how far behind, and what waits."""
    if not environment.settings.wal.postgresql.enabled:
        yield Finding(Check("WAL stream", True, "not used (wal.postgresql.enabled is false)"))
        return
    for check in check_stream(read_stream(environment)):
        yield Finding(check)
