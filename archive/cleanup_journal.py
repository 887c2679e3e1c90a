"""What engines hold for us while we work, written down before it is made, for the run after a killed one.

A note goes when what it is about is known to be gone, and not because somebody has tried: until then every run carries
it on. What a restore has half replaced is noted in the same place: only a restore makes that good.

The notes are JSON on a Lease, which several accounts can write. They are parsed here alone, each into a type of its
own. An entry that has none of these types is carried on like the others and reported; nothing else is done with it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from archive.manifest import Identity, Label

SHOWN = 1000  # characters of an entry that cannot be read
Member = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
"""Name of a pod."""
Limit = Annotated[str, Field(pattern=r"^[0-9]{1,19}$")]
"""Bytes, as Redis writes a setting."""


class Resource(BaseModel):
    """One note."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class ShardSnapshot(Resource):
    """A peer of Qdrant makes a snapshot of a shard.

    Attributes:
        peer: name of its pod.
        collection: name.
        shard: number.
        known: names of the snapshots that were there before.
        asked: when, by the peer's clock.
    """

    peer: Member
    collection: Label
    shard: Annotated[int, Field(ge=0, lt=1 << 32)]
    known: tuple[Label, ...]
    asked: AwareDatetime


class StoppedMember(Resource):
    """The member of Neo4j Community is stopped; its StatefulSet has one replica, since it has one volume."""

    statefulset: Literal["neo4j-1"]
    replicas: Literal[1]


class ServerLimits(Resource):
    """Limits of Redis servers are lifted: member → setting → what it was."""

    limits: dict[Member, dict[Literal["proto-max-bulk-len", "client-query-buffer-limit"], Limit]]


class ExportArchive(Resource):
    """A node of EMQX makes an archive.

    Attributes:
        node: name of its pod.
        known: names of the archives that were there before.
        since: seconds since 1970.
    """

    node: Member
    known: tuple[Label, ...]
    since: Annotated[int, Field(ge=0, lt=1 << 40)]


class HalfReplaced(Resource):
    """A restore has begun to replace units, and has not ended.

    Attributes:
        replacing: the units.
        restoring: id of the set.
        safety: ids of the sets with what was there before, of the first attempt first.
    """

    replacing: tuple[Label, ...] = Field(min_length=1)
    restoring: Identity | Literal[""] = ""
    safety: tuple[Identity, ...] = ()


class Unreadable(Resource):
    """An entry that is none of the others: the beginning of its text."""

    unreadable: str = Field(max_length=SHOWN)


Kind = TypeVar("Kind", bound=Resource)
_ENTRIES: TypeAdapter[list[Any]] = TypeAdapter(list[Any])
_Any = ShardSnapshot | StoppedMember | ServerLimits | ExportArchive | HalfReplaced | Unreadable
_HELD: TypeAdapter[_Any] = TypeAdapter(_Any)


def read_notes(text: str) -> tuple[Resource, ...]:
    """What is written on a Lease."""
    try:
        return tuple(_read_note(entry) for entry in _ENTRIES.validate_json(text or "[]"))
    except ValidationError:  # lists in lists too, whose depth has a limit there
        return (Unreadable(unreadable=text[:SHOWN]),)


def notes_text(notes: Iterable[Resource]) -> str:
    """Notes as they are written on a Lease."""
    return json.dumps([one.model_dump(mode="json") for one in notes])


class CleanupJournal:
    """What is held now: by this run, and by earlier ones that did not come to remove it. Safe to use from threads.

    Args:
        earlier: what runs before wrote down and did not remove.
        note: keeps what is held now.
        restoring: id of the set that this run restores; "" if it restores none.
        safety: ids of the sets with what was there before.
    """

    def __init__(
        self,
        earlier: Sequence[Resource] = (),
        note: Callable[[list[Resource]], None] = lambda held: None,
        *,
        restoring: str = "",
        safety: tuple[str, ...] = (),
    ) -> None:
        self._earlier = tuple(earlier)
        self._note = note
        self._restoring, self._safety = restoring, safety
        self._lock = threading.Lock()
        self._held: list[Resource] = list(earlier)

    def earlier(self, kind: type[Kind]) -> tuple[Kind, ...]:
        """What runs before held and is not known to be gone, of one kind."""
        with self._lock:
            return tuple(
                held for held in self._earlier if isinstance(held, kind) and held in self._held
            )

    def hold(self, what: Resource) -> None:
        """An engine makes something for us, next.

        Args:
            what: enough to find it again.
        """
        with self._lock:
            self._held.append(what)
            self._note(self._held)

    def release(self, what: Resource) -> None:
        """It is gone."""
        with self._lock:
            self._held.remove(what)
            self._note(self._held)

    def begin_replacing(self, units: Iterable[str]) -> HalfReplaced:
        """From here on these units are neither what they were nor what they shall be, until this is released.

        Args:
            units: of the set that is restored.
        """
        what = HalfReplaced(
            replacing=tuple(sorted(units)), restoring=self._restoring, safety=self._safety
        )
        self.hold(what)
        return what

    @contextmanager
    def replacing(self, units: Iterable[str]) -> Iterator[None]:
        """The same until the block ends well.

        Args:
            units: of the set that is restored.
        """
        what = self.begin_replacing(units)
        yield
        self.release(what)


# ---------------------------------------------------------------------- inside
def _read_note(entry: Any) -> Resource:
    text = json.dumps(entry)
    try:
        note = _HELD.validate_json(text)
    except ValidationError:
        return Unreadable(unreadable=text[:SHOWN])
    of_nothing = isinstance(note, HalfReplaced) and not note.restoring
    return Unreadable(unreadable=text[:SHOWN]) if of_nothing else note
