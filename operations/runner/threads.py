"""Runs the nodes of a graph as threads of this process, with the same retries as in Prefect."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from cluster.command import CANCELLATION
from cluster.dag import Dag
from errors import PermanentError, TemporaryError
from operations.runner.walk import Done, NodeResult, Start, Work

log = logging.getLogger(__name__)


@contextmanager
def threads(parallel: int, attempts: int) -> Iterator[Callable[[Dag, Work], Start]]:
    """Run nodes as threads of this process, with the same retries as in Prefect.

    Args:
        parallel: nodes running at the same time.
        attempts: attempts for a node that fails for a temporary reason.
    """
    with ThreadPoolExecutor(parallel, thread_name_prefix="node") as pool:

        def start(_: Dag, work: Work) -> Start:
            def begin(node: str, done: Done) -> None:
                def attempt() -> None:
                    try:
                        done(retrying(lambda: work(node), attempts))
                    except Exception as exc:  # a defect of ours too must not leave the walk waiting
                        done(exc)

                pool.submit(attempt)

            return begin

        yield start


def retrying(call: Callable[[], NodeResult], attempts: int) -> NodeResult:
    """Call again after temporary errors, each time after the delay that the error asks for.

    Raises:
        TemporaryError: the last attempt's.
        PermanentError: at once.
    """
    for attempt in range(1, attempts + 1):
        try:
            return call()
        except TemporaryError as exc:
            if attempt == attempts:
                raise
            log.info("%s; attempt %d of %d in %.0f s", exc, attempt + 1, attempts, exc.delay)
            CANCELLATION.sleep(exc.delay)
    raise PermanentError(f"{attempts} attempts allow none")
