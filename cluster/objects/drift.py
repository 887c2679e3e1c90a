"""Compares a manifest with the live object, and names every field that differs.

A live object has more fields than its manifest (defaults, status), and the server rewrites some values (`1000m` is
`1`, `hostNetwork: false` becomes no field). So the first step is: does the live object contain the manifest as written?
Only if it does not, the API server computes the object after the apply (dry run), and the two are compared. The first
step also avoids needing write permission for objects that this identity never writes (RBAC).

An apply leaves fields that others added, so they are no difference there. They are read from the owners of the fields
(`cluster.objects.ownership`), and removed by `take_back`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cluster.kube import FIELD_MANAGER, Kube, NotAllowed, WebhookFailed
from cluster.manifests import Manifest
from cluster.objects.fields import Change, differences, missing
from cluster.objects.ownership import additions, has_more, removal, still_there, taken_over
from config.text.printable import first_of
from errors import PermanentError

HELM = "helm"  # field manager of Helm's own applies
# Another manager than the one that applies: an apply takes away what its own manager no longer names.
PLANNER = "isa-cloud-plan"
# Set by the server or by controllers; not part of the desired state.
VOLATILE = {
    "managedFields",
    "resourceVersion",
    "generation",
    "uid",
    "creationTimestamp",
    "selfLink",
}
# Shared with the site, whose tools label and annotate them.
SHARED = {"Namespace"}
SHOWN = 5  # fields of one object in a line of the plan
CHANGED, MISSING, REMOVED, UNDECIDED = "changed", "missing", "removed", "undecided"


@dataclass(frozen=True)
class Difference:
    """One object that differs from its manifest.

    Attributes:
        kind: `StatefulSet`.
        name: `postgresql-ha-postgresql`.
        state: changed; missing; removed, if it is live and no longer declared; or undecided, if the server refuses the
            dry run and nothing differs for certain.
        fields: what is changed.
        refusal: why the server refused the dry run; then only what is certain without it is in `fields`.
    """

    kind: str
    name: str
    state: str = CHANGED
    fields: tuple[Change, ...] = ()
    refusal: str = ""

    @property
    def what(self) -> str:
        """The object: `StatefulSet/redis-cluster`."""
        return f"{self.kind}/{self.name}"

    def __str__(self) -> str:
        if self.state != CHANGED:
            labels = {MISSING: "missing", REMOVED: "no longer declared", UNDECIDED: self.refusal}
            return f"{self.what}: {labels[self.state]}"
        return f"{self.what}: {'; '.join(first_of([*map(str, self.fields)], SHOWN))}"

    def as_json(self) -> dict[str, Any]:
        """The difference as `--json` prints it."""
        fields = [change.as_json() for change in self.fields]
        return {"object": self.what, "state": self.state, "fields": fields}


def compare(
    kube: Kube,
    manifest: Manifest,
    *,
    namespace: str,
    owner: str = FIELD_MANAGER,
    ignored: Collection[str] = (),
) -> Difference | None:
    """Compare one manifest with the live object.

    Args:
        kube: the cluster.
        manifest: what should be.
        namespace: for objects that do not name theirs.
        owner: field manager that applies the manifest.
        ignored: field managers whose additions are no drift (`deploy.ignored_field_managers`).

    Returns:
        What differs, or None.
    """
    kind, name = manifest["kind"], manifest["metadata"]["name"]
    declared = with_namespace(kube, manifest, namespace)
    live = kube.get(manifest["apiVersion"], kind, name, declared["metadata"].get("namespace"))
    if live is None:
        return Difference(kind, name, MISSING)
    changes, refusal = _changes(kube, declared, live, ignored)
    if kind not in SHARED:
        changes += _added(kube, declared, live, owner, ignored)
    if not changes and not refusal:
        return None
    fields = tuple(replace(change, hidden=kind == "Secret") for change in changes)
    return Difference(kind, name, CHANGED if fields else UNDECIDED, fields, refusal)


def take_back(
    kube: Kube,
    manifest: Manifest,
    *,
    namespace: str,
    owner: str = FIELD_MANAGER,
    ignored: Collection[str] = (),
) -> bool:
    """Move fields that others added to an object's owner, whose next apply removes them; returns whether any were.

    Raises:
        Conflict: the object changed between our read and our write.
    """
    declared = with_namespace(kube, manifest, namespace)
    object_namespace = declared["metadata"].get("namespace")
    live = kube.get(
        declared["apiVersion"], declared["kind"], declared["metadata"]["name"], object_namespace
    )
    if live is None or declared["kind"] in SHARED:
        return False
    added = additions(live, declared, owner=owner, ignored=ignored)
    if not added:
        return False
    version = live["metadata"]["resourceVersion"]
    owned = taken_over(live, added, owner)
    kube.json_patch(
        live,
        [
            # the version that was read: anything newer is a conflict
            {"op": "replace", "path": "/metadata/resourceVersion", "value": version},
            {"op": "replace", "path": "/metadata/managedFields", "value": owned},
        ],
    )
    return True


def with_namespace(kube: Kube, manifest: Manifest, namespace: str) -> Manifest:
    """Give a namespaced manifest that names no namespace the release's one, as helm does."""
    metadata = manifest["metadata"]
    if (
        metadata.get("namespace")
        or not kube.resource(manifest["apiVersion"], manifest["kind"]).namespaced
    ):
        return manifest
    return {**manifest, "metadata": {**metadata, "namespace": namespace}}


