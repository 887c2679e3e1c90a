"""Function libraries: each shard has its own. They are restored to the masters that have the shard's slots now.

Clients usually load a library into every master, but Redis does not require it:
https://redis.io/docs/latest/develop/programmability/functions-intro/#functions-in-cluster
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from archive.backup.manifest import Manifest
from archive.backup.names import short_name
from components.redis.client import REVERSIBLE, parse_ranges

SHOWN = 200  # characters of a library's name
Libraries = Mapping[str, str]  # name → code or digest


@dataclass
class Placement:
    """Which master gets which libraries.

    Attributes:
        of: master → name → code.
        conflicts: why libraries cannot be placed, for the error message.
    """

    of: dict[str, dict[str, str]] = field(default_factory=dict)
    conflicts: list[str] = field(default_factory=list)


def read_libraries(client: Any) -> dict[str, str]:
    """Name and code of all libraries of a server."""
    libraries = {}
    for library in client.execute_command("FUNCTION LIST", "WITHCODE"):
        pairs = (
            library.items()
            if isinstance(library, Mapping)
            else zip(library[::2], library[1::2], strict=True)
        )
        fields = {_text(key): value for key, value in pairs}
        libraries[_text(fields["library_name"])] = _text(fields["library_code"])
    return libraries


def slots_of(manifest: Manifest) -> dict[str, set[int]]:
    """Unit of a shard → its slots. In older backups the unit's name has the slots."""
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
        masters: master → its slots now.
    """
    placement = Placement({master: {} for master in masters})
    for master, own_slots in masters.items():
        origin: dict[str, str] = {}
        for unit, libraries in shards.items():
            if not own_slots & slots.get(unit, own_slots):
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
