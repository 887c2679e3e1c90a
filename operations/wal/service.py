"""`isa wal stream`: stores PostgreSQL's WAL until it is told to end, through everything that may break.

It holds the Lease `isa-wal-postgresql`, so that one stream works and a second one waits. What a stream does twice does
no harm: objects are never changed, and slots follow what is stored. So the Lease saves work only, and a stream that has
lost it just ends its connection and waits for it again. While the API server is away the stream goes on.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from archive.backup.selftest import SKEW_SECONDS
from archive.object_store.store import Store
from archive.wal.bucket import WalWriter
from archive.wal.names import COMPONENT, TimelineHistory, WalObject
from cluster.command import Cancelled
from cluster.lease import Lease, LeaseHeld, LeaseLost
from cluster.polling import polling
from components.postgresql.wal.stream import WalStream
from config.models import Settings
from errors import ConfigurationError, Fault, PermanentError, TemporaryError
from operations.backup.prerequisites import valid_worker_key
from operations.environment.environment import Environment
from operations.environment.leases import wal_lease
from operations.runner.context import RunContext
from operations.wal.monitor import StreamMonitor
from operations.wal.note import note_text, read_note

log = logging.getLogger(__name__)

NOTE_SECONDS = 5.0  # between two notes on the Lease
# Shorter than other Leases: while a dead stream's Lease runs out, nothing is stored, and two streams do no harm.
LEASE_SECONDS = 10.0
# Limits of a request of at most 4 MiB. While one hangs the spool grows; two attempts take 30 s.
ANSWER_SECONDS, ATTEMPTS = 10.0, 2
# Pauses between attempts. A failover takes seconds, and each second counts in the recovery point.
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 5.0


class EndedWriter(WalWriter):
    """A writer that reports each stored object, and stores nothing more when the stream is told to end."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        key: Ed25519PrivateKey,
        monitor: StreamMonitor,
        stopped: Callable[[], bool],
    ) -> None:
        super().__init__(store, settings.backup.age_recipients, key)
        self._monitor, self._stopped = monitor, stopped

    def put(self, one: WalObject | TimelineHistory, plain: bytes) -> str:
        """As `WalWriter.put`.

        Raises:
            Cancelled: the stream is told to end.
        """
        if self._stopped():
            raise Cancelled("the stream is told to end")
        key = super().put(one, plain)
        self._monitor.progress()
        return key


def require_enabled(settings: Settings) -> None:
    """Refuse to stream where the settings do not say that there is a stream.

    Raises:
        ConfigurationError: they do not.
    """
    if not settings.wal.postgresql.enabled:
        raise ConfigurationError(
            [
                Fault(
                    "wal.postgresql.enabled",
                    "is false: isa doctor would not notice if this stream ended",
                    "set it to true in the environment's file",
                )
            ]
        )


def run_stream(
    environment: Environment,
    run: RunContext,
    monitor: StreamMonitor,
    ended: threading.Event,
    make: Callable[..., WalStream] = WalStream,
    open_store: Callable[[Environment], Store] | None = None,
    note_seconds: float = NOTE_SECONDS,
) -> None:
    """Store WAL until `ended` is set.

    Args:
        environment: not opened yet: the cluster may be away when the service starts.
        run: who runs it.
        monitor: is told what happens.
        ended: set by another thread or a signal.
        make: makes the stream.
        open_store: opens the bucket; with the limits above by default.
        note_seconds: between two notes on the Lease.

    Raises:
        PermanentError: the settings, a Secret, a program or the store's answer must be corrected first.
    """
    pause = FIRST_PAUSE
    while not ended.is_set():
        try:
            with _lease(environment, run) as lease:
                pause = FIRST_PAUSE
                monitor.continues(read_note(lease.previous_operation))
                with _noting(lease, monitor, note_seconds) as lost:
                    store = (open_store or _open_store)(environment)
                    _stream(environment, store, monitor, _any(ended, lost), make)
                    if ended.is_set():
                        monitor.ended()
        except LeaseHeld as exc:
            monitor.waits(str(exc))
            ended.wait(LONGEST_PAUSE)
        except TemporaryError as exc:
            monitor.waits(str(exc))
            ended.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
    monitor.ended()