def changed_objects(old: Sequence[Manifest], new: Sequence[Manifest]) -> list[Difference]:
    """The objects in which two renderings differ, field by field, by kind and name."""
    old_objects, new_objects = ({_key(m): m for m in manifests} for manifests in (old, new))
    result = []
    for key in sorted(old_objects.keys() | new_objects.keys()):
        kind, name = key
        if key not in new_objects or key not in old_objects:
            result.append(Difference(kind, name, REMOVED if key not in new_objects else MISSING))
            continue
        changes = differences(old_objects[key], new_objects[key])
        fields = tuple(replace(change, hidden=kind == "Secret") for change in changes)
        if fields:
            result.append(Difference(kind, name, CHANGED, fields))
    return result


def _changes(
    kube: Kube, declared: Manifest, live: Manifest, ignored: Collection[str]
) -> tuple[list[Change], str]:
    """Return what an apply would change; or the refusal, if the server refuses the dry run."""
    plain = list(missing(declared, live))
    if not plain and not has_more(live, declared, ignored):
        return [], ""
    certain = [change for change in plain if not _may_be_a_default(change)]
    try:
        applied = kube.apply(declared, manager=PLANNER, dry_run=True)
    except NotAllowed:
        return certain, ""
    except (PermanentError, WebhookFailed) as exc:
        return certain, str(exc)
    return list(differences(_stable(live), _stable(applied))), ""


def _may_be_a_default(change: Change) -> bool:
    """Whether it is an empty value: the server drops some of them, and only the server knows which."""
    return change.old is None and change.new in (False, 0, "", {}, [])


def _added(
    kube: Kube, declared: Manifest, live: Manifest, owner: str, ignored: Collection[str]
) -> list[Change]:
    """Return what others added, without defaults, which belong to the creator of an object that was not applied."""
    added = additions(live, declared, owner=owner, ignored=ignored)
    if not added:
        return []
    try:
        patched = kube.json_patch(live, removal(live, added), dry_run=True)
    except (PermanentError, WebhookFailed):
        patched = {}
    changes = {a.change.path: a.change for a in added if not still_there(a, patched)}
    return list(changes.values())


def _key(manifest: Manifest) -> tuple[str, str]:
    return manifest["kind"], manifest["metadata"]["name"]


def _stable(manifest: Manifest) -> Manifest:
    metadata = {k: v for k, v in manifest.get("metadata", {}).items() if k not in VOLATILE}
    return {**{k: v for k, v in manifest.items() if k != "status"}, "metadata": metadata}
