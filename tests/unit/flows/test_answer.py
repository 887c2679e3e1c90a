"""An approval by `isa approve`: what the server makes of it is said at once."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    PREFECT_CLIENT_RETRY_EXTRA_CODES,
    temporary_settings,
)

from errors import ArgumentError, PermanentError
from tasks.server import runs
from tasks.server.runs import answer

THERE, NOWHERE = "9d0f0c3e-0000-4000-8000-000000000001", "9d0f0c3e-0000-4000-8000-000000000002"
WORDS = {"decision": "approve", "name": "Ada", "ticket": "T-1"}


class Server(ThreadingHTTPServer):
    """Answers as Prefect's server does (prefect/server/api/flow_runs.py, 3.8.8).

    `read_flow_run` gives 404 for a run that does not exist; `resume_flow_run` looks at its state without asking whether
    there is one, which is HTTP 500. A refused answer is HTTP 200.
    """

    def __init__(self, *resumes: dict[str, Any]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.resumes = list(resumes)
        self.asked: list[str] = []

    def answer(self, method: str, path: str) -> tuple[int, dict[str, Any]]:
        self.asked.append(f"{method} {path.rpartition('/api')[2]}")
        if method == "POST":
            return (200, self.resumes.pop(0)) if THERE in path else (500, {})
        if THERE in path:
            return 200, {"id": THERE, "flow_id": THERE, "name": "rebuild-nats"}
        return 404, {"detail": "Flow run not found"}


class Handler(BaseHTTPRequestHandler):
    server: Server

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        code, document = self.server.answer(self.command, self.path)
        body = json.dumps(document).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = _answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()
    # as the workers' image has them: the client repeats a 500 for eleven minutes
    settings = {
        PREFECT_API_URL: f"http://127.0.0.1:{made.server_port}/api",
        PREFECT_CLIENT_MAX_RETRIES: 8,
        PREFECT_CLIENT_RETRY_EXTRA_CODES: "500,504",
    }
    with temporary_settings(settings):
        yield made
    made.shutdown()
    made.server_close()


def rejected(reason: str, status: str = "REJECT") -> dict[str, Any]:
    return {
        "state": None,
        "status": status,
        "details": {"type": f"{status.lower()}_details", "reason": reason},
    }


ACCEPTED = {"state": None, "status": "ACCEPT", "details": {"type": "accept_details"}}


def test_a_run_that_does_not_exist_is_known_at_once(server: Server) -> None:
    with pytest.raises(PermanentError, match=f"this server has no flow run {NOWHERE}"):
        answer(NOWHERE, WORDS)
    assert server.asked == [f"GET /flow_runs/{NOWHERE}"]  # nothing was repeated


def test_an_answer_that_is_taken_is_sent_once(server: Server) -> None:
    server.resumes = [ACCEPTED]
    answer(THERE, WORDS)
    assert [one for one in server.asked if "POST" in one] == [f"POST /flow_runs/{THERE}/resume"]


@pytest.mark.parametrize("status", ["REJECT", "ABORT"])
def test_an_answer_that_is_refused_says_why(status: str, server: Server) -> None:
    server.resumes = [rejected("it is not paused", status)]
    with pytest.raises(PermanentError, match="it is not paused"):
        answer(THERE, WORDS)


def test_a_run_whose_form_is_not_there_yet_is_asked_again(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(runs, "ASKED_SECONDS", 300.0)  # of a machine that does other work, too
    server.resumes = [rejected(runs.NOT_ASKED), rejected(runs.NOT_ASKED), ACCEPTED]
    answer(THERE, WORDS)
    assert server.resumes == []


def test_what_is_no_id_is_wrong_usage() -> None:
    with pytest.raises(ArgumentError, match="FLOW_RUN"):
        answer("rebuild-nats", WORDS)
