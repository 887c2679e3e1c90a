"""Redacts secret values that this process has read or created, and text that looks like a credential.

Prefect stores logs, state messages, artifacts and events unchanged, and an engine's error may repeat its input. So a
value is registered where it is read or created (`cluster.kube`, `cluster.credentials`), and text is redacted where it
leaves: log records (`install`), states, artifacts and events (`tasks`), the terminal (`cli`).
"""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import sys
import threading
import traceback
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, unquote

from config.text.printable import visible

MASK = "‹redacted›"  # no markup of rich, none of Markdown
# Shorter ones, and short plain words (`postgres`, `prefect-database`), are names: their loss would spoil every message.
SHORTEST = 8
NAME = re.compile(r"[a-z-]{1,20}")
# Of Prefect's settings, those that hold a credential; its runs get their worker's by the environment.
ENVIRONMENT = re.compile(r"PREFECT_\w*(AUTH_STRING|API_KEY|CONNECTION_URL|PASSWORD)")
# What is redacted already stays, with the markup that was put behind it: artifacts are redacted again where they leave.
ANEW = rf"(?!{MASK}[^\w\s]*(?:\s|$))"
PATTERNS = (
    (re.compile(r"(?<=://)([^\s/@:'\"]*):[^\s/@'\"]+(?=@)"), rf"\1:{MASK}"),
    # anyone who knows the address of a chat's webhook can write to it
    (
        re.compile(rf"(://(?=[\w.-]*hook)[\w.-]*/|/webhooks/){ANEW}[^\s'\"]+", re.IGNORECASE),
        rf"\1{MASK}",
    ),
    (
        re.compile(rf"\b((?:slack|discord|msteams)://){ANEW}[^\s'\"]+", re.IGNORECASE),
        rf"\1{MASK}",
    ),
    (re.compile(r"AGE-SECRET-KEY-[0-9A-Z-]+"), MASK),
    # what PostgreSQL keeps of a password; who has it can try passwords (pg_authid.rolpassword)
    (re.compile(r"SCRAM-SHA-256\$[\w+/=:$-]*|\bmd5[0-9a-f]{32}\b"), MASK),
    (
        re.compile(
            rf"(authorization['\"]?: *['\"]?(?:basic|bearer) +){ANEW}[^\s'\"]+", re.IGNORECASE
        ),
        rf"\1{MASK}",
    ),
    (
        re.compile(
            r"([?&](?:password|token|secret|api[-_]?key|signature|awsaccesskeyid|x-amz-"
            rf"(?:signature|credential|security-token))=){ANEW}[^\s&#'\"]+",
            re.IGNORECASE,
        ),
        rf"\1{MASK}",
    ),
)


class Redactor:
    """Secret values, in all their encodings. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: tuple[str, ...] = ()

    def remember(self, secret: str) -> str:
        """Redact a value in all text from now on; returns the value, so a caller can register it while creating it.

        Args:
            secret: a password, key, certificate, `user:password`, or URL with a password in it.
        """
        forms = {form for piece in _pieces(secret) for form in _forms(piece)}
        with self._lock:
            if not forms <= set(self._known):
                # the longest first: what holds another one is replaced whole
                self._known = tuple(sorted({*self._known, *forms}, key=len, reverse=True))
        return secret

    def __call__(self, text: str) -> str:
        """Return the text with secrets replaced."""
        for secret in self._known:
            text = text.replace(secret, MASK)
        for pattern, mask in PATTERNS:
            text = pattern.sub(mask, text)
        return text


redact = Redactor()


def shown(text: str, *, lines: bool = False) -> str:
    """Return a text for people: secrets replaced, control characters as text.

    Args:
        text: anything.
        lines: whether its newlines are the project's own, and stay.
    """
    return visible(redact(text), lines=lines)


class RecordFactory:
    """Creates log records that are redacted and on one line, before any handler of any library sees them.

    Args:
        redactor: of the secrets.
        make: the previous factory.
    """

    def __init__(self, redactor: Redactor, make: Any) -> None:
        self._redact = redactor
        self._make = make

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        """As `logging.LogRecord` is called."""
        record: logging.LogRecord = self._make(*args, **kwargs)
        try:
            words = record.getMessage()
        except (TypeError, ValueError, KeyError):  # arguments that do not fit: no reason to fail
            words = f"{record.msg} {record.args}"
        record.msg, record.args = visible(self._redact(words)), ()
        if record.exc_info and record.exc_info[0]:
            # formatters take the text where there is one, and would make their own from the exception
            trace = self._redact(logging.Formatter().formatException(record.exc_info))
            record.exc_text = visible(trace, lines=True)
            record.exc_info = None
        elif record.exc_text:  # by another factory like this one
            record.exc_text = visible(self._redact(record.exc_text), lines=True)
        if record.stack_info:
            record.stack_info = visible(self._redact(record.stack_info), lines=True)
        return record


def install() -> None:
    """Redact every log record of this process, and the traceback of an error that ends it or one of its threads."""
    for name, value in os.environ.items():
        if ENVIRONMENT.fullmatch(name):
            redact.remember(value)
    make = logging.getLogRecordFactory()
    if not isinstance(make, RecordFactory):
        logging.setLogRecordFactory(RecordFactory(redact, make))
    sys.excepthook = lambda kind, error, trace: _tell(error)
    threading.excepthook = lambda args: _tell(args.exc_value)


def _tell(error: BaseException | None) -> None:
    if error is not None and not isinstance(error, SystemExit):
        sys.stderr.write(shown("".join(traceback.format_exception(error)), lines=True))


def _pieces(secret: str) -> Iterator[str]:
    """Return the value and those parts of it that are secret by themselves."""
    secret = secret.strip()
    yield secret
    lines = [line.strip() for line in secret.splitlines()]
    if len(lines) > 1:  # keys and certificates: a message may repeat one line
        yield from (line for line in lines if " " not in line and not line.startswith("#"))
    elif found := re.fullmatch(r"[\w+.-]+://[^:/@]*:(.+)@.*", secret):
        # one that was not quoted comes in parts: urllib takes `pass/word` for a port and repeats it
        yield from (unquote(found[1]), *re.split("[/?#@:]", found[1]))
    else:  # `user:password`, and Neo4j's `user/password`
        yield re.sub(r"\A[\w.-]{1,32}[:/]", "", secret)


def _forms(secret: str) -> Iterator[str]:
    """Return the encodings of a value: in a URL, JSON, Python's repr, escaped for people, in a Secret or a header."""
    if len(secret) < SHORTEST or NAME.fullmatch(secret):
        return
    yield secret
    yield quote(secret, safe="")
    yield json.dumps(secret)[1:-1]
    yield repr(secret)[1:-1]
    yield visible(secret)
    yield base64.b64encode(secret.encode()).decode()
