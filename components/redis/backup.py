"""Backs up Redis Cluster: the RDB of every shard by the replication protocol, and configuration that an RDB lacks.

RDBs come from linked replicas, where the memory of the fork does no harm. All shards are read at the same time, so that
their recovery points are close together: a cluster has no common one. Slots must not move; they are compared before and
after.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from archive.backup.manifest import Consistency, Engine, Measure
from archive.backup.writer import SetWriter
from components.access import Access, Endpoint
from components.base import BackupContent
from components.questions import ask_members, words
from components.redis.client import (
    PORT,
    SLOTS,
    STATEFULSET,
    View,
    connect,
    data_bytes,
    open_slots,
    ranges,
    read_view,
)
from components.redis.fingerprint import measure_rdb
from components.redis.keys.rdb import UnknownFormat
from components.redis.keys.replication import Replica
from components.redis.replacement import limits
from errors import TemporaryError

NOT_COVERED = (
    "a common recovery point of all shards: each is consistent only in itself",
    "keys being moved between masters: a backup waits until no slot moves",
    "publish/subscribe, client connections, the replication backlog",
    "users' permissions and settings: they are in the backup for reading, but no restore creates them (Helm values "
    "and Secrets: the backup of `platform`)",
)
SECRETS = ("requirepass", "masterauth", "pass", "key-file-pass")


@dataclass(frozen=True)
class Shard:
    """A master and the member that its data is read from.

    Attributes:
        number: from 0, ordered by the lowest slot.
        slots: its slots, for example `0-5460`; after reshardings there may be a hundred ranges.
        master: name of the master.
        source: the member to read from: a linked replica, or the master.
        behind: bytes of the replication stream that the source lacks.
        size: bytes in memory.
        data: bytes in memory used by keys and values.
    """

    number: int
    slots: str
    master: str
    source: Endpoint
    behind: int
    size: int
    data: int

    @property
    def unit(self) -> str:
        """The shard's name in the manifest."""
        return f"shard {self.number}"


@dataclass(frozen=True)
class Piece:
    """The backup of one shard."""

    measures: list[Measure]
    consistency: Consistency
    missing: str = ""


def back_up(access: Access, writer: SetWriter) -> BackupContent:
    """Take one backup of all shards.

    Raises:
        TemporaryError: members do not answer, or slots move or moved during the backup.
    """
    members = access.endpoints(STATEFULSET, access.settings.components.redis.members, PORT)
    limits.sweep(access, members, writer.cleanup)
    views_before = _look(access, members)
    shards = _shards(access, members, views_before)
    # read first, because it is quick: if it fails, no shard has been uploaded in vain
    configuration = _configuration(access, shards[0].source)
    with ThreadPoolExecutor(len(shards), thread_name_prefix="shard") as pool:
        pieces = list(pool.map(lambda shard: _take(access, writer, shard), shards))
    views_after = _look(access, members)
    if _slots(views_before) != _slots(views_after):
        raise TemporaryError(
            "slots changed their masters during the backup (resharding, or a failover): a key could be in the data "
            "of two shards or of none",
            delay=15,
        )
    writer.add_json(
        "configuration.json", "cluster", {**configuration, "nodes": _nodes(views_before)}
    )
    return BackupContent(
        engine=Engine(
            name=str(configuration["server"].get("server_name") or "redis"),
            version=str(
                configuration["server"].get("valkey_version")
                or configuration["server"].get("redis_version")
            ),
            extensions={m["name"]: str(m["ver"]) for m in configuration["modules"]},
        ),
        topology={
            "shards": [
                {
                    "unit": s.unit,
                    "slots": s.slots,
                    "master": s.master,
                    "taken_from": s.source.member,
                    "behind": s.behind,
                    "memory": s.data,
                }
                for s in shards
            ]
        },
        consistency=tuple(piece.consistency for piece in pieces),
        fingerprint=tuple(measure for piece in pieces for measure in piece.measures),
        not_covered=NOT_COVERED,
        missing=tuple(piece.missing for piece in pieces if piece.missing),
    )


