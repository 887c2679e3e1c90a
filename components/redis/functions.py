"""Function libraries: each member has its own, so each goes to the masters that have the slots of its shard now.

Clients load a library into every master, as a rule, but nothing demands it:
https://redis.io/docs/latest/develop/programmability/functions-intro/#functions-in-cluster
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from archive.manifest import Manifest
from archive.names import short_name
from components.redis.client import REVERSIBLE, parse_ranges

SHOWN = 200  # characters of a library's name
Libraries = Mapping[str, str]  # name → code, or what stands for it


@dataclass
class Placement:
    """Which master gets which libraries.

    Attributes:
        of: master → name → code.
        conflicts: why that cannot be, in words.
    """

    of: dict[str, dict[str, str]] = field(default_factory=dict)
    conflicts: list[str] = field(default_factory=list)


def read_libraries(client: Any) -> dict[str, str]:
    """Name and code of all libraries of a server."""
    found = {}
    for one in client.execute_command("FUNCTION LIST", "WITHCODE"):
        pairs = one.items() if isinstance(one, Mapping) else zip(one[::2], one[1::2], strict=True)
        fields = {_text(key): value for key, value in pairs}
        found[_text(fields["library_name"])] = _text(fields["library_code"])
    return found


def slots_of(manifest: Manifest) -> dict[str, set[int]]:
    """Slots of each shard of a backup, by its unit; in older backups the unit's name says them."""
    return {
        str(shard.get("unit", f"shard {shard['slots']}")): parse_ranges(str(shard["slots"]))
        for shard in manifest.topology.get("shards", ())
    }


def place(
    shards: Mapping[str, Libraries], slots: Mapping[str, set[int]], masters: Mapping[str, set[int]]
) -> Placement:
    """Give every master the libraries of the shards whose slots it has.

    Args:
        shards: unit → its libraries.
        slots: unit → its slots.
        masters: master → slots that it has now.
    """
    placement = Placement({master: {} for master in masters})
    for master, held in masters.items():
        origin: dict[str, str] = {}
        for unit, libraries in shards.items():
            if not held & slots.get(unit, held):
                continue
            for name, code in libraries.items():
                if placement.of[master].setdefault(name, code) != code:
                    placement.conflicts.append(
                        f"function library {short_name(name, SHOWN)} differs between {origin[name]} and {unit}, "
                        f"and {master} has slots of both now"
                    )
                origin.setdefault(name, unit)
    return placement


def _text(value: Any) -> str:
    return value.decode(errors=REVERSIBLE) if isinstance(value, bytes) else str(value)
