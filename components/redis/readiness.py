"""The gate of Redis Cluster: three masters with one replica each, six pods on six nodes.

Every member reports its own view (`CLUSTER NODES`, `INFO replication`): a member that was cut off still has an old one.
The probe writes a key to every shard, waits for a replica (`WAIT`) and reads the key there. Tried on Valkey 9.1
(protocol of Redis 7.2); the commands are the same in Redis 8.2 (https://redis.io/docs/latest/commands/cluster-nodes/).
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from redis.crc import key_slot

from components.access import Access, Endpoint
from components.base import Report, Role, Workload
from components.questions import PROBE, Round, ask_members, words
from components.redis.client import (
    PORT,
    SLOTS,
    STATEFULSET,
    View,
    connect,
    open_slots,
    ranges,
    read_view,
)
from config.models import Settings

# Keys of failed rounds expire.
PROBE_EXPIRY_SECONDS = 60


def workloads(settings: Settings) -> tuple[Workload, ...]:
    """The workloads of this component in Kubernetes."""
    return (Workload("StatefulSet", STATEFULSET, settings.components.redis.members),)


def ask(access: Access) -> Report:
    """Check all slots, the replica of each master and its node, and a key through every shard."""
    members = access.endpoints(STATEFULSET, access.settings.components.redis.members, PORT)
    questions = Round()
    answers = ask_members(members, lambda member: read_view(access, member))
    questions.checks.append(answers.check("members answer"))
    if not answers.good:
        questions.note("all slots covered", False, "no member answers")
        return Report(tuple(questions.checks))
    names = {m.pod_ip: m.member for m in members}
    failing = [name for name, view in answers.good.items() if view.state != "ok"]
    slots, agree = _slots(answers.good)
    missing = ranges(set(range(SLOTS)) - set(slots))
    hint = f"{SLOTS} slots on {len(set(slots.values()))} masters"
    if missing:
        hint = f"slots {missing} have no master: a shard has lost all its members, or the slots were never assigned"
    elif failing:
        hint = (
            f"cluster_state:fail on {', '.join(failing)}: they cannot reach a majority of masters"
        )
    questions.note("all slots covered", not missing and not failing, hint)
    hint = (
        ""
        if agree
        else "members disagree about the owners of slots: a partition, or a failover in progress"
    )
    questions.note("one view of the cluster", agree, hint, critical=False)
    moving = open_slots(answers.good)
    hint = f"{moving}. Backups wait until it is finished" if moving else ""
    questions.note("no slot is moving", not moving, hint, critical=False)

    replicas = _replicas(questions, members, answers.good, set(slots.values()), names)
    masters = {names.get(address.rpartition(":")[0], address) for address in slots.values()}
    by_name = {member.member: member for member in members}
    shards = {
        name: ([by_name[r] for r, master in replicas.items() if master == name], slot)
        for slot, address in slots.items()
        if (name := names.get(address.rpartition(":")[0], "")) in by_name
    }
    _transaction(access, questions, by_name, shards)
    roles = [_role(name, view, name in masters) for name, view in sorted(answers.good.items())]
    return Report(tuple(questions.checks), tuple(roles))


def _slots(views: Mapping[str, View]) -> tuple[dict[int, str], bool]:
    """The slots as most members report them, and whether all members agree."""
    slot_maps = [view.slots() for view in views.values()]
    best = max(slot_maps, key=lambda slots: (slot_maps.count(slots), len(slots)))
    return best, all(slots == best for slots in slot_maps)


def _replicas(
    questions: Round,
    members: list[Endpoint],
    views: Mapping[str, View],
    masters: set[str],
    names: Mapping[str, str],
) -> dict[str, str]:
    """Check the replicas; returns those with a good link, replica → master."""
    linked: dict[str, str] = {}
    broken: dict[str, str] = {}
    for name, view in views.items():
        if view.info["role"] != "slave":
            continue
        master = names.get(str(view.info["master_host"]), str(view.info["master_host"]))
        if view.info["master_link_status"] == "up":
            linked[name] = master
        else:
            broken[name] = f"its link to {master} is down"
    bare = {names.get(m.rpartition(":")[0], m) for m in masters} - set(linked.values())
    trouble = broken | dict.fromkeys(
        bare, "has no linked replica: if it is lost, its slots are lost"
    )
    hint = words(trouble) or f"{len(linked)} replicas"
    questions.note("each master has a linked replica", not trouble, hint, critical=False)
    nodes = {member.member: member.node for member in members}
    together = {
        replica: f"on {nodes[replica]} like its master {master}: losing this node loses the shard"
        for replica, master in linked.items()
        if nodes.get(replica) and nodes.get(replica) == nodes.get(master)
    }
    questions.note("copies on different nodes", not together, words(together), critical=False)
    return linked


def _transaction(
    access: Access,
    questions: Round,
    members: Mapping[str, Endpoint],
    shards: Mapping[str, tuple[list[Endpoint], int]],
) -> None:
    """Write a key to each shard, wait for a replica, read it there, remove it."""
    token = secrets.token_hex(8)  # of this round only: other rounds may run
    keys = {name: probe_key(token, slot) for name, (_, slot) in shards.items()}

    def write(master: Endpoint) -> str:
        replicas, key = shards[master.member][0], keys[master.member]
        with connect(access, master) as client:
            client.set(key, token, ex=PROBE_EXPIRY_SECONDS)
            milliseconds = round(access.timeout_seconds * 500)
            copies = int(client.execute_command("WAIT", min(len(replicas), 1), milliseconds))
        if replicas and not copies:
            return "no replica acknowledged the write"
        for replica in replicas[:1]:
            with connect(access, replica) as client:
                client.execute_command("READONLY")
                if client.get(key) != token:
                    return f"{replica.member} does not have the written value"
        return ""

    def remove(master: Endpoint) -> None:
        with connect(access, master) as client:
            client.delete(keys[master.member])

    masters = [members[name] for name in sorted(shards)]
    written = ask_members(masters, write)
    check = written.check("write to every shard", critical=True)
    questions.checks.append(check)
    unread = {name: trouble for name, trouble in written.good.items() if trouble}
    questions.note("read back on the replicas", not unread, words(unread), critical=False)
    questions.checks.append(ask_members(masters, remove).check("clean up"))


def _role(name: str, view: View, serving: bool) -> Role:
    if view.info["role"] == "slave":
        return Role(name, "replica", "" if view.behind is None else f"{view.behind} B")
    return Role(name, "master" if serving else "master without slots")


def probe_key(token: str, slot: int) -> str:
    """A key of this round in a given slot. The hash tag is found by trying numbers.

    Args:
        token: the round's token.
        slot: the slot.
    """
    tag = next(f"{{{n}}}" for n in range(1 << 22) if key_slot(f"{{{n}}}".encode()) == slot)
    return f"{PROBE}:{token}:{tag}"
