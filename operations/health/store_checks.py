"""The doctor's checks of the object store: its use, locks, orphans, signatures, evidence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta

from archive.catalogue.listing import Catalogue
from archive.catalogue.stored_dates import stored_again
from archive.retention.garbage import collect_garbage, find_garbage
from components.base import Check
from config.text.printable import first_of
from operations.backup.prerequisites import check_store
from operations.backup.retention import explain, plan_retention, short_locks
from operations.environment.environment import Environment
from operations.health import freshness
from operations.health.findings import Finding
from operations.runner.transfer import human
from operations.wal.status import check_stored, read_listing

LISTED = 5  # names in one finding
COPY_NAMED = timedelta(days=14)  # a copied bucket is a finding for so long


def check_object_store(environment: Environment) -> Iterator[Finding]:
    """Whether the object store can be used, and its features."""
    capabilities = vars(check_store(environment))
    features = ", ".join(name for name, value in capabilities.items() if value is True)
    yield Finding(Check("object store", True, f"{environment.store.address}: {features}"))


def check_garbage(environment: Environment) -> Iterator[Finding]:
    """Objects that belong to no backup, and backups whose manifest was deleted."""
    grace = timedelta(hours=environment.settings.backup.retention.grace_hours)
    garbage = find_garbage(
        environment.store, environment.settings.environment, datetime.now(UTC) - grace
    )
    clean = not (garbage.uploads or garbage.objects)
    size = f"{len(garbage.objects)} orphaned objects ({human(garbage.size)})"
    hint = f"{len(garbage.uploads)} incomplete uploads, {size}"

    def remove() -> str:
        collect_garbage(environment.store, garbage)
        return f"removed {hint}"

    yield Finding(Check("leftovers", clean, "none" if clean else hint, critical=False), remove)
    hidden = explain(environment, garbage).values()
    yield _listed("deleted manifests", hidden, "no backup's manifest was deleted")


def check_locks(environment: Environment) -> Iterator[Finding]:
    """Kept backups whose object lock ends too early."""
    days = environment.settings.backup.object_lock_days
    if not days:
        yield Finding(Check("object locks", True, "not used (backup.object_lock_days is 0)"))
        return
    yield lock_finding(short_locks(environment, plan_retention(environment)), days)


def lock_finding(short: Mapping[str, datetime | None], days: int) -> Finding:
    """Judge the locks of kept backups.

    Args:
        short: id of each backup whose lock ends too early → when; None without a lock.
        days: for which backups are locked.
    """
    hint = f"every kept backup is locked for {days} days"
    if short:
        listed = [
            f"{name} until {date:%Y-%m-%d}" if date else f"{name} not at all"
            for name, date in short.items()
        ]
        hint = (
            f"{len(short)} kept backups are locked for less than {days} days; the run `retention` extends them daily: "
            f"{', '.join(listed[:LISTED])}{' …' if len(listed) > LISTED else ''}"
        )
    return Finding(Check("object locks", not short, hint, critical=False))


def check_evidence(environment: Environment) -> Iterator[Finding]:
    """Signatures of manifests and verdicts, dates of the store, missing verdicts."""
    catalogue = environment.catalogue()
    yield _listed(
        "manifests", catalogue.broken.values(), "every manifest is signed by a backup worker"
    )
    again = stored_again(environment.store.versions(f"{environment.settings.environment}/"))
    yield check_dates(catalogue, again, datetime.now(UTC))
    yield _listed(
        "evidence", catalogue.disbelieved.values(), "every verdict is signed by the verify pool"
    )
    missing = [
        f"evidence of {identity} is missing: {why}; its last verdict is unknown: isa verify {identity}"
        for identity, why in catalogue.gaps.items()
    ]
    yield _listed("chain of evidence", missing, "no evidence is missing")
    if not environment.settings.verify.signers:
        hint = "empty, so no verdict counts: set the key that `isa verify signer` prints"
        yield Finding(Check("verify.signers", False, hint))


def check_dates(catalogue: Catalogue, again: Mapping[str, datetime], now: datetime) -> Finding:
    """Check the store's dates for backups that someone stored again.

    Args:
        catalogue: all sets.
        again: id of each set whose manifest was stored a second time → when.
        now: the present.
    """
    name, backups = "dates of the store", {backup.id: backup for backup in catalogue.sets}
    dates = catalogue.dates
    replayed = {key: at for key, at in again.items() if key in backups} | dates.replayed
    if replayed:
        listed = [
            f"{key} of {backups[key].ended:%Y-%m-%d} on {at:%Y-%m-%d}"
            for key, at in replayed.items()
        ]
        hint = (
            f"stored again long after they ended: {', '.join(first_of(listed, LISTED))}: someone put deleted backups "
            "back. They are genuine; retention uses the times inside their signed manifests"
        )
        return Finding(Check(name, False, hint, critical=False))
    if dates.copied is None:
        return Finding(Check(name, True, "each manifest was stored when its backup ended"))
    hint = f"the bucket was copied on {dates.copied:%Y-%m-%d}: all earlier backups have that date"
    young = now - dates.copied < COPY_NAMED
    if young:
        hint += ". If nobody copied it, someone stored every backup again: compare the backups with your records"
    return Finding(Check(name, not young, hint, critical=False))


def check_proofs(environment: Environment) -> Iterator[Finding]:
    """How recent the verification of each component is, and whether it meets its objectives."""
    for proof in freshness.read_freshness(environment):
        fresh, name = proof.state == freshness.FRESH, proof.component
        hint = f"{proof.state}: {proof.sentence or 'no restore is verified yet'}"
        if not fresh:
            hint += f" (isa verify {name})"
        critical = proof.state == freshness.FAILING
        yield Finding(Check(f"proof of {name}", fresh, hint, critical=critical))
        yield Finding(
            Check(
                f"objectives of {name}",
                not proof.missed,
                "; ".join(proof.missed) or "recovery point and recovery time are met",
                critical=False,
            )
        )


def check_wal(environment: Environment) -> Iterator[Finding]:
    """Gaps in the stored WAL since the newest complete backup."""
    if environment.settings.wal.postgresql.enabled:
        for check in check_stored(environment, read_listing(environment)):
            yield Finding(check)


def _listed(name: str, faults: Iterable[str], otherwise: str) -> Finding:
    """A finding that lists the first faults; good without any."""
    messages = [*faults]
    return Finding(Check(name, not messages, "; ".join(first_of(messages, LISTED)) or otherwise))