def _look(access: Access, members: list[Endpoint]) -> Mapping[str, View]:
    """The members' views; they must agree, cover all slots, and no slot may move."""
    answers = ask_members(members, lambda member: read_view(access, member))
    if not answers.good:
        raise TemporaryError(f"no member of Redis answers: {words(answers.bad)}", delay=15)
    slots = _slots(answers.good)
    missing = set(range(SLOTS)) - set(slots)
    moving = open_slots(answers.good)
    disagree = any(answer.slots() != slots for answer in answers.good.values())
    if missing or moving or disagree:
        trouble = (
            f"slots {ranges(missing)} have no master" if missing
            else moving if moving
            else "members disagree about the owners of slots"
        )  # fmt: skip
        raise TemporaryError(f"Redis cannot be backed up now: {trouble}", delay=15)
    return answers.good


def _slots(views: Mapping[str, View]) -> dict[int, str]:
    return views[min(views)].slots()


def _shards(access: Access, members: list[Endpoint], views: Mapping[str, View]) -> list[Shard]:
    by_address = {member.pod_ip: member for member in members}
    owned: dict[str, set[int]] = {}
    for slot, address in _slots(views).items():
        owned.setdefault(address.rpartition(":")[0], set()).add(slot)
    shards = []
    by_lowest_slot = sorted(owned.items(), key=lambda item: min(item[1]))
    for number, (address, slots) in enumerate(by_lowest_slot):
        master = by_address.get(address)
        if master is None:
            raise TemporaryError(
                f"the master of slots {ranges(slots)} is at {address}, which is not one of this cluster's pods"
            )
        source, behind = _source(master, members, views)
        with connect(access, source) as client:
            memory: Any = client.info("memory")
        shards.append(
            Shard(
                number,
                ranges(slots),
                master.member,
                source,
                behind,
                int(memory["used_memory"]),
                data_bytes(memory),
            )
        )
    return shards


def _source(
    master: Endpoint, members: list[Endpoint], views: Mapping[str, View]
) -> tuple[Endpoint, int]:
    """The replica of a master that is least behind; the master itself if none has a good link."""
    candidates = []
    for member in members:
        view = views.get(member.member)
        behind = view.behind if view is not None else None
        if view is not None and behind is not None and view.info["master_host"] == master.pod_ip:
            candidates.append((behind, member.member, member))
    if not candidates:
        return master, 0
    behind, _, member = min(candidates)
    return member, behind


def _take(access: Access, writer: SetWriter, shard: Shard) -> Piece:
    backup = access.settings.backup
    replica = Replica(access, shard.source, backup.stall_seconds)
    begun = datetime.now(UTC)
    with writer.spooled(replica, shard.size) as spool:
        writer.add(f"shard-{shard.number}.rdb", shard.unit, "RDB", spool, shard.size)
        consistency = Consistency(
            unit=shard.unit,
            point=f"replication offset {replica.history}",
            begun=begun,
            ended=datetime.now(UTC),
        )
        try:
            with spool.reader() as file:
                return Piece(measure_rdb(file, shard.unit), consistency)
        except (UnknownFormat, EOFError) as exc:
            why = f"{shard.unit}: no fingerprint, because its RDB has {exc}; the data itself is stored"
            return Piece([], consistency, why)


def _configuration(access: Access, member: Endpoint) -> dict[str, Any]:
    """Configuration that an RDB lacks: rights, settings, modules; without passwords."""
    with connect(access, member) as client:
        settings: Any = client.config_get("*")
        rights: Any = client.execute_command("ACL LIST")
        functions: Any = client.execute_command("FUNCTION LIST")
        modules: Any = client.module_list()
        server: Any = client.info("server")
    return {
        "settings": {k: v for k, v in settings.items() if not k.endswith(SECRETS)},
        "acl": rights,
        "functions": functions,
        "modules": [{"name": m["name"], "ver": m["ver"]} for m in modules],
        "server": server,
    }


def _nodes(views: Mapping[str, View]) -> dict[str, Any]:
    return {address: dict(node) for address, node in views[min(views)].nodes.items()}
