"""What the project's modules log goes to the log of the flow run, from any thread."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest
from prefect.logging import handlers

from calls import LOGGERS
from tasks.logs import logged

RUN = "0b9a3c6e-5d0f-4a55-9d4c-3f6a1f2f7b11"


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    monkeypatch.setattr(handlers, "emit_api_log", lines.append)
    monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__ID", RUN)
    return lines


def test_a_thread_without_a_run_of_its_own_logs_to_the_process_s_run(
    sent: list[dict[str, Any]],
) -> None:
    with logged():
        said = logging.getLogger("operations.health.gate").info
        thread = threading.Thread(target=said, args=("%s: %s", "redis", "replica is away"))
        thread.start()
        thread.join()
    assert [(line["flow_run_id"], line["name"], line["message"]) for line in sent] == [
        (RUN, "operations.health.gate", "redis: replica is away")
    ]


def test_details_stay_out_of_the_run_s_log(sent: list[dict[str, Any]]) -> None:
    with logged():
        logging.getLogger("calls").debug("GET /collections: 0.01 s")
    assert not sent


def test_behind_the_flow_nothing_is_sent_and_levels_are_as_before(
    sent: list[dict[str, Any]],
) -> None:
    before = [logging.getLogger(name).level for name in LOGGERS]
    with logged():
        pass
    logging.getLogger("cluster.kube").info("behind it")
    assert not sent
    assert [logging.getLogger(name).level for name in LOGGERS] == before


def test_every_package_that_logs_is_sent() -> None:
    assert {"archive", "cluster", "components", "operations", "calls"} == set(LOGGERS)
