"""A deploy as a whole: nothing is touched behind a blocked preflight, and the report tells of every node."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.dag import Dag
from components.base import Check
from errors import ArgumentError, PermanentError
from operations.deploy import run as deploying
from operations.deploy.plan import UPGRADE, NodePlan, Plan
from operations.deploy.run import DeployReport, run_deploy
from operations.runner.context import RunContext
from operations.runner.progress import NodeProgress
from operations.runner.walk import NodeResult, Start, Work

CONTROL = "control"


class World:
    """A graph of three nodes, and what becomes of each.

    Attributes:
        findings: of the preflight.
        fails: node → what it raises.
        happened: in order.
        asked: nodes that the preflight was asked for.
        lines: tables that were published.
        namespaces: that are there.
    """

    def __init__(self) -> None:
        self.findings: tuple[Check, ...] = ()
        self.fails: dict[str, Exception] = {}
        self.happened: list[str] = []
        self.asked: list[set[str]] = []
        self.lines: list[list[NodeProgress]] = []
        self.namespaces = {CONTROL, "engines"}
        self.graph = Dag()
        self.graph.add("namespace", [])
        self.graph.add("redis", ["namespace"])
        self.graph.add("emqx", ["redis"])

    # ------------------------------------------------------------------ the cluster
    def get(self, _: str, kind: str, name: str) -> Any:
        assert kind == "Namespace"
        return {"metadata": {"name": name}} if name in self.namespaces else None

    def apply(self, manifest: Any) -> None:
        self.happened.append(f"apply {manifest['kind']} {manifest['metadata']['name']}")

    @contextmanager
    def lease(self, name: str, run: str) -> Iterator[None]:
        self.happened.append(f"{name} for {run}")
        yield
        self.happened.append(f"{name} released")

    # ------------------------------------------------------------------ the deploy
    def make_plan(self, platform: Any) -> Plan:
        return Plan(tuple(NodePlan(name, UPGRADE, ()) for name in self.graph.sorted()))

    def preflight(self, platform: Any, plan: Plan, selected: Any) -> tuple[Check, ...]:
        self.asked.append(set(selected))
        return self.findings

    def deployer(self, platform: Any, plan: Plan, progress: Any, context: RunContext) -> Any:
        def deploy(node: str) -> NodeResult:
            self.happened.append(node)
            if node in self.fails:
                raise self.fails[node]
            return NodeResult(node, "upgraded", 1.0)

        return SimpleNamespace(deploy=deploy)

    def inline(self, graph: Dag, work: Work) -> Start:
        def begin(node: str, done: Callable[[Any], None]) -> None:
            try:
                done(work(node))
            except Exception as exc:
                done(exc)

        return begin

    def run(self, *only: str) -> DeployReport:
        names = [CONTROL, "engines"]
        namespaces = [{"kind": "Namespace", "metadata": {"name": name}} for name in names]
        account = {"kind": "ServiceAccount", "metadata": {"name": CONTROL}}
        platform: Any = SimpleNamespace(
            graph=self.graph, kube=self, lease=self.lease,
            manifests={"namespace": [account, *namespaces]},
            settings=SimpleNamespace(
                kubernetes=SimpleNamespace(control_namespace=CONTROL),
                deploy=SimpleNamespace(max_parallel_releases=2),
            ),
        )  # fmt: skip
        return run_deploy(
            platform,
            RunContext("test", publish=lambda lines: self.lines.append([*lines])),
            only=only,
            start=self.inline,
            show_plan=lambda plan: self.happened.append(f"plan of {len(plan.nodes)}"),
        )


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(deploying, "make_plan", made.make_plan)
    monkeypatch.setattr(deploying, "preflight", made.preflight)
    monkeypatch.setattr(deploying, "Deployer", made.deployer)
    monkeypatch.setattr(deploying, "read_namespace", lambda *_: {})
    return made


def outcomes(report: DeployReport) -> dict[str, str]:
    return {node.name: node.outcome for node in report.nodes}


def test_nodes_are_brought_up_in_order_under_the_lease_of_deploys(world: World) -> None:
    report = world.run()
    assert world.happened == [
        "isa-deploy for test", "plan of 3", "namespace", "redis", "emqx", "isa-deploy released",
    ]  # fmt: skip
    assert outcomes(report) == dict.fromkeys(["namespace", "redis", "emqx"], "upgraded")
    assert (report.state, report.blocked) == ("completed", ())
    assert report.summary.startswith("3 upgraded in ")
    assert world.asked == [{"namespace", "redis", "emqx"}]
    assert [line.outcome for line in world.lines[-1]] == ["upgraded"] * 3


def test_chosen_nodes_come_with_what_they_need(world: World) -> None:
    report = world.run("redis")
    assert world.asked == [{"namespace", "redis"}]
    assert outcomes(report) == {
        "namespace": "upgraded", "redis": "upgraded", "emqx": "not-attempted",
    }  # fmt: skip
    assert report.state == "completed"


def test_a_node_that_does_not_exist_is_refused_before_anything(world: World) -> None:
    with pytest.raises(ArgumentError):
        world.run("moon")
    assert world.happened == []


def test_behind_a_blocked_preflight_nothing_is_touched(world: World) -> None:
    world.findings = (
        Check("quota", False, "too small"),
        Check("object store", False, "away", critical=False),
        Check("charts", True),
    )
    report = world.run()
    assert world.happened == ["isa-deploy for test", "plan of 3", "isa-deploy released"]
    assert outcomes(report) == dict.fromkeys(["namespace", "redis", "emqx"], "not-attempted")
    assert {node.reason for node in report.nodes} == {"preflight"}
    assert (report.state, report.blocked) == ("failed", ("quota: too small",))
    assert report.summary.endswith(". preflight: quota: too small")
    assert report.document().blocked == ("quota: too small",)


def test_what_needs_a_failed_node_is_left_and_the_cause_is_told(world: World) -> None:
    world.fails = {"redis": PermanentError("its gate stayed red")}
    report = world.run()
    assert outcomes(report) == {"namespace": "upgraded", "redis": "failed", "emqx": "skipped"}
    assert report.state == "failed"
    assert report.summary.endswith(". redis: its gate stayed red")
    assert "emqx" not in world.happened


def test_the_namespace_of_the_leases_is_made_before_the_first_deploy(world: World) -> None:
    world.namespaces = set()
    world.run()
    assert world.happened[:2] == ["apply Namespace control", "isa-deploy for test"]


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        ("unchanged", "completed"),
        ("not-attempted", "completed"),
        ("failed", "failed"),
        ("skipped", "failed"),
    ],
)
def test_a_deploy_has_failed_if_a_selected_node_did_not_get_to_its_end(
    outcome: str, state: str
) -> None:
    report = DeployReport(1.25, (NodeResult("redis", outcome, 1.0, "why"),))
    assert report.state == state
    assert report.document().seconds == 1.25
    assert [vars(one) for one in report.document().nodes] == [vars(report.nodes[0])]
    assert report.summary.startswith(f"1 {outcome} in 1.2 s")
