"""The doctor: finds leftovers, stale verifications, expiring certificates, wrong versions; fixes what is safe to fix.

Each check is independent: one that cannot run is a finding too, and does not stop the others.
"""

from __future__ import annotations

import importlib.metadata
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from packaging.requirements import Requirement

from archive.catalogue import Catalogue
from archive.garbage import collect_garbage, find_garbage
from archive.stored_dates import stored_again
from cluster import volumes
from cluster.lease import UnreadableNote, inquire
from cluster.records import read_records
from components import COMPONENTS
from components.base import Check
from config.loading import ROOT
from config.models import Settings
from config.printable import first_of
from errors import IsaError
from operations.backup.prerequisites import check_store
from operations.backup.retention import explain, plan_retention, short_locks
from operations.environment.environment import Environment
from operations.environment.leases import backup_lease, component_lease, rebuild_lease, verify_lease
from operations.health import freshness
from operations.health.gate import DOWN
from operations.health.status import read_status
from operations.runner.transfer import human
from operations.state.rebuild_state import RebuildState
from operations.state.restore_journal import broken_off
from operations.verify.scratch_pod import LABEL

CERTIFICATE_DAYS = 30  # time to find whoever can renew it
THREADS = 6
LISTED = 5  # names in one finding
CONNECT_SECONDS = 10.0
COPY_NAMED = timedelta(days=14)  # a copied bucket is a finding for so long
CLOCK_SECONDS = 5.0  # of the 30 s of a Lease; a busy machine answers late


@dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
        check: the result.
        mend: fixes it, if that is safe, and returns what it did; None if a person must act.
    """

    check: Check
    mend: Callable[[], str] | None = None


Question = tuple[str, Callable[[], Iterable[Finding]]]


def examine(questions: Iterable[Question]) -> list[Finding]:
    """Run all checks, several at a time.

    Args:
        questions: name and function of each.
    """

    def ask(question: Question) -> list[Finding]:
        name, call = question
        began = time.monotonic()
        try:
            found = list(call())
        except (IsaError, OSError, ValueError) as exc:
            found = [Finding(Check(name, False, str(exc)))]
        seconds = round(time.monotonic() - began, 3)
        return [replace(one, check=replace(one.check, seconds=seconds)) for one in found]

    with ThreadPoolExecutor(THREADS) as pool:
        return [finding for found in pool.map(ask, questions) for finding in found]


def mend(findings: Iterable[Finding]) -> list[Finding]:
    """Fix what can be fixed; what was done becomes the hint."""
    after = []
    for one in findings:
        if one.check.ok or one.mend is None:
            after.append(one)
            continue
        try:
            words, ok = f"mended: {one.mend()}", True
        except IsaError as exc:
            words, ok = f"{one.check.hint}; could not be fixed: {exc}", False
        after.append(Finding(replace(one.check, ok=ok, hint=words)))
    return after


def questions(environment: Environment) -> list[Question]:
    """The checks of cluster and object store."""
    stored = _opened(environment)
    endpoints = [environment.kube.server, str(environment.settings.storage.object.endpoint)]
    return [
        ("versions", lambda: versions(ROOT / "requirements.txt")),
        ("Helm", lambda: [Finding(Check("Helm", True, f"version {environment.helm.major}"))]),
        ("Kubernetes", lambda: [Finding(Check("Kubernetes", True, environment.kube.version()))]),
        ("clock", lambda: clock("Kubernetes", environment.kube.now())),
        ("gates", lambda: _gates(environment)),
        ("releases", lambda: _releases(environment)),
        ("rebuilds", lambda: _rebuilds(environment)),
        ("restores", lambda: _restores(environment)),
        ("scratch engines", lambda: _scratch(environment)),
        ("object store", lambda: _store(stored())),
        ("object locks", lambda: _locks(stored())),
        ("leftovers", lambda: _waste(stored())),
        ("evidence", lambda: _evidence(stored())),
        ("proofs", lambda: _proofs(stored())),
        *((f"certificate of {url}", lambda url=url: certificate(url)) for url in endpoints),
    ]


def versions(requirements: Path) -> Iterator[Finding]:
    """Compare installed packages with the pins: other versions fail, often silently."""
    wrong = []
    for line in requirements.read_text(encoding="utf-8").splitlines():
        text = line.partition("#")[0].strip()
        if not text or text.startswith("-"):
            continue
        wanted = Requirement(text)
        try:
            found = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            found = "none"
        if found == "none" or not wanted.specifier.contains(found, prereleases=True):
            wrong.append(f"{wanted.name} is {found}, not {wanted.specifier}")
    hint = f"{'; '.join(wrong)}: pip install -r requirements.txt" if wrong else "as pinned"
    yield Finding(Check("versions", not wrong, hint))


def clock(whose: str, theirs: datetime, now: datetime | None = None) -> Iterator[Finding]:
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


def certificate(url: str, now: datetime | None = None) -> Iterator[Finding]:
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


# ---------------------------------------------------------------------- inside
def _gates(environment: Environment) -> Iterator[Finding]:
    for component in read_status(environment):
        bad = [f"{c.name}: {c.hint}" for c in component.finding.checks if not c.ok]
        state = component.finding.state
        words = f"{state}: {'; '.join(bad)} (isa status)" if bad else state
        ours = not component.ready and _at_work(environment, component.name)
        if ours:
            words += f"; {ours} is running"
        critical = state == DOWN and not ours
        yield Finding(Check(f"gate of {component.name}", component.ready, words, critical=critical))


def _at_work(environment: Environment, component: str) -> str:
    """Return a run of isa that may have stopped an engine: Neo4j Community is stopped for its dump."""
    leases = {
        backup_lease(component): "a backup of it",
        rebuild_lease(component): "its rebuild",
        component_lease(component): "its deploy or a restore",
    }
    for lease, what in leases.items():
        if inquire(environment.kube, environment.settings, lease)[1]:
            return what
    return ""


def _releases(environment: Environment) -> Iterator[Finding]:
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


def _rebuilds(environment: Environment) -> Iterator[Finding]:
    open_ones, kept = [], []
    for component in COMPONENTS:
        note, held = inquire(environment.kube, environment.settings, rebuild_lease(component))
        if note and not held:
            open_ones.append(_about_rebuild(note, environment.settings, component))
        kept += [
            f"{one.name} ({component}, {one.size})"
            for one in volumes.aside(environment.kube, component)
        ]
    hint = "none is unfinished"
    if open_ones:
        hint = "; ".join(open_ones)
    yield Finding(Check("rebuilds", not open_ones, hint))
    words = f"kept: {', '.join(kept)}; isa rebuild purge COMPONENT, once their time is over"
    yield Finding(Check("volumes put aside", True, words if kept else "none"))


def _about_rebuild(note: str, settings: Settings, component: str) -> str:
    try:
        RebuildState.read(note, settings, component)
    except UnreadableNote as exc:
        return str(exc)
    return f"{component}: call the same rebuild again, or isa rebuild undo {component}"


def _restores(environment: Environment) -> Iterator[Finding]:
    left = {}
    for component in COMPONENTS:
        try:
            found = broken_off(environment.kube, environment.settings, component)
        except UnreadableNote as exc:
            left[component] = str(exc)
            continue
        if (
            found
            and not inquire(environment.kube, environment.settings, component_lease(component))[1]
        ):
            left[component] = found.words
    hint = "; ".join(f"{component}: {words}" for component, words in left.items())
    yield Finding(Check("restores", not left, hint or "no restore was interrupted"))


def _scratch(environment: Environment) -> Iterator[Finding]:
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


def _opened(environment: Environment) -> Callable[[], Environment]:
    """The environment with its store, opened once; each question about that ends with the error if it cannot be."""
    try:
        environment.open_store()
    except IsaError as exc:
        failure = exc
    else:
        return lambda: environment

    def fail() -> Environment:
        raise failure

    return fail


def _store(environment: Environment) -> Iterator[Finding]:
    able = check_store(environment)
    words = ", ".join(name for name, value in vars(able).items() if value is True)
    yield Finding(Check("object store", True, f"{environment.store.address}: {words}"))


def _waste(environment: Environment) -> Iterator[Finding]:
    grace = timedelta(hours=environment.settings.backup.retention.grace_hours)
    waste = find_garbage(
        environment.store, environment.settings.environment, datetime.now(UTC) - grace
    )
    there = bool(waste.uploads or waste.objects)
    words = f"{len(waste.uploads)} incomplete uploads, {len(waste.objects)} orphaned objects ({human(waste.size)})"

    def remove() -> str:
        collect_garbage(environment.store, waste)
        return f"removed {words}"

    yield Finding(Check("leftovers", not there, words if there else "none", critical=False), remove)
    hidden = list(explain(environment, waste).values())
    words = "; ".join(first_of(hidden, LISTED)) or "no backup's manifest was deleted"
    yield Finding(Check("deleted manifests", not hidden, words))


def _locks(environment: Environment) -> Iterator[Finding]:
    days = environment.settings.backup.object_lock_days
    if not days:
        yield Finding(Check("object locks", True, "not used (backup.object_lock_days is 0)"))
        return
    short = short_locks(environment, plan_retention(environment))
    listed = [
        f"{name} until {date:%Y-%m-%d}" if date else f"{name} not at all"
        for name, date in short.items()
    ]
    words = (
        f"{len(short)} kept backups are locked for less than {days} days; the run `retention` extends them daily: "
        f"{', '.join(listed[:LISTED])}{' …' if len(listed) > LISTED else ''}"
    )
    hint = words if short else f"every kept backup is locked for {days} days"
    yield Finding(Check("object locks", not short, hint, critical=False))


def _evidence(environment: Environment) -> Iterator[Finding]:
    catalogue = environment.catalogue()
    doubted, refused = catalogue.disbelieved, catalogue.broken
    words = (
        "; ".join(first_of([*refused.values()], LISTED))
        if refused
        else "every manifest is signed by a backup worker"
    )
    yield Finding(Check("manifests", not refused, words))
    again = stored_again(environment.store.versions(f"{environment.settings.environment}/"))
    yield _dates(catalogue, again, datetime.now(UTC))
    words = (
        "; ".join(first_of([*doubted.values()], LISTED))
        if doubted
        else "every verdict is signed by the verify pool"
    )
    yield Finding(Check("evidence", not doubted, words))
    missing = [
        f"evidence of {identity} is missing: {why}; its last verdict is unknown: isa verify {identity}"
        for identity, why in catalogue.gaps.items()
    ]
    words = "; ".join(first_of(missing, LISTED)) or "no evidence is missing"
    yield Finding(Check("chain of evidence", not missing, words))
    if not environment.settings.verify.signers:
        words = "empty, so no verdict counts: set the key that `isa verify signer` prints"
        yield Finding(Check("verify.signers", False, words))


def _dates(catalogue: Catalogue, again: Mapping[str, datetime], now: datetime) -> Finding:
    """Check the store's dates for backups that someone stored again.

    Args:
        catalogue: all sets.
        again: id of each set whose manifest was stored a second time → when.
        now: the present.
    """
    name, sets = "dates of the store", {one.id: one for one in catalogue.sets}
    dates = catalogue.dates
    replayed = {**{one: at for one, at in again.items() if one in sets}, **dates.replayed}
    if replayed:
        listed = [
            f"{one} of {sets[one].ended:%Y-%m-%d} on {at:%Y-%m-%d}" for one, at in replayed.items()
        ]
        words = (
            f"stored again long after they ended: {', '.join(first_of(listed, LISTED))}: someone put deleted backups "
            "back. They are genuine; retention uses the times inside their signed manifests"
        )
        return Finding(Check(name, False, words, critical=False))
    if dates.copied is None:
        return Finding(Check(name, True, "each manifest was stored when its backup ended"))
    words = f"the bucket was copied on {dates.copied:%Y-%m-%d}: all earlier backups have that date"
    young = now - dates.copied < COPY_NAMED
    if young:
        words += ". If nobody copied it, someone stored every backup again: compare the backups with your records"
    return Finding(Check(name, not young, words, critical=False))


def _proofs(environment: Environment) -> Iterator[Finding]:
    for one in freshness.look(environment):
        good = one.state == freshness.FRESH
        said = one.evidence.sentence if one.evidence else "no restore is verified yet"
        hint = f"{one.state}: {said}" + ("" if good else f" (isa verify {one.component})")
        critical = one.state == freshness.FAILING
        yield Finding(Check(f"proof of {one.component}", good, hint, critical=critical))
