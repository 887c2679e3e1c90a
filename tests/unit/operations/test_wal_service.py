"""The service that streams WAL: one works, another waits, and nothing but an operator or a wrong setting ends it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from archive.signing import public_half
from archive.wal.names import WalObject
from cluster.command import Cancelled
from cluster.lease import OPERATION, Lease
from components.postgresql.wal.slots import SlotUse
from components.postgresql.wal.stream import StreamStatus
from config.sections.backups import BackupSigner
from config.sections.wal import PostgresqlWal
from errors import ConfigurationError, PermanentError, TemporaryError
from operations.documents.wal import INTERRUPTED, STREAMING, WAITING
from operations.runner.context import RunContext
from operations.wal.metrics import metrics
from operations.wal.monitor import ALIVE_SECONDS, StreamMonitor
from operations.wal.note import note_text, read_note
from operations.wal.probe import serving
from operations.wal.service import EndedWriter, require_enabled, run_stream
from tests.environments import environment_with
from tests.promql import samples
from tests.unit.archive.wal.history import NOON

from ..stored import CONTROL, Stored, settings_of

KEY = Ed25519PrivateKey.generate()
PEM = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
LEASE = "isa-wal-postgresql"
LIMIT = 1 << 30


class Stream:
    """A stream whose calls to `follow` do in turn what is in `does`; then it waits until it is stopped."""

    does: list[Callable[[Any], None]]

    def __init__(self, *arguments: Any) -> None:
        *_, self.stopped, self.observe = arguments
        self.status = StreamStatus()
        self.writer = arguments[2]
        self.calls = 0

    def round(self, **changes: Any) -> None:
        vars(self.status).update({"timeline": 1, "system": "1"} | changes)
        self.observe(self.status)

    def follow(self) -> None:
        self.calls += 1
        if self.does:
            self.does.pop(0)(self)
            return
        self.round()
        while not self.stopped():
            time.sleep(0.005)


class Service:
    """The service in a thread, with what it prints."""

    def __init__(self, *does: Callable[[Any], None]) -> None:
        self.kube = Stored()
        self.skews: list[float] = []
        self.store = SimpleNamespace(
            address="store", skew_seconds=lambda: self.skews.pop(0) if self.skews else 0.0
        )
        self.kube.objects["Secret", "signing"] = {"data": {}}
        settings = settings_of(
            environment="test",
            backup=SimpleNamespace(
                signers=(BackupSigner(key=public_half(KEY)),), signing_secret="signing",
                age_recipients=("age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p",),
            ),
            wal=SimpleNamespace(postgresql=PostgresqlWal(enabled=True)),
        )  # fmt: skip
        self.environment = environment_with(
            settings, kube=self.kube, store=self.store, access=lambda: nullcontext(None)
        )
        self.kube.objects["Secret", "signing"] = secret(PEM)
        self.lines: list[str] = []
        self.monitor = StreamMonitor(self.lines.append, LIMIT)
        self.ended = threading.Event()
        self.streams: list[Stream] = []
        self.failure: BaseException | None = None
        self._does = [*does]
        self._thread = threading.Thread(target=self._run)

    def _make(self, *arguments: Any) -> Any:
        made = Stream(*arguments)
        made.does = self._does
        self.streams.append(made)
        return made

    def _run(self) -> None:
        run = RunContext("a test", tell=self.lines.append)
        try:
            run_stream(
                self.environment,
                run,
                self.monitor,
                self.ended,
                self._make,
                open_store=lambda environment: environment.store,
                note_seconds=0.02,
            )
        except PermanentError as exc:
            self.failure = exc

    def __enter__(self) -> Service:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.join()

    def join(self) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive()

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, self.lines
            time.sleep(0.005)

    @property
    def lease(self) -> dict[str, Any]:
        return self.kube.objects["Lease", LEASE]


def secret(pem: str) -> dict[str, Any]:
    from base64 import b64encode

    return {"metadata": {"name": "signing"}, "data": {"key": b64encode(pem.encode()).decode()}}


def fails(exc: Exception) -> Callable[[Any], None]:
    def fail(_: Any) -> None:
        raise exc

    return fail


def test_a_lost_primary_and_a_full_disk_are_tried_again_until_they_pass() -> None:
    faults = (
        TemporaryError("PostgreSQL has 0 reachable primaries", delay=15),
        OSError(28, "No space left on device"),
    )
    with Service(*map(fails, faults)) as service:
        service.until(lambda: service.monitor.state == STREAMING)
    text = "\n".join(service.lines)
    assert "interrupted: PostgreSQL has 0 reachable primaries" in text
    assert "the spool cannot be used: No space left on device" in text
    assert service.lines[-1] == "ended"
    assert service.failure is None


def test_nothing_is_signed_while_the_clock_is_wrong() -> None:
    service = Service()
    service.skews = [-3600.0, 3600.0]
    with service:
        service.until(lambda: service.monitor.state == STREAMING)
    hours = [line for line in service.lines if "synchronise both with NTP" in line]
    assert len(hours) == 2
    assert service.streams[0].calls == 1


def test_an_engines_own_words_are_not_printed_or_noted() -> None:
    quoted = TemporaryError("PostgreSQL, node-0: SQLSTATE 57P01", said="Key (name)=(Ann) exists")
    with Service(fails(quoted)) as service:
        service.until(lambda: service.monitor.state == STREAMING)
    assert not [line for line in service.lines if "Ann" in line]


def test_a_refusal_ends_the_service_with_its_reason_and_notes_it_on_the_lease() -> None:
    with Service(fails(PermanentError("the store refuses the key"))) as service:
        service.join()
    assert str(service.failure) == "the store refuses the key"
    note = read_note(service.lease["metadata"]["annotations"][OPERATION])
    assert note is not None
    assert (note.state, note.reason) == (INTERRUPTED, "the store refuses the key")
    assert service.lease["spec"]["holderIdentity"] == ""


def test_a_second_stream_says_who_holds_the_lease_and_goes_on_when_it_is_released() -> None:
    service = Service()
    other = Lease(service.kube, CONTROL, LEASE, purpose="another", holder="worker-9/1/1/x")
    stored = service.kube
    with other:
        stored.objects["Lease", LEASE]["metadata"]["resourceVersion"] = "1"
        stored.objects["Lease", LEASE]["spec"]["renewTime"] = stored.now().isoformat()
        with service:
            service.until(lambda: service.monitor.state == WAITING and len(service.lines) > 0)
            service.ended.set()
    assert "lease isa-wal-postgresql is held by worker-9/1/1/x (another)" in service.lines[0]
    assert service.streams == []


def test_a_stream_that_lost_its_lease_ends_its_connection_and_waits_for_it_again() -> None:
    def lose(stream: Any) -> None:
        stream.round()
        service.lease["spec"]["holderIdentity"] = "worker-9/1/1/x"
        while not stream.stopped():
            time.sleep(0.005)
        service.lease["spec"]["holderIdentity"] = ""

    service = Service(lose)
    with service:
        service.until(lambda: len(service.streams) == 2)


def test_the_end_is_not_delayed_by_what_waits_in_the_spool() -> None:
    ended = threading.Event()
    monitor = StreamMonitor(lambda line: None, LIMIT)
    settings = SimpleNamespace(backup=SimpleNamespace(age_recipients=()))
    writer = EndedWriter(SimpleNamespace(), settings, KEY, monitor, ended.is_set)  # type: ignore[arg-type]
    ended.set()
    with pytest.raises(Cancelled):
        writer.put(WalObject("test", "1", 1, 0, 1, "", "00" * 32, None, NOON), b"x")


def test_gaps_and_the_recovery_point_are_known_again_after_a_restart() -> None:
    def gap(stream: Any) -> None:
        stream.round(gaps=2, last_gap=NOON, covers=NOON)
        raise PermanentError("the key was replaced")

    first = Service(gap)
    with first:
        first.join()
    second = Service()
    second.kube = first.kube
    vars(second.environment)["kube"] = first.kube
    with second:
        second.until(lambda: second.monitor.rounds > 0)
        note = second.monitor.note()
    assert (note.gaps, note.last_gap) == (2, NOON)


def test_no_stream_is_started_where_the_doctor_would_not_notice_its_end() -> None:
    settings: Any = SimpleNamespace(wal=SimpleNamespace(postgresql=PostgresqlWal()))
    with pytest.raises(ConfigurationError, match=r"wal\.postgresql\.enabled"):
        require_enabled(settings)


# ---------------------------------------------------------------------- the monitor
class Observed:
    """A monitor whose clock is turned by hand."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.seconds = 0.0
        self.monitor = StreamMonitor(self.lines.append, LIMIT, lambda: self.seconds, lambda: NOON)

    def round(self, **status: Any) -> None:
        self.monitor.observe(StreamStatus(**{"timeline": 1, "stored_lsn": 0x3000028} | status))


