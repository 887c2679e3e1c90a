"""Directed acyclic graph of names: the dependencies, and the order of independent nodes.

The graph keeps insertion order, and every answer respects it, so that ties are broken by the design's order and a
plan reads the same each time. Model: sqlmesh's `utils/dag.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator


class CycleError(ValueError):
    """The dependencies form a cycle; `ring` names it in order, first and last being the same."""

    def __init__(self, ring: list[str]) -> None:
        self.ring = ring
        super().__init__(" → ".join(ring))


class Dag:
    """Nodes and what each of them needs.

    Args:
        nodes: that need nothing, to begin with.
    """

    def __init__(self, nodes: Iterable[str] = ()) -> None:
        self._needs: dict[str, tuple[str, ...]] = dict.fromkeys(nodes, ())

    def add(self, node: str, needs: Iterable[str] = ()) -> None:
        """Add a node, or more dependencies to an existing one."""
        existing = self._needs.get(node, ())
        self._needs[node] = tuple(dict.fromkeys([*existing, *needs]))

    def __iter__(self) -> Iterator[str]:
        return iter(self._needs)

    def __contains__(self, node: str) -> bool:
        return node in self._needs

    def needs(self, node: str) -> tuple[str, ...]:
        """Direct needs of a node."""
        return self._needs[node]

    def with_needs(self, nodes: Iterable[str]) -> set[str]:
        """The nodes and all that they need, directly or not."""
        selected: set[str] = set()
        todo = list(nodes)
        while todo:
            node = todo.pop()
            if node not in selected:
                selected.add(node)
                todo += self._needs[node]
        return selected

    def sorted(self) -> list[str]:
        """All nodes, each after its needs, ties in insertion order.

        Raises:
            CycleError: there is a cycle.
        """
        placed: dict[str, None] = {}
        while len(placed) < len(self._needs):
            ready = [
                n
                for n in self._needs
                if n not in placed and all(d in placed for d in self._needs[n])
            ]
            if not ready:
                raise CycleError(self._ring({n for n in self._needs if n not in placed}))
            placed[ready[0]] = None
        return list(placed)

    def _ring(self, stuck: set[str]) -> list[str]:
        # Every stuck node needs a stuck node, so walking on must come round.
        node = next(n for n in self._needs if n in stuck)
        walk: list[str] = []
        while node not in walk:
            walk.append(node)
            node = next(d for d in self._needs[node] if d in stuck)
        return [*walk[walk.index(node) :], node]
