"""What engines hold for us while we work, written down before it is made, for the run after a killed one.

A note goes when what it is about is known to be gone, and not because somebody has tried: until then every run carries
it on. What a restore has half replaced is noted in the same place: only a restore makes that good.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

Held = Mapping[str, Any]
REPLACING = "replacing"


class Leftovers:
    """What is held now: by this run, and by earlier ones that did not come to remove it. Safe to use from threads.

    Args:
        earlier: what runs before wrote down and did not remove.
        note: keeps what is held now.
    """

    def __init__(
        self, earlier: Sequence[Held] = (), note: Callable[[list[Held]], None] = lambda held: None
    ) -> None:
        self._earlier = tuple(earlier)
        self._note = note
        self._lock = threading.Lock()
        self._held: list[Held] = list(earlier)

    def earlier(self, key: str) -> tuple[Held, ...]:
        """What runs before held and is not known to be gone, of the kind that is found by `key`."""
        with self._lock:
            return tuple(held for held in self._earlier if key in held and held in self._held)

    def hold(self, what: Held) -> None:
        """An engine makes something for us, next.

        Args:
            what: enough to find it again.
        """
        with self._lock:
            self._held.append(what)
            self._note(self._held)

    def release(self, what: Held) -> None:
        """It is gone."""
        with self._lock:
            self._held.remove(what)
            self._note(self._held)

    @contextmanager
    def replacing(self, units: Iterable[str]) -> Iterator[None]:
        """From here on these units are neither what they were nor what they shall be, until the block ends well.

        Args:
            units: of the set that is restored.
        """
        what = {REPLACING: sorted(units)}
        self.hold(what)
        yield
        self.release(what)
