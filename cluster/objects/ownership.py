"""Finds fields that others added to a live object, and takes ownership of them so that the next apply removes them.

The API server records the owner of every field in `metadata.managedFields`
(https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management). An apply removes a field that its
manager owned and no longer names; fields of other managers stay. So a foreign field is first moved into our
own entry, and the apply that follows removes it.

A field without a recorded owner (someone emptied managedFields) cannot be distinguished from a server default.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from cluster.manifests import Manifest
from cluster.objects.fields import Change, join, missing

Fields = dict[str, Any]
# The control plane's own managers, and this tool, which marks pods and volumes.
CONTROLLERS = frozenset(
    {
        "kube-controller-manager", "kube-scheduler", "kube-apiserver", "kubelet", "cloud-controller-manager",
        "isa-cloud", "isa-cloud-plan",
    }
)  # fmt: skip
# Helm's own marks, which no rendering has, also where an object was adopted by hand; what says that pods were
# restarted, which is no configuration; and the API server's own label.
MARKS = frozenset(
    {
        "meta.helm.sh/release-name", "meta.helm.sh/release-namespace", "app.kubernetes.io/managed-by",
        "kubectl.kubernetes.io/restartedAt", "kubernetes.io/metadata.name",
    }
)  # fmt: skip
# Told key by key also where the manifest has no such map.
MAPS = frozenset({"metadata", "labels", "annotations", "data"})
# Set by controllers under many names: what must happen before the object goes, and what it goes with.
LIFECYCLE = frozenset({"finalizers", "ownerReferences"})
# Parts of a list's key that the server fills in (https://kubernetes.io/docs/reference/using-api/server-side-apply/#merge-strategy).
KEY_DEFAULTS = {"protocol": "TCP"}


@dataclass(frozen=True)
class Addition:
    """A field of the live object that the manifest does not have.

    Attributes:
        change: its path and value.
        steps: its path in the notation of `fieldsV1`.
        entry: index of its owner in `managedFields`.
    """

    change: Change
    steps: tuple[str, ...]
    entry: int


def additions(
    live: Manifest, manifest: Manifest, *, owner: str, ignored: Collection[str] = ()
) -> list[Addition]:
    """Return the fields that others added to an object.

    Args:
        live: as the server has it.
        manifest: as it is declared.
        owner: field manager that applies the manifest: `helm` or our own.
        ignored: managers that may add fields: a site's own controllers.
    """
    found: list[Addition] = []
    for index, entry in enumerate(live["metadata"].get("managedFields", [])):
        manager = entry.get("manager", "")
        own = manager == owner
        if entry.get("subresource") or (not own and manager in {*ignored, *CONTROLLERS}):
            continue
        for steps, path, value in _beyond(entry.get("fieldsV1", {}), manifest, live, "", ()):
            # A null in the rendering is owned too: in a map of texts the server makes it empty, and for a node port it
            # chooses a number.
            if own and (value == "" or path.endswith(".nodePort")):
                continue
            found.append(Addition(Change(path, value, None, manager), steps, index))
    return found


def has_more(live: Manifest, manifest: Manifest, ignored: Collection[str] = ()) -> bool:
    """Whether an atomic field (a selector, a list without keys) holds more than is declared.

    Only the server knows which of it are its defaults.
    """
    return any(
        any(missing(current, declared))
        for entry in live["metadata"].get("managedFields", [])
        if not entry.get("subresource") and entry.get("manager") not in {*ignored, *CONTROLLERS}
        for declared, current in _atoms(entry.get("fieldsV1", {}), manifest, live)
    )


def removal(live: Manifest, added: Collection[Addition]) -> list[dict[str, Any]]:
    """Return a JSON patch that removes fields, the last of a list first (RFC 6902)."""
    steps = {addition.steps for addition in added}  # a field may have several owners
    pointers = sorted(
        (_pointer(live, path_steps) for path_steps in steps), key=_backwards, reverse=True
    )
    operations: list[dict[str, Any]] = []
    for pointer in pointers:
        path = "".join(f"/{str(p).replace('~', '~0').replace('/', '~1')}" for p in pointer)
        operations.append({"op": "remove", "path": path})
    return operations


def still_there(addition: Addition, after: Manifest) -> bool:
    """Whether an object has a field although it was removed: then it is the server's default."""
    value: Any = after
    for step in addition.steps:
        _, _, value = _step(step, None, value)
    return bool(value == addition.change.old)


