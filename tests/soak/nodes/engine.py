"""What the cases of an engine have in common: the project deploys, backs up and verifies it by its own commands."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from typing import Any

from components.access import Access
from config.loading import load
from sandbox.nodes.platform import Platform
from sandbox.seed import SEEDERS
from tests.soak.case_table import expect
from tests.soak.nodes.cases import NAMESPACE, NodeCases


@dataclass
class EngineCases(NodeCases):
    """Cases of one engine, in their order.

    Attributes:
        component: name.
        workload: its StatefulSet.
        members: number.
        backup: id of the last one.
    """

    component: str = field(kw_only=True)
    workload: str = field(kw_only=True)
    members: int = field(kw_only=True)
    backup: str = ""

    def proven(self) -> None:
        """From nothing to a verified backup."""
        name = self.component
        self.case("an object store serves pods and `isa` at one address", self.platform.up)
        self.case(f"`isa deploy --only {name}` ends with its gate green", self.deployed)
        self.case(f"each member of {name} has a node and a volume of its own", self.are_apart)
        self.case(f"{name} is filled", self.filled)
        self.case(f"`isa backup {name}` is complete", self.backed_up)
        self.case(f"`isa verify {name}` passes at L4 in a scratch pod", self.verified)

    @property
    def platform(self) -> Platform:
        return Platform(self.nodes, (self.component,))

    @property
    def names(self) -> list[str]:
        """Of its pods."""
        return [f"{self.workload}-{number}" for number in range(self.members)]

    # ------------------------------------------------------------------ the cases
    def deployed(self) -> None:
        run = self.isa("deploy", "--only", self.component)
        outcome = {node["name"]: node["outcome"] for node in run["nodes"]}
        expect(outcome.get(self.component) in ("installed", "upgraded"), f"{run}")

    def are_apart(self) -> None:
        hosts = {self.read(name)["spec"]["nodeName"] for name in self.names}
        expect(len(hosts) == self.members, f"they are on {hosts}")
        volumes = {*self.volumes().values()} - {""}
        expect(len(volumes) == self.members, f"claims: {self.volumes()}")

    def filled(self) -> None:
        with self.access() as access:
            SEEDERS[self.component](access, 1, random.Random(1))

    def backed_up(self) -> None:
        run = self.isa("backup", self.component)
        expect([one["outcome"] for one in run["backups"]] == ["complete"], f"{run}")
        self.backup = str(run["backups"][0]["id"])

    def verified(self) -> None:
        run = self.isa("verify", self.component)
        ends = [(one["verdict"], one["level"]) for one in run["proofs"]]
        expect(ends == [("pass", "L4")], f"{run}")

    # ------------------------------------------------------------------ how they ask
    def isa(self, *words: str) -> dict[str, Any]:
        """Run a command in its own process, and return its document."""
        done = self.platform.isa(*words, "--local", "--json")
        said = f"{done.stdout[-2000:]}{done.stderr[-2000:]}"
        expect(done.returncode == 0, f"isa {' '.join(words)}: {said}")
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    def is_green(self) -> bool:
        """Whether its gate is."""
        return self.platform.isa("status", "--only", self.component).returncode == 0

    def volumes(self) -> dict[str, str]:
        """Claim of a member → its volume."""
        claims = self.kube.list("v1", "PersistentVolumeClaim", NAMESPACE)
        return {
            one["metadata"]["name"]: one["spec"].get("volumeName", "")
            for one in claims
            if any(one["metadata"]["name"].endswith(f"-{name}") for name in self.names)
        }

    def access(self) -> Access:
        """The way to its members, from this machine."""
        settings = load("sandbox", environ=self.platform.settings_environ())
        return Access(settings, self.kube)
