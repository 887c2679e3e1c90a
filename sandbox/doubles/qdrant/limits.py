"""Strict mode: the limits of a collection.

As qdrant/qdrant v1.19.0 has it: lib/collection/src/operations/verification/mod.rs (limits of a request),
lib/common/common/src/rate_limiting.rs and src/actix/helpers.rs (rates, `Retry-After`), src/common/update.rs (indexes).
"""

from __future__ import annotations

import math
import threading
import time
from typing import Any

from sandbox.doubles.qdrant.errors import Refused


class Rates:
    """Remaining reads of each collection: at most those of a minute, refilled every second."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left: dict[str, tuple[float, float]] = {}

    def read(self, uid: str, spec: dict[str, Any]) -> None:
        """Take one read.

        Raises:
            Refused: 429, with the seconds until the next read.
        """
        limit = strict(spec).get("read_rate_limit")
        if limit is None:
            return
        with self._lock:
            now, each = time.monotonic(), limit / 60
            left, before = self._left.get(uid, (float(limit), now))
            left = min(float(limit), left + each * (now - before))
            if left < 1:
                self._left[uid] = (left, now)
                seconds = math.ceil((1 - left) / each)
                text = f"Rate limiting exceeded: Read rate limit exceeded. Retry after {seconds}s"
                raise Refused(429, text, retry_after=seconds)
            self._left[uid] = (left - 1, now)


def strict(spec: dict[str, Any]) -> dict[str, Any]:
    """The limits of a collection; empty if strict mode is off."""
    found: dict[str, Any] = spec.get("strict_mode_config") or {}
    return found if found.get("enabled") else {}


def require_page(spec: dict[str, Any], limit: int) -> None:
    """Check that a request may ask for this many points."""
    most = strict(spec).get("max_query_limit")
    if most is not None and limit > most:
        text = f'Limit exceeded {limit} > {most} for "limit"'
        raise Refused(400, f'Bad request: {text}. Help: Reduce the "limit" parameter.')


def require_index(spec: dict[str, Any], there: int) -> None:
    """Check that another payload index may be created."""
    most = strict(spec).get("max_payload_index_count")
    if most is not None and there >= most:
        text = f"Collection already has the maximum number of payload indices ({most})"
        raise Refused(400, f"Bad request: {text}")