@pytest.fixture
def observed() -> Observed:
    return Observed()


def test_a_line_is_printed_at_each_change_and_none_between(observed: Observed) -> None:
    changes: tuple[dict[str, Any], ...] = (
        {}, {"store": "away"}, {}, {"timeline": 2}, {"timeline": 2, "diverged": "another history"},
    )  # fmt: skip
    for change in changes:
        for _ in range(3):
            observed.round(**change)
    assert observed.lines == [
        "streaming timeline 1; stored up to 0/3000028",
        "the store takes nothing, WAL waits in the spool: away",
        "the store takes WAL again; stored up to 0/3000028",
        "streaming timeline 2; stored up to 0/3000028",
        "another history",
    ]


def test_the_recovery_point_grows_while_nothing_is_received(observed: Observed) -> None:
    assert observed.monitor.recovery_point_seconds is None
    observed.round(covers=NOON, newest=NOON + timedelta(seconds=2))
    assert observed.monitor.recovery_point_seconds == 2.0
    observed.seconds += 90
    observed.monitor.interrupted("the primary is lost")
    assert observed.monitor.recovery_point_seconds == 92.0
    observed.round(covers=NOON + timedelta(seconds=91), newest=NOON + timedelta(seconds=92))
    assert observed.monitor.recovery_point_seconds == 1.0