# ---------------------------------------------------------------------- inside
def _lease(environment: Environment, run: RunContext) -> Lease:
    where, name = environment.settings.kubernetes.control_namespace, wal_lease(COMPONENT)
    return Lease(environment.kube, where, name, purpose=run.who, duration=LEASE_SECONDS)


def _open_store(environment: Environment) -> Store:
    _ = environment.cluster_uid  # refuses another environment's cluster before its Secret is read
    where, credentials = environment.settings.storage.object, environment.store_credentials()
    return Store.open(where, credentials, read_seconds=ANSWER_SECONDS, attempts=ATTEMPTS)


def _stream(
    environment: Environment,
    store: Store,
    monitor: StreamMonitor,
    stopped: Callable[[], bool],
    make: Callable[..., WalStream],
) -> None:
    """Store WAL until it is told to stop; each fault of primary, store and disk is tried again."""
    settings = environment.settings
    writer = EndedWriter(store, settings, valid_worker_key(environment), monitor, stopped)
    with environment.access() as access:
        stream = make(
            access, store, writer, settings.environment, settings.backup.signers,
            settings.wal.postgresql.spool, settings.wal.postgresql.spool_bytes, stopped, monitor.observe,
        )  # fmt: skip
        stream.status.gaps, stream.status.last_gap = monitor.status.gaps, monitor.status.last_gap
        monitor.connects()
        pause = FIRST_PAUSE
        while not stopped():
            rounds = monitor.rounds
            try:
                _require_clock(store)
                stream.follow()
            except Cancelled:
                if not stopped():
                    raise
            except PermanentError as exc:
                monitor.interrupted(exc.plain)
                raise
            except (TemporaryError, psycopg.Error, OSError) as exc:
                monitor.interrupted(_reason(exc))
                if monitor.rounds > rounds:
                    pause = FIRST_PAUSE
                _wait(pause, stopped)
                pause = min(2 * pause, LONGEST_PAUSE)


def _require_clock(store: Store) -> None:
    """Refuse to sign WAL with a wrong time: readers refuse what was signed in the future.

    Raises:
        TemporaryError: this clock and the store's differ.
    """
    skew = store.skew_seconds()
    if abs(skew) > SKEW_SECONDS:
        raise TemporaryError(
            f"{store.address}: its clock differs from this machine's by {skew:.0f} s: synchronise both with NTP. "
            "Readers refuse WAL that was signed in the future"
        )


def _any(*events: threading.Event) -> Callable[[], bool]:
    return lambda: any(event.is_set() for event in events)


def _wait(seconds: float, stopped: Callable[[], bool]) -> None:
    for _ in polling(seconds, pause=0.1):
        if stopped():
            return


@contextmanager
def _noting(lease: Lease, monitor: StreamMonitor, seconds: float) -> Iterator[threading.Event]:
    """Note on the Lease how the stream stands, in a thread of its own: the API server must not delay the stream.

    Returns:
        An event that is set when the Lease is lost.
    """
    done, lost = threading.Event(), threading.Event()

    def note() -> None:
        while True:
            last = done.wait(seconds)
            try:
                lease.note(note_text(monitor.note()))
            except LeaseLost as exc:
                log.warning("%s", exc)
                lost.set()
                return
            except (TemporaryError, PermanentError) as exc:
                log.info("the stream's state was not noted on Lease %s: %s", lease.name, exc)
            if last:
                return

    thread = threading.Thread(target=note, name="notes", daemon=True)
    thread.start()
    try:
        yield lost
    finally:
        done.set()
        thread.join()


def _reason(exc: Exception) -> str:
    """What is noted of an error: an engine's own words may quote a row, so they are logged only."""
    log.info("the stream was interrupted: %s", exc)
    if isinstance(exc, TemporaryError):
        return exc.plain
    if isinstance(exc, OSError):
        return f"the spool cannot be used: {exc.strerror or exc}"
    return f"PostgreSQL: {type(exc).__name__}"
