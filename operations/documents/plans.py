"""Plans of a restore and of a rebuild, which a person approves; and what became of a rebuild's old volumes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from operations.documents.base import Document, one_of


@dataclass(frozen=True, kw_only=True)
class ReplacedUnit(Document):
    """A unit that a restore replaces.

    Attributes:
        unit: database, stream, bucket or collection.
        bytes: in the backup.
    """

    unit: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class ComponentRestorePlan(Document):
    """What a restore of a component would do.

    Attributes:
        backup: id of the backup.
        component: of the backup.
        recovery_point: start of the backup.
        replaced: units whose data would be replaced.
        not_replaced: units of the backup that are not restored.
        writers: what happens to writers during the restore.
        proven: whether the last verdict on the backup is a pass.
        warnings: what to know before.
        by_hand: why a person has to restore it; empty if isa does.
        took: how long its parts took the last time, in words; empty if that is not known.
        point: time or LSN behind the backup that is recovered to and restored; empty if the backup itself is.
        wal: WAL that leads from the backup to the point, in words; empty without a point.
    """

    backup: str
    component: str
    recovery_point: datetime
    replaced: tuple[ReplacedUnit, ...]
    not_replaced: tuple[str, ...]
    writers: str
    proven: bool
    warnings: tuple[str, ...]
    by_hand: str
    took: str
    point: str = ""
    wal: str = ""


@dataclass(frozen=True, kw_only=True)
class RestorePlan(Document):
    """The plan of a restore.

    Attributes:
        plans: one a component.
    """

    plans: tuple[ComponentRestorePlan, ...]


@dataclass(frozen=True, kw_only=True)
class RebuildPolicy(Document):
    """What kind of rebuild it is.

    Attributes:
        component: name.
        volumes: `new` retains the old ones, `keep` reuses them.
        restore: `fresh`, `none`, or the id of a backup.
        final_backup: whether a backup is taken and verified first.
    """

    component: str
    volumes: Annotated[str, one_of("new", "keep")]
    restore: str
    final_backup: bool


@dataclass(frozen=True, kw_only=True)
class RebuildPlan(Document):
    """The plan of a rebuild.

    Attributes:
        policy: what kind of rebuild it is.
        releases: release → what is installed now; empty where nothing is.
        claims: volume claim → its size.
        units: what is fenced, backed up and restored.
        proof: the last pass of the component in one sentence.
        writers: what happens to writers during the rebuild.
        dependants: components whose gates are waited for afterwards.
        warnings: what to know before the approval.
        blocked: why it cannot start.
        digest: two plans with the same one are the same.
    """

    policy: RebuildPolicy
    releases: dict[str, str]
    claims: dict[str, str]
    units: tuple[str, ...]
    proof: str
    writers: str
    dependants: tuple[str, ...]
    warnings: tuple[str, ...]
    blocked: tuple[str, ...]
    digest: str


@dataclass(frozen=True, kw_only=True)
class UndoneRebuild(Document):
    """A rebuild that was undone.

    Attributes:
        component: name.
        rebuild: id of the rebuild.
        returned_volumes: old volumes that were put back; empty if they never left their place.
    """

    component: str
    rebuild: str
    returned_volumes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class PurgedVolumes(Document):
    """Old volumes of rebuilds that were deleted.

    Attributes:
        component: name.
        purged_volumes: names.
    """

    component: str
    purged_volumes: tuple[str, ...]
