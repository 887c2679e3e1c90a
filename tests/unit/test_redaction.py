from __future__ import annotations

import base64
import io
import logging
import time
from collections.abc import Iterator
from urllib.parse import quote, urlsplit

import pytest

from errors import PermanentError, TemporaryError
from redaction import MASK, RecordFactory, Redactor

PASSWORD = 'k9/Tz"42 geheim&mehr'
URL = f"postgresql+asyncpg://prefect:{quote(PASSWORD, safe='')}@db.example:5432/prefect"
IDENTITY = """# created: 2026-11-01
# public key: age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqq
AGE-SECRET-KEY-1QQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQ
"""


@pytest.fixture
def redact() -> Redactor:
    made = Redactor()
    made.remember(PASSWORD)
    return made


@pytest.mark.parametrize(
    "form",
    [
        PASSWORD,
        quote(PASSWORD, safe=""),
        base64.b64encode(PASSWORD.encode()).decode(),
        PASSWORD.replace('"', '\\"'),
    ],
)
def test_a_secret_is_read_in_no_form_in_which_it_travels(redact: Redactor, form: str) -> None:
    assert redact(f"login as isa with <{form}> was refused") == (
        f"login as isa with <{MASK}> was refused"
    )


def test_of_a_url_or_a_pair_the_password_is_secret_alone_and_the_user_is_not() -> None:
    redact = Redactor()
    redact.remember(URL)
    redact.remember("neo4j/aVeryLongPassword1")
    redact.remember("isa:anotherPassword2")
    for password in (PASSWORD, "aVeryLongPassword1", "anotherPassword2"):
        assert redact(f"({password})") == f"({MASK})"
    assert redact("neo4j and isa at db.example") == "neo4j and isa at db.example"


def test_a_password_that_was_not_quoted_in_its_url_is_secret_in_its_parts() -> None:
    redact = Redactor()
    url = "postgresql://prefect:Wort-4711-geheim/und@mehr@db.example/prefect"
    redact.remember(url)
    with pytest.raises(ValueError) as caught:
        assert urlsplit(url).port
    assert redact(str(caught.value)) == f"Port could not be cast to integer value as '{MASK}'"
    assert redact("db.example/prefect") == "db.example/prefect"


def test_of_a_key_file_every_line_is_secret_but_its_comments() -> None:
    redact = Redactor()
    redact.remember("-----BEGIN KEY-----\nMIIEvgIBADANBgkqhkiG9w0BAQEFAASC\n-----END KEY-----\n")
    assert redact("bad line MIIEvgIBADANBgkqhkiG9w0BAQEFAASC") == f"bad line {MASK}"
    redact.remember(IDENTITY)
    assert redact("recipient age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqq") == (
        "recipient age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqq"
    )


def test_names_stay_readable_though_a_secret_holds_them() -> None:
    redact = Redactor()
    for name in ("isa", "postgres", "prefect-database", "5432", ""):
        redact.remember(name)
    words = "isa asks postgres, postgresql and prefect-database on 5432"
    assert redact(words) == words


def test_what_looks_like_a_credential_needs_not_be_known() -> None:
    redact = Redactor()
    assert redact("GET https://isa:pw@s3/b?X-Amz-Signature=ab12&part=1 failed") == (
        f"GET https://isa:{MASK}@s3/b?X-Amz-Signature={MASK}&part=1 failed"
    )
    assert redact("{'Authorization': 'Basic aXNhOnB3'}") == f"{{'Authorization': 'Basic {MASK}'}}"
    assert redact(IDENTITY.splitlines()[-1]) == MASK
    for address, what_stays in (
        ("https://hooks.slack.com/services/T0/B0/XyZ", "https://hooks.slack.com/"),
        ("https://discord.com/api/webhooks/12/XyZ", "https://discord.com/api/webhooks/"),
        ("slack://T0/B0/XyZ", "slack://"),
    ):
        assert redact(f"{address} refuses") == f"{what_stays}{MASK} refuses"
    words = "Basic authentication at https://s3.example:9000/bucket@2?part=1"
    assert redact(words) == words


def test_a_secret_that_holds_another_is_replaced_whole() -> None:
    redact = Redactor()
    redact.remember("password1")
    redact.remember("password1-and-more")
    assert redact("password1-and-more, password1") == f"{MASK}, {MASK}"


# ---------------------------------------------------------------------- log records
@pytest.fixture
def log(redact: Redactor) -> Iterator[tuple[logging.Logger, io.StringIO]]:
    """A logger with a handler of a library that knows nothing of us."""
    before, said = logging.getLogRecordFactory(), io.StringIO()
    logger, handler = logging.getLogger("somebody.else"), logging.StreamHandler(said)
    logger.addHandler(handler)
    logging.setLogRecordFactory(RecordFactory(redact, before))
    yield logger, said
    logging.setLogRecordFactory(before)
    logger.removeHandler(handler)


def test_no_handler_gets_a_secret_from_message_arguments_or_traceback(
    log: tuple[logging.Logger, io.StringIO],
) -> None:
    logger, said = log
    logger.warning("refused: %s", PASSWORD)
    logger.warning("refused: %(what)s", {"what": PASSWORD})
    try:
        try:
            raise PermanentError(f"login with {PASSWORD}")
        except PermanentError as exc:
            raise TemporaryError("away") from exc
    except TemporaryError:
        logger.exception("failed")
    text = said.getvalue()
    assert PASSWORD not in text
    assert text.count(f"refused: {MASK}") == 2
    assert f"PermanentError: login with {MASK}" in text and "TemporaryError: away" in text


def test_a_record_whose_arguments_do_not_fit_breaks_nothing(
    log: tuple[logging.Logger, io.StringIO],
) -> None:
    logger, said = log
    logger.warning("only %d", PASSWORD)
    assert said.getvalue() == f"only %d ('{MASK}',)\n"


def test_a_record_is_one_line_whatever_a_name_in_it_holds(
    log: tuple[logging.Logger, io.StringIO],
) -> None:
    logger, said = log
    logger.warning("collection %s", "x\nERROR isa: forged\x1b[2J")
    try:
        raise PermanentError("no \x1b[2J")
    except PermanentError:
        logger.exception("failed")
    first, second, *trace = said.getvalue().splitlines()
    assert (first, second) == (r"collection x\nERROR isa: forged\x1b[2J", "failed")
    assert trace[-1] == r"errors.PermanentError: no \x1b[2J"


@pytest.mark.parametrize(
    "verifier",
    [
        "SCRAM-SHA-256$4096:c2FsdA==$c3RvcmVkS2V5:c2VydmVyS2V5",
        "SCRAM-SHA-256$4096:c2Fs",
        "md5" + "0123456789abcdef" * 2,
    ],
)
def test_a_password_s_verifier_is_read_nowhere(redact: Redactor, verifier: str) -> None:
    assert redact(f"CREATE ROLE a PASSWORD '{verifier}'") == f"CREATE ROLE a PASSWORD '{MASK}'"


def test_no_text_takes_long_to_be_redacted(redact: Redactor) -> None:
    """An engine's words and a tenant's names are redacted: they may be made for it."""
    began = time.process_time()
    for part in (
        "hook",
        "://hook",
        "a:",
        "slack://",
        "authorization:",
        "?token=",
        "SCRAM-SHA-256$",
    ):
        redact(f"://{part * 100_000}")
    assert time.process_time() - began < 10
