"""Tests each change of a plan as a dry run on the API server.

Immutable fields, admission policies, webhooks and object quotas refuse with their own message, which becomes the
finding. Helm applies all objects of a release that changes, so all of them are tested; of a node whose manifests isa
applies itself, those that differ. A missing permission does not tell whether the change is valid; the deploy reports
it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from cluster.kube import Kube, NotAllowed, NotFound, WebhookFailed
from cluster.manifests import Manifest
from cluster.objects.drift import PLANNER, UNDECIDED, with_namespace
from components.base import Check
from errors import PermanentError
from operations.deploy.plan import RECOVER, RESTART, UNCHANGED, UNKNOWN, NodePlan, Plan
from operations.environment.environment import Environment

# Dry runs wait for the API server and for webhooks; as many at once as a plan compares.
THREADS = 6
# A webhook with side effects has to be left out of dry runs, and the server then refuses them:
# https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#side-effects
NO_DRY_RUN = "does not support dry run"
NEW_OBJECT = "PRODUCTION_DESIGN.md, Changes, lists the steps for a field that needs a new object"


@dataclass(frozen=True)
class Refusal:
    """Why the server refuses an object.

    Attributes:
        what: `StatefulSet/redis-cluster`.
        words: the server's message.
        webhook: the admission webhook that is down or slow, "" for any other refusal.
    """

    what: str
    words: str
    webhook: str = ""


def check_changes(environment: Environment, plan: Plan) -> Iterator[Check]:
    """Test every change of a plan; returns a finding for each refusal, and one for each webhook that is down."""
    manifests = [m for node in plan.nodes for m in changing(environment, node)]
    refusals = list(refused(environment.kube, manifests, environment.settings.kubernetes.namespace))
    untried = [r for r in refusals if NO_DRY_RUN in r.words]
    for refusal in refusals:
        if refusal.webhook or refusal in untried:
            continue
        hint = refusal.words
        if "updates to statefulset spec" in hint or "immutable" in hint:
            hint += f". {NEW_OBJECT}"
        yield Check(f"change of {refusal.what}", False, hint)
    for webhook in sorted({r.webhook for r in refusals if r.webhook}):
        concerned = [r for r in refusals if r.webhook == webhook]
        hint = (
            f"{concerned[0].words}. Without it the API server accepts no {concerned[0].what}: start the webhook "
            "first"
        )
        yield Check(f"webhook {webhook}", False, hint)
    if untried:
        hint = f"{untried[0].words}: {len(untried)} changes cannot be tested with a dry run"
        yield Check("changes in place", False, hint, critical=False)
    elif not refusals:
        yield Check("changes in place", True, f"{len(manifests)} objects would be applied")
    yield from _undecided(plan)


def changing(environment: Environment, node: NodePlan) -> list[Manifest]:
    """The manifests of a node that a deploy would apply."""
    if node.name in environment.manifests:
        differing = {difference.what for difference in node.differences}
        return [m for m in environment.manifests[node.name] if _what(m) in differing]
    idle = (UNCHANGED, UNKNOWN, RECOVER, RESTART)
    return [m for release in node.releases if release.action not in idle for m in release.manifests]


def refused(kube: Kube, manifests: list[Manifest], namespace: str) -> Iterator[Refusal]:
    """Apply each manifest as a dry run; yield the server's refusals.

    A webhook that is down needs its whole timeout for every object: after the first one no more are tested.

    Args:
        kube: the cluster.
        manifests: what would be applied.
        namespace: for manifests that name none.
    """
    down = threading.Event()

    def attempt(manifest: Manifest) -> Refusal | None:
        if down.is_set():
            return None
        try:
            kube.apply(with_namespace(kube, manifest, namespace), manager=PLANNER, dry_run=True)
        except WebhookFailed as exc:
            down.set()
            return Refusal(_what(manifest), str(exc), exc.webhook)
        except (NotAllowed, NotFound):  # no right; or the namespace, or the kind, is still to come
            return None
        except PermanentError as exc:
            return Refusal(_what(manifest), str(exc))
        return None

    with ThreadPoolExecutor(THREADS) as pool:
        yield from (refusal for refusal in pool.map(attempt, manifests) if refusal)


def _undecided(plan: Plan) -> Iterator[Check]:
    """Objects of releases that would be left alone, which nobody can compare."""
    for node in plan.nodes:
        for difference in node.differences:
            if difference.state == UNDECIDED and node.action == UNCHANGED:
                hint = f"{difference.refusal}. No certain difference was found, so the object would not be changed"
                yield Check(f"comparison of {difference.what}", False, hint, critical=False)


def _what(manifest: Manifest) -> str:
    return f"{manifest['kind']}/{manifest['metadata']['name']}"
