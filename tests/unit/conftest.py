"""What every unit test begins with."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator

import pytest

from cluster.command import CANCELLATION
from config.text import documents


@pytest.fixture(autouse=True)
def no_run_is_cancelled() -> None:
    """A process has one run; here it has many tests, and one that cancels must not end those behind it."""
    CANCELLATION.clear()


@pytest.fixture(autouse=True, scope="session")
def a_text_of_yaml_is_parsed_once() -> Iterator[None]:
    """The parser that notes double keys takes 15 ms for a file of values, and hundreds of tests read the same ones."""
    once = functools.cache(documents.parse)
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(documents, "parse", lambda text, where: copy.deepcopy(once(text, where)))
        yield
