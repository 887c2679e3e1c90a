"""What the stored WAL covers: unbroken lines of objects, the gaps between them, and the way from a base backup on.

Everything here is decided from names (`archive.wal.names`), without reading an object. An object leads from the state
of the WAL at its start to the state at its end, so the objects are the edges of a graph. Where a timeline left its
parent, its first segment begins with a copy of the parent's bytes. So a line changes to the new timeline at the last
segment boundary before the switch, as PostgreSQL's recovery does (`XLogFileReadAnyTLI` in
src/backend/access/transam/xlogrecovery.c). From there it follows the newest timeline that it can reach, as
`recovery_target_timeline = latest` does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import accumulate

from archive.wal.names import TimelineHistory, WalObject, lsn_text
from errors import PermanentError

Node = tuple[int, int, str]  # timeline, LSN, state of the WAL there


class NotCovered(PermanentError):
    """The stored WAL does not lead from a base backup to the target."""


@dataclass(frozen=True)
class Line:
    """Objects that continue each other without a gap.

    Attributes:
        objects: in the order of recovery; never empty.
    """

    objects: tuple[WalObject, ...]

    @property
    def start(self) -> int:
        """LSN of the first byte."""
        return self.objects[0].start

    @property
    def end(self) -> int:
        """LSN behind the last byte."""
        return self.objects[-1].end

    @property
    def timeline(self) -> int:
        """The last one."""
        return self.objects[-1].timeline

    @property
    def covers(self) -> datetime | None:
        """Each commit until then is on the line; None if that is not known."""
        return max((one.covers for one in self.objects if one.covers), default=None)

    @property
    def words(self) -> str:
        """The range, for people."""
        first = self.objects[0].timeline
        timelines = (
            f"timeline {first}"
            if first == self.timeline
            else f"timelines {first} to {self.timeline}"
        )
        until = (
            f"commits until {self.covers:%Y-%m-%d %H:%M:%S} UTC" if self.covers else "times unknown"
        )
        return f"{lsn_text(self.start)} to {lsn_text(self.end)} ({timelines}, {until})"

    def up_to_lsn(self, lsn: int) -> Line:
        """The part that recovery to an LSN needs.

        Raises:
            NotCovered: the line ends before it.
        """
        if lsn > self.end:
            raise NotCovered(f"LSN {lsn_text(lsn)} is not stored. Stored: {self.words}")
        return Line(tuple(one for one in self.objects if one.start < lsn) or self.objects[:1])

    def beyond_lsn(self, lsn: int) -> Line:
        """The part that leads to an LSN and to a commit behind it, at which PostgreSQL knows that it is there.

        Raises:
            NotCovered: the line ends before it, or has no commit behind it.
        """
        part = self.up_to_lsn(lsn)
        known, number = part.objects[-1].covers, len(part.objects)
        for count, one in enumerate(self.objects[number:], number + 1):
            if one.covers and one.covers != known:
                return Line(self.objects[:count])
        raise NotCovered(
            f"LSN {lsn_text(lsn)} is not followed by a stored commit yet. Stored: {self.words}"
        )

    def up_to_time(self, at: datetime) -> Line:
        """The part that recovery to a time needs: to a commit after it, at which PostgreSQL knows that it is there.

        Raises:
            NotCovered: the line has no commit after that time.
        """
        for number, one in enumerate(self.objects, 1):
            if one.covers and one.covers > at:
                return Line(self.objects[:number])
        raise NotCovered(
            f"{at:%Y-%m-%d %H:%M:%S.%f} UTC is not stored, or not followed by a stored commit. Stored: {self.words}"
        )


@dataclass(frozen=True)
class Gap:
    """Two lines that do not continue each other.

    Attributes:
        before: of the lines that begin earlier the one that reaches furthest.
        after: the line that begins.
    """

    before: Line
    after: Line

    @property
    def words(self) -> str:
        """What is missing, for people."""
        first = self.after.objects[0]
        begin = f"WAL from {lsn_text(self.after.start)} of timeline {first.timeline}"
        if self.before.end < self.after.start:
            missing = self.after.start - self.before.end
            return (
                f"{lsn_text(self.before.end)} to {lsn_text(self.after.start)} is missing ({missing} bytes) before "
                f"timeline {first.timeline}"
            )
        return f"{begin} does not continue the WAL stored before it: it is of another history, or its own is not stored"


@dataclass(frozen=True)
class Coverage:
    """What the stored WAL of one database cluster covers.

    Attributes:
        lines: unbroken lines, by their start.
        gaps: between them.
        forks: where two different WALs of one timeline are stored, for people.
        unknown: timelines with WAL but without their history file.
    """

    lines: tuple[Line, ...]
    gaps: tuple[Gap, ...]
    forks: tuple[str, ...]
    unknown: tuple[int, ...]

    @property
    def complete(self) -> bool:
        """Whether there is one unbroken line."""
        return len(self.lines) == 1 and not self.forks and not self.unknown


class Wal:
    """The stored WAL of one database cluster.

    Args:
        objects: its WAL.
        histories: its timeline history files.
    """

    def __init__(self, objects: Iterable[WalObject], histories: Iterable[TimelineHistory]) -> None:
        self._edges: dict[Node, list[WalObject]] = defaultdict(list)
        self._entered: set[Node] = set()
        for one in objects:
            self._edges[one.timeline, one.start, one.before].append(one)
            self._entered.add((one.timeline, one.end, one.through))
        self._histories: dict[int, TimelineHistory] = {one.timeline: one for one in histories}
        self._timelines = {timeline for timeline, _, _ in self._edges}
        self._steps = self._best_steps()

    @cached_property
    def coverage(self) -> Coverage:
        """Lines and gaps."""
        begins = sorted(
            (node for node in self._edges if node not in self._entered and not self._parents(node)),
            key=lambda node: (node[1], node[0], node[2]),
        )
        lines = tuple(self._line(node) for node in begins)
        furthest = accumulate(lines, _further)
        gaps = tuple(Gap(before, after) for before, after in zip(furthest, lines[1:], strict=False))
        known = {timeline for timeline in self._timelines if self._known(timeline)}
        return Coverage(lines, gaps, self._forks(), tuple(sorted(self._timelines - known)))

    def from_base(self, timeline: int, lsn: int, segment: int) -> Line:
        """Return the line on which recovery of a base backup goes on.

        Args:
            timeline: of the base backup.
            lsn: at its end: it needs the WAL from there.
            segment: size of a segment, bytes.

        Raises:
            NotCovered: the WAL at that LSN is not stored, or two histories of it are.
        """
        boundary = lsn - lsn % segment
        nodes = [
            node
            for node in self._edges
            if node[1] == boundary and (node[0] == timeline or self._leaves(timeline, node[0], lsn))
        ]
        at = f"{lsn_text(boundary)} of timeline {timeline}"
        own = [node for node in nodes if node[0] == timeline] or nodes
        if len({self._steps[node][0] for node in own}) > 1 or len({node[2] for node in own}) > 1:
            raise NotCovered(f"two histories of the WAL from {at} are stored")
        line = self._line(max(own)) if own else None
        if line is None or line.end < lsn:
            stored = "; ".join(line.words for line in self.coverage.lines) or "none"
            raise NotCovered(f"the WAL from {at} is not stored. Stored: {stored}")
        if line.timeline != timeline and not self._leaves(timeline, line.timeline, lsn):
            raise NotCovered(
                f"timeline {line.timeline} left timeline {timeline} before {lsn_text(lsn)}: what was written later "
                "is no longer part of the database"
            )
        return line

    def ancestry(self, timeline: int) -> tuple[TimelineHistory, ...]:
        """The stored history files of a timeline and of those that it descends from, the newest first."""
        found = []
        while (history := self._histories.get(timeline)) is not None:
            found.append(history)
            timeline = history.parent  # always smaller (`archive.wal.names`)
        return tuple(found)

    def replaced(self, segment: int) -> frozenset[WalObject]:
        """Pieces of complete segments that no line uses, because larger objects lead from start to end of the segment.

        Args:
            segment: size of a segment, bytes.
        """
        used = {one for line in self.coverage.lines for one in line.objects}
        found: set[WalObject] = set()
        for timeline, start, state in list(self._edges):
            if start % segment == 0:
                found |= self._pieces((timeline, start, state), segment, used)
        return frozenset(found)

    def _pieces(self, first: Node, segment: int, used: set[WalObject]) -> set[WalObject]:
        """Unused objects on a way through a segment whose start and end a used way connects, too."""
        timeline, start, _ = first
        inside: list[WalObject] = []
        reached, todo = {first}, [first]
        while todo:
            for one in self._edges.get(todo.pop(), ()):
                node = (timeline, one.end, one.through)
                inside.append(one)
                if node not in reached:
                    reached.add(node)
                    if one.end < start + segment:
                        todo.append(node)
        whole = {(one.end, one.through) for one in inside if one in used}
        leads = {end for end in whole if end[0] == start + segment}
        for one in sorted(inside, key=lambda piece: piece.end, reverse=True):
            if (one.end, one.through) in leads:
                leads.add((one.start, one.before))
        return {one for one in inside if one not in used and (one.end, one.through) in leads}

    # ------------------------------------------------------------------ inside
    def _best_steps(self) -> dict[Node, tuple[tuple[int, int], WalObject | Node | None]]:
        """For each node the furthest end (timeline, LSN) that it leads to, and the first step to it.

        Every step leads to a larger LSN, or at the same LSN to a larger timeline, so one pass from the end is enough.
        """
        steps: dict[Node, tuple[tuple[int, int], WalObject | Node | None]] = {}
        by_place: dict[tuple[int, str], list[int]] = defaultdict(list)
        for timeline, lsn, state in self._edges:
            by_place[lsn, state].append(timeline)
        nodes = self._entered | set(self._edges)
        for node in sorted(nodes, key=lambda one: (one[1], one[0]), reverse=True):
            timeline, lsn, state = node
            ways: list[tuple[tuple[int, int], int, WalObject | Node]] = [
                (steps[child, lsn, state][0], 0, (child, lsn, state))
                for child in by_place[lsn, state]
                if self._leaves(timeline, child, lsn)
            ]
            ways += [
                (steps[timeline, one.end, one.through][0], one.size, one)
                for one in self._edges.get(node, ())
            ]
            if ways:  # of two ways to one end the one with the larger objects
                end, _, step = max(ways, key=lambda way: way[:2])
                steps[node] = end, step
            else:
                steps[node] = (timeline, lsn), None
        return steps

    def _line(self, node: Node) -> Line:
        objects = []
        step = self._steps[node][1]
        while step is not None:
            if isinstance(step, WalObject):
                objects.append(step)
                node = (step.timeline, step.end, step.through)
            else:
                node = step
            step = self._steps[node][1]
        return Line(tuple(objects))

    def _leaves(self, ancestor: int, timeline: int, lsn: int) -> bool:
        """Whether a timeline descends from another one, and all switches between them are at or behind an LSN."""
        while timeline > ancestor:
            history = self._histories.get(timeline)
            if history is None or history.switch < lsn:
                return False
            timeline = history.parent
            if timeline == ancestor:
                return True
        return False

    def _parents(self, node: Node) -> list[int]:
        """Timelines from which a line changes to this node."""
        timeline, lsn, state = node
        return [
            parent
            for parent in self._timelines
            # what is stored may begin there, too
            if ((parent, lsn, state) in self._entered or (parent, lsn, state) in self._edges)
            and self._leaves(parent, timeline, lsn)
        ]

    def _known(self, timeline: int) -> bool:
        """Whether the history of a timeline is stored, as far back as there is WAL."""
        first = min(self._timelines)
        while timeline > first:
            history = self._histories.get(timeline)
            if history is None:
                return False
            timeline = history.parent
        return True

    def _forks(self) -> tuple[str, ...]:
        states: dict[tuple[int, int], set[str]] = defaultdict(set)
        for timeline, lsn, state in self._entered:
            states[timeline, lsn].add(state)
        return tuple(
            f"two different WALs up to {lsn_text(lsn)} of timeline {timeline} are stored"
            for (timeline, lsn), found in sorted(states.items())
            if len(found) > 1
        )


def _further(one: Line, other: Line) -> Line:
    """Of two lines the one that reaches further; the first if both end at one LSN."""
    return other if other.end > one.end else one
