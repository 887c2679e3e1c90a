"""Resources that engines hold for a run, recorded before creation, so that the run after a killed one removes them.

A note is removed once its resource is known to be gone, not because a removal was tried: until then every run passes it
on. A half-done restore is noted in the same place: only a restore completes it.

The notes are JSON on a Lease, which several accounts can write. Only this module parses them, each into a strict type.
An entry that has none of these types is passed on and reported, and not used otherwise.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from archive.backup.manifest import Identity, Label

SHOWN = 1000  # characters of an entry that cannot be read
Member = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
"""Name of a pod."""
Limit = Annotated[str, Field(pattern=r"^[0-9]{1,19}$")]
"""Bytes, as Redis writes a setting."""


class Resource(BaseModel):
    """One note."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class ShardSnapshot(Resource):
    """A snapshot of a shard on a peer of Qdrant.

    Attributes:
        peer: name of its pod.
        collection: name.
        shard: number.
        known: names of the snapshots that existed before.
        asked: when, by the peer's clock.
    """

    peer: Member
    collection: Label
    shard: Annotated[int, Field(ge=0, lt=1 << 32)]
    known: tuple[Label, ...]
    asked: AwareDatetime


class StoppedMember(Resource):
    """The member of Neo4j Community is stopped. Its StatefulSet has one replica, because it has one volume."""

    statefulset: Literal["neo4j-1"]
    replicas: Literal[1]


class ServerLimits(Resource):
    """Raised limits of Redis servers: member → setting → previous value."""

    limits: dict[Member, dict[Literal["proto-max-bulk-len", "client-query-buffer-limit"], Limit]]


class ExportArchive(Resource):
    """An archive on a node of EMQX.

    Attributes:
        node: name of its pod.
        known: names of the archives that existed before.
        since: seconds since 1970.
    """

    node: Member
    known: tuple[Label, ...]
    since: Annotated[int, Field(ge=0, lt=1 << 40)]


class HalfReplaced(Resource):
    """A restore has started to replace units, and has not ended.

    Attributes:
        replacing: the units.
        restoring: id of the backup.
        safety: ids of the safety backups with the previous data, of the first attempt first.
    """

    replacing: tuple[Label, ...] = Field(min_length=1)
    restoring: Identity | Literal[""] = ""
    safety: tuple[Identity, ...] = ()


class Unreadable(Resource):
    """An entry of unknown type: the beginning of its text."""

    unreadable: str = Field(max_length=SHOWN)


Kind = TypeVar("Kind", bound=Resource)
_ENTRIES: TypeAdapter[list[Any]] = TypeAdapter(list[Any])
_Any = ShardSnapshot | StoppedMember | ServerLimits | ExportArchive | HalfReplaced | Unreadable
_HELD: TypeAdapter[_Any] = TypeAdapter(_Any)


def read_notes(text: str) -> tuple[Resource, ...]:
    """Return the text on a Lease."""
    try:
        return tuple(_read_note(entry) for entry in _ENTRIES.validate_json(text or "[]"))
    except ValidationError:  # lists in lists too, whose depth has a limit there
        return (Unreadable(unreadable=text[:SHOWN]),)


def notes_text(notes: Iterable[Resource]) -> str:
    """The notes as written on a Lease."""
    return json.dumps([note.model_dump(mode="json") for note in notes])


class CleanupJournal:
    """The resources held now: by this run, and by earlier ones that did not remove them. Safe to use from threads.

    Args:
        earlier: notes of earlier runs that they did not remove.
        note: stores what is held now.
        restoring: id of the backup that this run restores; "" if it restores none.
        safety: ids of the safety backups with the previous data.
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
        """Return what earlier runs held and what is not known to be gone, of one kind."""
        with self._lock:
            return tuple(
                held for held in self._earlier if isinstance(held, kind) and held in self._held
            )

    def hold(self, resource: Resource) -> None:
        """Record a resource before the engine creates it.

        Args:
            resource: the resource, with enough data to find it.
        """
        with self._lock:
            self._held.append(resource)
            self._note(self._held)

    def release(self, resource: Resource) -> None:
        """Remove the note of a resource that is gone."""
        with self._lock:
            self._held.remove(resource)
            self._note(self._held)

    def begin_replacing(self, units: Iterable[str]) -> HalfReplaced:
        """Record that these units are being replaced, until this is released.

        Args:
            units: of the backup that is restored.
        """
        resource = HalfReplaced(
            replacing=tuple(sorted(units)), restoring=self._restoring, safety=self._safety
        )
        self.hold(resource)
        return resource

    @contextmanager
    def replacing(self, units: Iterable[str]) -> Iterator[None]:
        """The same, until the block ends without an error.

        Args:
            units: of the backup that is restored.
        """
        resource = self.begin_replacing(units)
        yield
        self.release(resource)


# ---------------------------------------------------------------------- inside
def _read_note(entry: Any) -> Resource:
    text = json.dumps(entry)
    try:
        note = _HELD.validate_json(text)
    except ValidationError:
        return Unreadable(unreadable=text[:SHOWN])
    without_backup = isinstance(note, HalfReplaced) and not note.restoring
    return Unreadable(unreadable=text[:SHOWN]) if without_backup else note