def taken_over(live: Manifest, added: Collection[Addition], owner: str) -> list[dict[str, Any]]:
    """Return the object's `managedFields` with all added fields in the owner's entry of applied fields.

    Args:
        live: as the server has it.
        added: of `additions`.
        owner: field manager whose next apply is to remove them.
    """
    entries: list[dict[str, Any]] = copy.deepcopy(live["metadata"]["managedFields"])
    own = next((e for e in entries if _applies(e, owner)), None)
    if own is None:
        own = {
            "manager": owner,
            "operation": "Apply",
            "apiVersion": live["apiVersion"],
            "fieldsType": "FieldsV1",
            "fieldsV1": {},
        }
        entries.append(own)
    for addition in added:
        if entries[addition.entry] is not own:
            part = _cut(entries[addition.entry]["fieldsV1"], addition.steps)
            _paste(own["fieldsV1"], addition.steps, part)
    return [entry for entry in entries if entry.get("fieldsV1")]


def _applies(entry: dict[str, Any], owner: str) -> bool:
    return (
        entry.get("manager") == owner
        and entry.get("operation") == "Apply"
        and not entry.get("subresource")
    )


def _beyond(
    fields: Fields, manifest: Any, live: Any, path: str, steps: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], str, Any]]:
    """Owned fields that are live and not in the manifest, at the highest path where it has none."""
    for step, below in fields.items():
        name, declared, current = _step(step, manifest, live)
        if current is None or name in MARKS or (path == "metadata" and name in LIFECYCLE):
            continue
        location = f"{path}[{name}]" if step.startswith(("k:", "v:", "i:")) else join(path, name)
        if declared is None and name in MAPS and not below:
            continue  # the map alone, as a null in the rendering leaves it: who owns its keys says so
        if declared is None and name not in MAPS:
            yield (*steps, step), location, current
        else:
            yield from _beyond(below, declared or {}, current, location, (*steps, step))


def _atoms(fields: Fields, manifest: Any, live: Any) -> Iterator[tuple[Any, Any]]:
    """Atomic maps and lists: as declared and as they are."""
    for step, below in fields.items():
        _, declared, current = _step(step, manifest, live)
        if below:
            yield from _atoms(below, declared, current)
        elif isinstance(declared, (dict, list)) and isinstance(current, (dict, list)):
            yield declared, current


def _pointer(live: Any, steps: tuple[str, ...]) -> list[Any]:
    pointer: list[Any] = []
    for step in steps:
        name, _, current = _step(step, None, live)
        pointer.append(name if step.startswith("f:") else live.index(current))
        live = current
    return pointer


def _backwards(pointer: list[Any]) -> list[tuple[int, str]]:
    return [(p, "") if isinstance(p, int) else (-1, p) for p in pointer]


def _step(step: str, manifest: Any, live: Any) -> tuple[str, Any, Any]:
    """A field's name, what the manifest has there and what is live; None for absent."""
    kind, _, content = step.partition(":")
    if kind == "f":
        declared, current = (
            v.get(content) if isinstance(v, dict) else None for v in (manifest, live)
        )
        return content, declared, current
    if kind == "k":
        keys = json.loads(content)
        entries = [_with_keys(value, keys) for value in (manifest, live)]
        name = (entries[1] or {}).get("name") or ",".join(str(value) for value in keys.values())
        return str(name), entries[0], entries[1]
    if kind == "v":
        value = json.loads(content)
        declared, current = (value if value in (v or ()) else None for v in (manifest, live))
        return str(value), declared, current
    return (
        step,
        None,
        None,
    )  # "." is the item itself, i: a place that says nothing of who put it there


def _with_keys(entries: Any, keys: dict[str, Any]) -> dict[str, Any] | None:
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and all(
            entry.get(key, KEY_DEFAULTS.get(key)) == value for key, value in keys.items()
        ):
            return entry
    return None


def _cut(fields: Fields, steps: tuple[str, ...]) -> Fields:
    """Remove a field, and every parent that is then empty."""
    if len(steps) == 1:
        return dict(fields.pop(steps[0], {}))
    below = fields.get(steps[0], {})
    part = _cut(below, steps[1:])
    if not below:
        fields.pop(steps[0], None)
    return part


def _paste(fields: Fields, steps: tuple[str, ...], part: Fields) -> None:
    for step in steps[:-1]:
        fields = fields.setdefault(step, {})
    _merge(fields.setdefault(steps[-1], {}), part)


def _merge(fields: Fields, part: Fields) -> None:
    for key, below in part.items():
        _merge(fields.setdefault(key, {}), below)
