from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cluster.kube import NotAllowed, NotFound, Resource, WebhookFailed
from cluster.objects.drift import Difference
from components.base import Check
from errors import PermanentError
from operations.deploy.plan import DRIFTED, INSTALL, UNCHANGED, UPGRADE, NodePlan, Plan, ReleasePlan
from operations.deploy.preflight.dry_run import changing, check_changes


def manifest(name: str, kind: str = "StatefulSet") -> dict[str, Any]:
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}}


class Server:
    """Refuses what it is told to, by name, and notes what it was asked."""

    def __init__(self, refusals: dict[str, Exception]) -> None:
        self.refusals = refusals
        self.asked: list[str] = []

    def resource(self, api_version: str, kind: str) -> Resource:
        return Resource(api_version, kind, "any", True)

    def apply(self, manifest: dict[str, Any], *, manager: str, dry_run: bool) -> dict[str, Any]:
        assert dry_run and manager == "isa-cloud-plan"
        assert manifest["metadata"]["namespace"] == "isa"
        self.asked.append(manifest["metadata"]["name"])
        if manifest["metadata"]["name"] in self.refusals:
            raise self.refusals[manifest["metadata"]["name"]]
        return manifest


def platform(server: Server, own: dict[str, list[Any]] | None = None) -> Any:
    kubernetes = SimpleNamespace(namespace="isa")
    return SimpleNamespace(
        kube=server, manifests=own or {}, settings=SimpleNamespace(kubernetes=kubernetes)
    )


def node(action: str, *names: str, differences: tuple[Difference, ...] = ()) -> NodePlan:
    release: Any = SimpleNamespace(name="r")
    manifests = tuple(manifest(name) for name in names)
    planned = ReleasePlan(release, action, (), None, manifests=manifests, differences=differences)
    return NodePlan("redis", action, (), (planned,))


def findings(refusals: dict[str, Exception], *nodes: NodePlan) -> list[Check]:
    return list(check_changes(platform(Server(refusals)), Plan(nodes)))


@pytest.mark.parametrize("action", [INSTALL, UPGRADE, DRIFTED])
def test_all_objects_of_a_release_that_changes_are_tried(action: str) -> None:
    server = Server({})
    (check,) = check_changes(platform(server), Plan((node(action, "a", "b"),)))
    assert sorted(server.asked) == ["a", "b"]
    assert check.ok and check.hint == "2 objects would be applied"


def test_a_release_that_is_left_alone_is_not_tried() -> None:
    server = Server({})
    assert [c.ok for c in check_changes(platform(server), Plan((node(UNCHANGED, "a"),)))] == [True]
    assert server.asked == []


def test_of_our_own_manifests_those_that_differ_are_tried() -> None:
    own = {"namespace": [manifest("a", "NetworkPolicy"), manifest("b", "NetworkPolicy")]}
    differs = (Difference("NetworkPolicy", "b"),)
    plan = NodePlan("namespace", UPGRADE, (), objects=differs)
    assert changing(platform(Server({}), own), plan) == [own["namespace"][1]]


def test_a_policy_that_refuses_blocks_with_its_own_words() -> None:
    words = "ValidatingAdmissionPolicy 'small' with binding 'small' denied request: at most 3"
    (check,) = findings({"a": PermanentError(words)}, node(INSTALL, "a", "b"))
    assert (check.name, check.ok, check.critical) == ("change of StatefulSet/a", False, True)
    assert check.hint == words


def test_an_immutable_field_is_told_with_where_the_steps_are() -> None:
    words = "HTTP 422: Forbidden: updates to statefulset spec for fields other than 'replicas'"
    (check,) = findings({"a": PermanentError(words)}, node(UPGRADE, "a"))
    assert not check.ok and "PRODUCTION_DESIGN.md" in check.hint


def test_a_webhook_that_is_down_blocks_once_by_its_name() -> None:
    names = [str(number) for number in range(40)]
    down = {name: WebhookFailed("HTTP 500", "guard.example.org") for name in names}
    server = Server(dict(down))
    (check,) = check_changes(platform(server), Plan((node(INSTALL, *names),)))
    assert (check.name, check.ok) == ("webhook guard.example.org", False)
    assert check.critical and "start the webhook first" in check.hint
    assert len(server.asked) < len(names)  # each would take the webhook's whole time


@pytest.mark.parametrize("error", [NotAllowed("HTTP 403"), NotFound("HTTP 404")])
def test_a_lacking_right_and_a_namespace_that_is_still_to_come_say_nothing(
    error: Exception,
) -> None:
    assert [check.ok for check in findings({"a": error}, node(INSTALL, "a"))] == [True]


def test_a_webhook_that_knows_no_dry_runs_warns() -> None:
    words = 'admission webhook "old" does not support dry run'
    (check,) = findings({"a": PermanentError(words)}, node(INSTALL, "a"))
    assert (check.ok, check.critical) == (False, False)


def test_an_object_that_nobody_can_compare_warns_where_nothing_changes() -> None:
    undecided = Difference("Service", "x", "undecided", refusal="denied request: no")
    checks = findings({}, node(UNCHANGED, differences=(undecided,)))
    warning = next(check for check in checks if not check.ok)
    assert (warning.name, warning.critical) == ("comparison of Service/x", False)
    assert "denied request: no" in warning.hint
