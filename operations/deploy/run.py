"""A deploy from beginning to end: Lease, plan, preflight, walk of the graph, report."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace

from cluster.dag import Dag
from operations.deploy.node import Deployer
from operations.deploy.plan import Plan, make_plan
from operations.deploy.preflight.checks import preflight
from operations.documents.runs import Deploy, DeployNode
from operations.environment import leases
from operations.environment.environment import NAMESPACE, Environment, require_known
from operations.environment.place import read_namespace
from operations.runner.context import RunContext
from operations.runner.progress import Progress
from operations.runner.walk import (
    FAILED,
    NOT_ATTEMPTED,
    SKIPPED,
    NodeResult,
    Start,
    Work,
    walk,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DeployReport:
    """How a deploy ended.

    Attributes:
        seconds: wall time.
        nodes: one result each, in the order of the graph.
        blocked: findings of the preflight that stopped it before the first change.
    """

    seconds: float
    nodes: tuple[NodeResult, ...]
    blocked: tuple[str, ...] = ()

    @property
    def state(self) -> str:
        """`completed`, or `failed` if any selected node did not complete."""
        bad = [node for node in self.nodes if node.outcome in (FAILED, SKIPPED)]
        return "failed" if bad or self.blocked else "completed"

    @property
    def summary(self) -> str:
        """One line: the number of nodes with each outcome, and every cause."""
        counts: dict[str, int] = {}
        for node in self.nodes:
            counts[node.outcome] = counts.get(node.outcome, 0) + 1
        message = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
        failed = [f"{node.name}: {node.reason}" for node in self.nodes if node.outcome == FAILED]
        causes = "; ".join([*(f"preflight: {finding}" for finding in self.blocked), *failed])
        return f"{message} in {self.seconds:.1f} s" + (f". {causes}" if causes else "")

    def document(self) -> Deploy:
        """The report as `isa deploy --json` prints it."""
        return Deploy(
            state=self.state,
            seconds=round(self.seconds, 2),
            message=self.summary,
            nodes=tuple(DeployNode(**vars(node)) for node in self.nodes),
            blocked=self.blocked,
        )


def checked_plan(environment: Environment, selected: Collection[str] | None = None) -> Plan:
    """The plan, with the findings of the preflight; changes nothing.

    Args:
        environment: opened.
        selected: nodes that are to be changed; all if None.
    """
    plan = make_plan(environment)
    return replace(plan, preflight=preflight(environment, plan, selected))


def run_deploy(
    environment: Environment,
    context: RunContext,
    *,
    only: Iterable[str] = (),
    start: Callable[[Dag, Work], Start],
    show_plan: Callable[[Plan], None] = lambda plan: None,
) -> DeployReport:
    """Deploy the platform, or the chosen nodes with what they need.

    Args:
        environment: opened.
        context: of the run.
        only: names of nodes; all if empty.
        start: given the graph and the work of a node, how one is begun (a thread, a Prefect task).
        show_plan: gets the plan before anything is changed.

    Returns:
        The outcome of each node. A blocked preflight is a report too: nothing was attempted.

    Raises:
        LeaseHeld: another deploy is running.
        ArgumentError: `only` names something unknown.
        PermanentError: the cluster belongs to another environment.
    """
    began = context.clock()
    graph = environment.graph
    require_known(only, graph)
    selected = graph.with_needs(only or graph)
    read_namespace(environment.kube, environment.settings)
    ensure_control_namespace(environment)
    with environment.lease(leases.DEPLOY, context.who):
        plan = checked_plan(environment, selected)
        show_plan(plan)
        progress = Progress(graph.sorted(), context.publish, context.clock)
        if plan.blocked:
            nodes = tuple(
                NodeResult(name, NOT_ATTEMPTED, reason="preflight") for name in graph.sorted()
            )
            return DeployReport(
                context.clock() - began, nodes, tuple(f"{c.name}: {c.hint}" for c in plan.blocked)
            )
        deployer = Deployer(environment, plan, progress, context)
        results = walk(
            context,
            graph,
            selected,
            start(graph, deployer.deploy),
            max_parallel=environment.settings.deploy.max_parallel_releases,
            report=lambda r: progress.ended(r.name, r.outcome, r.seconds, r.reason),
        )
    return DeployReport(context.clock() - began, tuple(results))


def ensure_control_namespace(environment: Environment) -> None:
    """Create the namespace of the Leases before the first deploy; the namespace node completes it."""
    name = environment.settings.kubernetes.control_namespace
    if environment.kube.get("v1", "Namespace", name) is None:
        wanted = (m for m in environment.manifests[NAMESPACE] if m["kind"] == "Namespace")
        for manifest in wanted:
            if manifest["metadata"]["name"] == name:
                environment.kube.apply(manifest)
