"""`isa -v` prints waits and retries on standard error, `isa -vv` every call; ISA_LOG_FORMAT=json prints objects."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator

import pytest

from calls import LOGGERS, Calls
from cli.printing.failures import verbosity
from cli.printing.logs import log_to_stderr


@pytest.fixture
def printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], str]]:
    root, levels = logging.getLogger(), {name: logging.getLogger(name).level for name in LOGGERS}
    # without Prefect's, which a test that imported it has left with a standard error that is closed
    monkeypatch.setattr(root, "handlers", [])
    yield lambda: capsys.readouterr().err
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def work() -> None:
    """What a backup does that hangs and is repeated."""
    seconds = 0.0
    calls = Calls(lambda: seconds)
    with calls.open("Redis 10.0.0.7:6379: PSYNC"):
        seconds = 12.0
        calls.report()
        seconds = 13.0
    logging.getLogger("operations.deploy.run").info("attempt 2 of 3 in 5 s")
    logging.getLogger("cluster.lease").warning("the Lease is lost")


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        ((), ["cluster.lease: the Lease is lost"]),
        (
            ("-v",),
            [
                "calls: waiting for Redis 10.0.0.7:6379: PSYNC for 12 s",
                "operations.deploy.run: attempt 2 of 3 in 5 s",
                "cluster.lease: the Lease is lost",
            ],
        ),
        (
            ("-v", "-v"),
            [
                "calls: waiting for Redis 10.0.0.7:6379: PSYNC for 12 s",
                "calls: Redis 10.0.0.7:6379: PSYNC: 13.00 s",
                "operations.deploy.run: attempt 2 of 3 in 5 s",
                "cluster.lease: the Lease is lost",
            ],
        ),
    ],
    ids=["warnings", "waits", "calls"],
)
def test_what_is_printed_grows_with_v(
    printed: Callable[[], str], arguments: tuple[str, ...], lines: list[str]
) -> None:
    log_to_stderr(verbosity(arguments))
    work()
    found = printed().splitlines()
    bare = [line.partition(" ")[2] for line in found] if arguments else found
    assert bare == lines


def test_each_line_is_an_object_where_a_collector_reads_them(printed: Callable[[], str]) -> None:
    log_to_stderr(1, "json")
    work()
    first = json.loads(printed().splitlines()[0])
    assert first["message"] == "waiting for Redis 10.0.0.7:6379: PSYNC for 12 s"
    assert (first["level"], first["logger"]) == ("info", "calls")


@pytest.mark.parametrize("form", ["", "json"])
def test_a_traceback_is_printed_with_its_record(printed: Callable[[], str], form: str) -> None:
    log_to_stderr(1, form)
    try:
        raise ValueError("the cause")
    except ValueError:
        logging.getLogger("cluster.lease").exception("the Lease is lost")
    found = printed()
    if form:
        records = [json.loads(line) for line in found.splitlines()]
        assert all("Traceback" not in record["message"] for record in records)
        assert records[-1]["level"] == "error"
    else:
        assert "ValueError: the cause" in found.splitlines()


def test_libraries_stay_silent_below_a_warning(printed: Callable[[], str]) -> None:
    log_to_stderr(2)
    logging.getLogger("urllib3.connectionpool").debug("GET /api")
    logging.getLogger("botocore.retries").info("retry")
    assert not printed()


@pytest.mark.parametrize(
    ("arguments", "times"),
    [("deploy --only redis", 0), ("-v deploy", 1), ("deploy -vv", 2), ("--verbose -v x", 2)],
)
def test_v_counts_wherever_it_stands(arguments: str, times: int) -> None:
    assert verbosity(arguments.split()) == times
