"""The data of the report for an engineer on call: `operations.report.html` draws it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from cluster.dag import Dag
from components.base import Check
from errors import IsaError
from operations.documents import report as documents
from operations.documents.environment import Check as CheckDocument
from operations.health import status as gates
from operations.health.freshness import FAILING, FRESH, NEVER, STALE
from operations.health.status import ComponentStatus
from operations.report.history import ComponentHistory
from operations.runner.progress import NodeProgress

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class DeployRun:
    """A past deploy.

    Attributes:
        name: of its run.
        begun: its start.
        seconds: that it took.
        state: completed, failed, cancelled …
        message: of its final state.
        nodes: state of each at its end; none if it was interrupted before the first.
    """

    name: str
    begun: datetime
    seconds: float
    state: str
    message: str
    nodes: tuple[NodeProgress, ...]

    @property
    def outcomes(self) -> dict[str, str]:
        """Node → how it ended."""
        return {node.name: outcome(node) for node in self.nodes}

    def document(self) -> documents.ReportedDeploy:
        """As `isa report --json` prints it."""
        nodes = tuple(documents.ReportedNode(**vars(node)) for node in self.nodes)
        return documents.ReportedDeploy(**{**vars(self), "nodes": nodes})


@dataclass(frozen=True)
class Report:
    """The state of an environment, and its history.

    Attributes:
        environment: name.
        made: time of the report.
        components: history of each.
        needs: node of a deploy → what it needs.
        deploys: the last ones, the newest first.
        status: of the gates now.
        checks: of the doctor now.
        unasked: sources that could not be reached, and why.
    """

    environment: str
    made: datetime
    components: tuple[ComponentHistory, ...] = ()
    needs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    deploys: tuple[DeployRun, ...] = ()
    status: tuple[ComponentStatus, ...] = ()
    checks: tuple[Check, ...] = ()
    unasked: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """The summary in one line."""
        fresh = [component for component in self.components if component.freshness.state == FRESH]
        parts = [f"{len(fresh)} of {len(self.components)} have a recent verified restore"]
        if not self.components:
            parts = ["backups and proofs could not be read"]
        for state, label in ((FAILING, "failing"), (STALE, "stale"), (NEVER, "never proven")):
            names = [
                component.component
                for component in self.components
                if component.freshness.state == state
            ]
            parts += [f"{label}: {', '.join(names)}"] if names else []
        red = [component.name for component in self.status if not component.ready]
        if self.status:
            parts.append(f"not ready: {', '.join(red)}" if red else "every gate is green")
        return "; ".join(parts) + "."

    def document(self) -> documents.Report:
        """As `isa report --json` prints it."""
        return documents.Report(
            environment=self.environment,
            made=self.made,
            sentence=self.sentence,
            components=tuple(component.document() for component in self.components),
            needs=dict(self.needs),
            deploys=tuple(deploy.document() for deploy in self.deploys),
            status=gates.document(self.status) if self.status else None,
            checks=tuple(CheckDocument.of(check) for check in self.checks),
            unasked=self.unasked,
        )


class Asking:
    """Collects several parts; one that fails does not stop the others, and is listed."""

    def __init__(self) -> None:
        self.unasked: list[str] = []

    def ask(self, what: str, call: Callable[[], T], otherwise: U) -> T | U:
        """The answer, or what stands for it.

        Args:
            what: is asked, for people.
            call: asks.
            otherwise: where it fails.
        """
        try:
            return call()
        except IsaError as exc:
            self.unasked.append(f"{what}: {exc}")
            return otherwise


def needs_of(graph: Dag) -> dict[str, tuple[str, ...]]:
    """Node → what it needs, each after its needs."""
    return {node: graph.needs(node) for node in graph.sorted()}


def outcome(node: NodeProgress) -> str:
    """How a node ended, or that it did not: its run may have been killed."""
    return node.outcome or ("not-attempted" if node.phase == "waiting" else "unfinished")