def test_a_stream_that_fails_lives_and_one_that_does_nothing_does_not(observed: Observed) -> None:
    for _ in range(5):
        observed.seconds += ALIVE_SECONDS - 1
        assert observed.monitor.alive
        observed.monitor.interrupted("no primary")
    observed.seconds += ALIVE_SECONDS
    assert not observed.monitor.alive
    observed.monitor.progress()  # an object was stored
    assert observed.monitor.alive


def test_the_note_is_read_as_it_was_written_and_any_other_text_is_none(observed: Observed) -> None:
    observed.round(covers=NOON, newest=NOON, gaps=1, slots={"node-0": SlotUse(5, None)})
    note = observed.monitor.note()
    assert read_note(note_text(note)) == note
    others = ("", "x", "[]", "{}", "[" * 9000, note_text(note) + " " * (1 << 15))
    assert [read_note(text) for text in others] == [None] * 6
    changed = {**json.loads(note_text(note)), "gaps": "many"}
    assert read_note(json.dumps(changed)) is None


def test_port_answers_kubelet_and_prometheus(observed: Observed) -> None:
    observed.round(
        covers=NOON, newest=NOON + timedelta(seconds=1), spool_bytes=7, gaps=2,
        slots={"node-0": SlotUse(5, 20), "node-1": SlotUse(6, None)},
    )  # fmt: skip

    def measured() -> str:
        return metrics(observed.monitor.note(), "test", "postgresql")

    with serving(lambda: observed.monitor.alive, measured, port=0) as port:
        address = f"http://127.0.0.1:{port}"
        assert httpx.get(f"{address}/health").status_code == 200
        observed.seconds += ALIVE_SECONDS
        assert httpx.get(f"{address}/health").status_code == 503
        assert httpx.get(f"{address}/other").status_code == 404
        answer = httpx.get(f"{address}/metrics")
        with pytest.raises(PermanentError, match=f"port {port}"), serving(bool, str, port):
            pass
    found = {
        (name, dict(labels).get("member", "")): value
        for name, vector in samples(answer.text).items()
        for labels, value in vector.items()
    }
    assert found["isa_cloud_wal_streaming", ""] == 1
    assert found["isa_cloud_wal_recovery_point_seconds", ""] == 1 + ALIVE_SECONDS
    assert found["isa_cloud_wal_stored_lsn_bytes", ""] == 0x3000028
    assert found["isa_cloud_wal_spool_bytes", ""] == 7
    assert found["isa_cloud_wal_gaps", ""] == 2
    assert found["isa_cloud_wal_slot_held_bytes", "node-1"] == 6
    assert found["isa_cloud_wal_slot_limit_bytes", "node-0"] == 20
    assert ("isa_cloud_wal_slot_limit_bytes", "node-1") not in found


def test_what_is_not_known_is_no_metric(observed: Observed) -> None:
    text = metrics(observed.monitor.note(), "test", "postgresql")
    assert "isa_cloud_wal_recovery_point_seconds{" not in text
    assert "isa_cloud_wal_stored_lsn_bytes{" not in text
