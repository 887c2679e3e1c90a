"""What is made of the seven clients' exceptions, and how members are asked."""

from __future__ import annotations

import ssl
import threading

import pytest

from components.access import Endpoint
from components.questions import Round, ask_members, explain, words
from errors import PermanentError


def member(name: str, host: str = "127.0.0.1") -> Endpoint:
    return Endpoint(name, host, 1, host, "node-1")


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ('FATAL: password authentication failed for user "isa"', "refused the credentials"),
        ("WRONGPASS invalid username-password pair or user is disabled.", "refused the credentials"),
        ("nats: 'Authorization Violation'", "refused the credentials"),
        ("An error occurred (InvalidAccessKeyId) when calling ListBuckets", "refused the credentials"),
        ("[Errno 111] Connect call failed ('127.0.0.1', 4222)", "nothing listens there"),
        ("connection to server at 10.0.0.1, port 5432 failed: Connection refused", "nothing listens there"),
        ("Timeout reading from socket", "does not answer"),
        ("connection timeout expired", "does not answer"),
        ("certificate verify failed: certificate has expired (_ssl.c:1006)", "has expired"),
        ("certificate verify failed: unable to get local issuer certificate", "not trusted"),
        ("server closed the connection unexpectedly", "closed the connection"),
    ],
)  # fmt: skip
def test_a_client_s_words_become_what_it_means_and_stay_readable(said: str, meant: str) -> None:
    explained = explain(RuntimeError(said))
    assert meant in explained
    assert said[:40] in explained


def test_the_cause_behind_a_wrapper_counts() -> None:
    try:
        try:
            raise ssl.SSLCertVerificationError("certificate has expired")
        except ssl.SSLError as exc:
            raise RuntimeError("All connection attempts failed") from exc
    except RuntimeError as exc:
        assert "has expired" in explain(exc)


def test_our_own_errors_say_themselves_what_to_do() -> None:
    assert (
        explain(PermanentError("Secret redis-auth does not exist"))
        == "Secret redis-auth does not exist"
    )


def test_an_exception_settles_a_check_as_not_ok_with_its_meaning() -> None:
    questions = Round()
    with questions.check("write") as answer:
        answer.settle(True)
        raise ConnectionRefusedError(111, "Connection refused")
    (check,) = questions.checks
    assert not check.ok
    assert check.critical
    assert "nothing listens there" in check.hint


def test_all_members_are_asked_at_the_same_time() -> None:
    together = threading.Barrier(3, timeout=5)
    answers = ask_members([member(n) for n in "abc"], lambda _: together.wait() >= 0)
    assert answers.good == {"a": True, "b": True, "c": True}


def test_one_member_s_trouble_leaves_the_others_answers() -> None:
    def question(m: Endpoint) -> str:
        if m.member == "b":
            raise TimeoutError("timed out")
        return m.member

    answers = ask_members([member("a"), member("b"), member("c", "")], question)
    assert answers.good == {"a": "a"}
    check = answers.check("nodes answer")
    assert not check.ok
    assert "b: it accepts connections but does not answer" in check.hint
    assert "c: its pod has no address" in check.hint


def test_members_with_one_trouble_share_a_line() -> None:
    assert words({"a": "down", "b": "down", "c": "late"}) == "a, b: down; c: late"
