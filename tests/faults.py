"""An S3 client with one call that goes wrong, and the ways in which it may."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

SLOW_SECONDS = 0.05
Call = Callable[[], Any]
Trouble = Callable[[Call], Any]


def reset(call: Call) -> Any:
    raise ConnectionResetError(104, "Connection reset by peer")


def lost_reply(call: Call) -> Any:
    call()
    raise ConnectionResetError(104, "Connection reset by peer")


def busy(call: Call) -> Any:
    raise _refusal("SlowDown", 503)


def denied(call: Call) -> Any:
    raise _refusal("AccessDenied", 403)


def slow(call: Call) -> Any:
    time.sleep(SLOW_SECONDS)
    return call()


def _refusal(code: str, status: int) -> ClientError:
    answer: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "PutObject")


@dataclass
class Troubled:
    """A boto3 client with a fault.

    Attributes:
        client: the real one.
        position: which call goes wrong, from 0; none if negative.
        trouble: how.
        calls: names of those made so far.
    """

    client: Any
    position: int = -1
    trouble: Trouble = reset
    calls: list[str] = field(default_factory=list)

    @property
    def meta(self) -> Any:
        return self.client.meta

    def __getattr__(self, name: str) -> Any:
        real = getattr(self.client, name)

        def call(**arguments: Any) -> Any:
            hit = len(self.calls) == self.position
            self.calls.append(name)
            return self.trouble(lambda: real(**arguments)) if hit else real(**arguments)

        return call
